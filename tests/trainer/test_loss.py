"""On one process; what several make of it is in tests/numerics."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from trainer.loss import vtc_loss
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
    masked = vtc_loss(Embeddings(video, text, scale), sources)
    logits = scale * video @ text.T
    expected = []
    for matrix in (logits, logits.T):
        for row in range(5):
            kept = [column for column in range(5) if column == row or sources[column] != sources[row]]
            expected.append(matrix[row, kept].logsumexp(0) - matrix[row, row])
    torch.testing.assert_close(masked, torch.stack(expected).mean(), rtol=1e-12, atol=0)
    assert torch.equal(vtc_loss(Embeddings(video, text, scale), torch.arange(5)), vtc_loss(draw_embeddings()))


def test_a_batch_of_one_source_costs_nothing_and_has_a_finite_gradient():
    video, text, scale = draw_embeddings()
    video.requires_grad_()
    loss = vtc_loss(Embeddings(video, text, scale), torch.zeros(5, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(video.grad, torch.zeros_like(video))


def test_half_precision_and_autocast_cost_the_logits_nothing():
    video, text, scale = draw_embeddings()
    half = Embeddings(video.bfloat16(), text.bfloat16(), scale.float())
    exact = vtc_loss(Embeddings(*(part.double() for part in half)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = vtc_loss(half)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact.float(), rtol=1e-5, atol=0)
