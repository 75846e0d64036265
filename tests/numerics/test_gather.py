"""One, two and four processes make the loss and the gradients of one, the temperature's included."""

from __future__ import annotations

import pytest
import torch

from tests.numerics.ranks import SEVERAL, SOURCES, cosine, part_of_batch, run_ranks
from tests.trainer.tiny_models import gradients, linear_model
from trainer.loss import same_source, vtc_loss

EXACT = {"rtol": 1e-10, "atol": 1e-13}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return run_ranks(tmp_path_factory.mktemp("ranks"))


def alone(sources=None):
    model = linear_model()
    video, texts, _ = part_of_batch(0, 1)
    same_BG = None if sources is None else same_source(sources)
    loss = vtc_loss(model(video, texts, n_iter_video=3, n_iter_text=1), same_BG)
    loss.backward()
    return {"loss": loss.detach(), **gradients(model)}


@pytest.fixture(scope="module")
def expected():
    return alone()


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, **EXACT, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
@pytest.mark.parametrize("way", ["ours", "ddp", "cached"])
def test_so_many_ranks_make_the_loss_and_gradients_of_one_process(found, expected, way, num_ranks):
    same(found[f"{way}-{num_ranks}"], expected)
    assert expected["logit_scale"].abs() > 1e-3


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_pairs_of_one_source_on_different_ranks_are_not_each_others_negatives(found, expected, num_ranks):
    masked, shared = alone(SOURCES[:, None]), alone(SEVERAL)
    same(found[f"masked-{num_ranks}"], masked)
    same(found[f"shared-{num_ranks}"], shared)
    assert shared["loss"] < masked["loss"] < expected["loss"]


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_a_gradient_with_any_strides_comes_back_through_the_gather(found, num_ranks):
    same(found[f"strided-{num_ranks}"], found["strided-1"])


@pytest.mark.parametrize("num_ranks", [2, 4])
@pytest.mark.parametrize("way", ["slice", "detached"])
def test_the_two_well_known_wrong_gathers_fail_the_same_comparison(found, expected, way, num_ranks):
    wrong = found[f"{way}-{num_ranks}"]
    torch.testing.assert_close(wrong["loss"], expected["loss"], **EXACT)  # which is why nobody sees it
    with pytest.raises(AssertionError):
        same(wrong, expected)


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_a_backward_that_slices_makes_gradients_too_small_but_for_the_temperature(found, expected, num_ranks):
    wrong = found[f"slice-{num_ranks}"]
    for name in expected.keys() - {"loss", "logit_scale"}:
        torch.testing.assert_close(wrong[name], expected[name] / num_ranks, **EXACT)
    torch.testing.assert_close(wrong["logit_scale"], expected["logit_scale"], **EXACT)


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_a_gather_without_gradient_turns_the_gradient(found, expected, num_ranks):
    assert cosine(found[f"ours-{num_ranks}"], expected) > 1 - 1e-12
    assert cosine(found[f"detached-{num_ranks}"], expected) < 0.9999
