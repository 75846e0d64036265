"""On one process; what several make of it is in tests/numerics."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from trainer.loss import num_without_negatives, same_source, vtc_loss
from trainer.model import Embeddings


def draw_embeddings(num_rows=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    video, text = (
        functional.normalize(torch.randn(num_rows, 8, dtype=torch.float64, generator=draw), dim=1) for _ in range(2)
    )
    return Embeddings(video, text, torch.tensor([1 / 0.07], dtype=torch.float64))


def test_the_loss_is_the_formula_of_the_paper():
    video, text, scale = embeddings = draw_embeddings()
    tau = 1 / scale.item()
    f = [[math.exp(torch.dot(v, t).item() / tau) for t in text] for v in video]
    rows = range(len(f))
    v2t = -sum(math.log(f[i][i] / sum(f[i])) for i in rows) / len(f)
    t2v = -sum(math.log(f[i][i] / sum(f[j][i] for j in rows)) for i in rows) / len(f)
    assert math.isclose(vtc_loss(embeddings).item(), (v2t + t2v) / 2, rel_tol=1e-12)


def test_equal_embeddings_cost_the_logarithm_of_the_batch_and_matching_ones_nothing():
    alike = torch.ones(6, 4) / 2
    assert math.isclose(vtc_loss(Embeddings(alike, alike, torch.tensor([10.0]))).item(), math.log(6), rel_tol=1e-6)
    own = torch.eye(6)
    assert vtc_loss(Embeddings(own, own, torch.tensor([100.0]))).item() < 1e-6


def test_pairs_of_one_source_are_not_each_others_negatives():
    video, text, scale = draw_embeddings()
    sources = torch.tensor([7, 8, 7, -3, 9])
    masked = vtc_loss(Embeddings(video, text, scale), same_source(sources[:, None]))
    logits = scale * video @ text.T
    expected = []
    for matrix in (logits, logits.T):
        for row in range(5):
            kept = [column for column in range(5) if column == row or sources[column] != sources[row]]
            expected.append(matrix[row, kept].logsumexp(0) - matrix[row, row])
    torch.testing.assert_close(masked, torch.stack(expected).mean(), rtol=1e-12, atol=0)
    nothing = same_source(torch.arange(5)[:, None])
    assert torch.equal(vtc_loss(Embeddings(video, text, scale), nothing), vtc_loss(draw_embeddings()))


def test_a_batch_of_one_source_costs_nothing_and_has_a_finite_gradient():
    video, text, scale = draw_embeddings()
    video.requires_grad_()
    same_BG = same_source(torch.zeros(5, 1, dtype=torch.int64))
    assert num_without_negatives(same_BG) == 5
    loss = vtc_loss(Embeddings(video, text, scale), same_BG)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(video.grad, torch.zeros_like(video))


def overlaps(rows):
    return torch.tensor([[bool(set(a) & set(b)) and i != j for j, b in enumerate(rows)] for i, a in enumerate(rows)])


@pytest.mark.parametrize("at_once", [1, 7, 4096])
def test_rows_are_of_one_source_where_their_sets_of_sources_overlap(monkeypatch, at_once):
    """A row that was grouped by a column stands for many videos; one with fewer than others has some again."""
    monkeypatch.setattr("trainer.loss._SHARED_AT_ONCE", at_once)
    draw = torch.Generator().manual_seed(1)
    for num_sources in (1, 2, 5):
        rows = torch.randint(-40, 40, (30, num_sources), generator=draw) * 2**56
        rows[::3] = rows[::3, :1]
        expected = overlaps(rows.tolist())
        assert 0 < expected.sum() < expected.numel() / 2
        assert torch.equal(same_source(rows), expected)


def test_rows_without_any_negative_are_counted():
    assert num_without_negatives(same_source(torch.tensor([[1, 2], [1, 1], [2, 2], [2, 3]]))) == 1
    assert num_without_negatives(same_source(torch.tensor([[1], [1], [2]]))) == 0


def test_half_precision_and_autocast_cost_the_logits_nothing():
    video, text, scale = draw_embeddings()
    half = Embeddings(video.bfloat16(), text.bfloat16(), scale.float())
    exact = vtc_loss(Embeddings(*(part.double() for part in half)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = vtc_loss(half)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact.float(), rtol=1e-5, atol=0)
