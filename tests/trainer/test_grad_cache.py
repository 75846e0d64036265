from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from tests.trainer.tiny_models import draw_batch, gradients, tiny_model
from trainer.grad_cache import backward_in_pieces
from trainer.loss import same_source, vtc_loss
from trainer.model import Embeddings
from trainer.tokens import TextTokens

EXACT = {"rtol": 1e-10, "atol": 1e-14}
VIDEO, TEXTS = draw_batch(8, num_frames=2)
SOURCES = torch.tensor([0, 1, 2, 0, 3, 1, 4, 5])[:, None]


def pieces_of(num_pieces):
    parts = [VIDEO.chunk(num_pieces), *(part.chunk(num_pieces) for part in TEXTS)]
    return [(video, TextTokens(*texts)) for video, *texts in zip(*parts, strict=True)]


def encoder(model):
    return lambda piece: model(piece[0], piece[1], n_iter_video=3, n_iter_text=1)


def loss_of(embeddings):
    return vtc_loss(embeddings, same_source(SOURCES))


def without_cache(model, pieces):
    """All pieces with their graphs in memory, so that random numbers are drawn in the same order."""
    parts = [encoder(model)(piece) for piece in pieces]
    video, text = (torch.cat(column) for column in list(zip(*parts, strict=True))[:2])
    loss = loss_of(Embeddings(video, text, parts[0].logit_scale))
    loss.backward()
    return loss.detach(), gradients(model)


def with_cache(model, pieces):
    loss = backward_in_pieces(encoder(model), pieces, loss_of)
    return loss, gradients(model)


@pytest.fixture(scope="module")
def whole():
    return without_cache(tiny_model(), pieces_of(1))


@pytest.mark.parametrize("num_pieces", [1, 2, 3, 4, 8])
def test_pieces_give_the_loss_and_the_gradient_of_the_whole_batch_the_temperatures_included(whole, num_pieces):
    found = with_cache(tiny_model(), pieces_of(num_pieces))
    torch.testing.assert_close(found[0], whole[0], **EXACT)
    assert found[1].keys() == whole[1].keys()
    assert whole[1]["logit_scale"].abs() > 1e-3
    for name, expected in whole[1].items():
        torch.testing.assert_close(found[1][name], expected, **EXACT, msg=lambda text, name=name: f"{name}: {text}")


def test_the_comparison_sees_a_temperature_that_counts_once_a_piece(whole):
    model, pieces = tiny_model(), pieces_of(4)
    with torch.no_grad():
        parts = [encoder(model)(piece) for piece in pieces]
    video, text = (torch.cat(column).requires_grad_() for column in list(zip(*parts, strict=True))[:2])
    scale = parts[0].logit_scale.clone().requires_grad_()
    loss_of(Embeddings(video, text, scale)).backward()
    for piece, *grads in zip(pieces, video.grad.chunk(4), text.grad.chunk(4), strict=True):
        torch.autograd.backward(list(encoder(model)(piece)), [*grads, scale.grad])
    found = gradients(model)
    torch.testing.assert_close(found["video_iam.base"], whole[1]["video_iam.base"], **EXACT)
    torch.testing.assert_close(found["logit_scale"], 4 * whole[1]["logit_scale"], **EXACT)


@pytest.mark.parametrize("num_pieces", [1, 2, 4])
def test_dropout_is_the_same_in_both_passes(num_pieces):
    results, after = [], []
    for step in (without_cache, with_cache):
        model = tiny_model(attention_dropout=0.5).train()
        torch.manual_seed(3)
        results.append(step(model, pieces_of(num_pieces)))
        after.append(torch.rand(()))
    (loss, grads), (cached_loss, cached_grads) = results
    torch.testing.assert_close(cached_loss, loss, **EXACT)
    for name, expected in grads.items():
        torch.testing.assert_close(cached_grads[name], expected, **EXACT)
    # what comes after the step draws what it would have drawn
    assert after[0] == after[1]


def test_dropout_is_on_in_that_test():
    model = tiny_model(attention_dropout=0.5).train()
    assert not torch.equal(model(VIDEO, TEXTS).text_BD, model(VIDEO, TEXTS).text_BD)


def test_gradients_add_up_to_those_that_are_there(whole):
    model = tiny_model()
    with_cache(model, pieces_of(2))
    torch.testing.assert_close(with_cache(model, pieces_of(2))[1]["logit_scale"], 2 * whole[1]["logit_scale"], **EXACT)


def test_gradients_cross_ranks_with_the_last_piece_only():
    quiet, log = [False], []
    model = tiny_model()

    @contextmanager
    def no_sync():
        quiet[0] = True
        yield
        quiet[0] = False

    def encode(piece):
        if torch.is_grad_enabled():
            log.append(quiet[0])
        return encoder(model)(piece)

    backward_in_pieces(encode, pieces_of(4), loss_of, no_sync)
    assert log == [True, True, True, False]


def test_an_autocast_region_around_the_step_leaves_no_parameter_without_a_gradient(whole):
    model = tiny_model().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, grads = with_cache(model, pieces_of(2))
    assert grads.keys() == whole[1].keys()
    torch.testing.assert_close(loss.double(), whole[0], rtol=0.05, atol=0)
    for name in ("image_tower.encoder.embeddings.patch_embedding.weight", "text_iam.shared.cross.value.weight"):
        cosine = torch.cosine_similarity(grads[name].flatten().double(), whole[1][name].flatten(), dim=0)
        assert cosine > 0.9, name


def test_a_branch_without_gradient_is_left_alone():
    model = tiny_model()
    model.text_tower.requires_grad_(False)
    model.text_iam.requires_grad_(False)
    _, grads = without_cache(model, pieces_of(2))
    model.zero_grad()
    _, cached = with_cache(model, pieces_of(2))
    assert cached.keys() == grads.keys()
    torch.testing.assert_close(cached["video_iam.base"], grads["video_iam.base"], **EXACT)


def test_no_pieces_are_an_error():
    with pytest.raises(ValueError, match="at least one piece"):
        backward_in_pieces(encoder(tiny_model()), [], loss_of)
