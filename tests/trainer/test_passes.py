"""What a step and an evaluation ask of the model: passes as the granularity says, pieces as the recipe says.

Weights tell neither: a model learns with any number of passes, and pieces give the weights of the whole batch.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from tests.trainer.tiny_models import draw_batch, gradients, tiny_model
from tests.trainer.tiny_recipes import tiny_recipe
from trainer.build import build
from trainer.classifier import VideoClassifier
from trainer.held_out import evaluate_held_out
from trainer.loss import vtc_loss
from trainer.parallel import Parallel
from trainer.processes import Processes
from trainer.run_data import open_data
from trainer.steps import Prepared, task_of

ALONE = Processes(0, 1, torch.device("cpu"))
PASSES = {"LVLT": (3, 3), "LVST": (3, 1), "IT": (0, 1)}
EXACT = {"rtol": 1e-10, "atol": 1e-14}
SINGLE = {"rtol": 1e-4, "atol": 1e-7}  # cross-entropy is computed in 32 bits
NUM_FRAMES = 2
VIDEO, TEXTS = draw_batch(8, NUM_FRAMES)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 2, 0])


def batch_of(name):
    return Prepared(0, name, VIDEO, texts=TEXTS, labels_B=LABELS)


def task_over(module, piece_size):
    """The real task, over the three granularities with the numbers of passes that a recipe has of itself."""
    recipe = tiny_recipe("unused", "unused", {"parallel": {"piece_size": piece_size}})
    parallel = Parallel(module, recipe.parallel, ALONE, some_unused=True)
    return task_of(recipe, SimpleNamespace(module=module), parallel, ALONE)


def tiny_classifier():
    classifier = VideoClassifier(tiny_model(), ("a", "b", "c")).double()
    with torch.no_grad():  # a head begins with zeros, which would hide what is before it
        classifier.head.weight.copy_(torch.linspace(-1, 1, 48).sin().reshape(3, 16))
    return classifier


def check_step(found, loss, written_out, expected, tolerance):
    """That a step's loss and gradients are those of a call that is written out."""
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), **tolerance)
    grads, expected_grads = gradients(found), gradients(written_out)
    assert grads.keys() == expected_grads.keys()
    for name, grad in expected_grads.items():
        torch.testing.assert_close(grads[name], grad, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("piece_size", [None, 3])
@pytest.mark.parametrize("name", PASSES)
def test_a_step_takes_the_passes_of_its_granularity_in_each_branch(name, piece_size):
    model, written_out = tiny_model(), tiny_model()
    loss = task_over(model, piece_size).backward(batch_of(name))
    n_iter_video, n_iter_text = PASSES[name]
    expected = vtc_loss(written_out(VIDEO, TEXTS, n_iter_video=n_iter_video, n_iter_text=n_iter_text))
    check_step(model, loss, written_out, expected, EXACT)


def test_that_comparison_sees_any_other_number_of_passes():
    model = tiny_model()
    with torch.no_grad():
        pairs = itertools.product(range(4), repeat=2)
        losses = sorted(float(vtc_loss(model(VIDEO, TEXTS, n_iter_video=v, n_iter_text=t))) for v, t in pairs)
    assert min(after - before for before, after in itertools.pairwise(losses)) > 1e-6


@pytest.mark.parametrize("piece_size", [None, 3])
@pytest.mark.parametrize("name", PASSES)
def test_a_step_of_classification_takes_the_passes_of_its_granularitys_videos(name, piece_size):
    classifier, written_out = tiny_classifier(), tiny_classifier()
    loss = task_over(classifier, piece_size).backward(batch_of(name))
    expected = functional.cross_entropy(written_out(VIDEO, PASSES[name][0]).float(), LABELS)
    check_step(classifier, loss, written_out, expected, SINGLE)


def test_a_classifier_is_measured_with_the_passes_of_each_granularity(numbered_output, tmp_path):
    recipe = tiny_recipe(numbered_output, tmp_path, {"task": "classification", "data": {"held_out_share": 0.5}})
    seen = []
    with open_data(recipe.data, recipe.task) as data:
        built = build(recipe, data, ALONE)
        torch.nn.init.normal_(built.module.head.weight)
        with built.module.register_forward_hook(lambda _, given, logits: seen.append((given[0], logits))):
            evaluate_held_out(recipe, data, built, ALONE)
    for name, (frames, logits) in zip(recipe.data.granularities, seen, strict=True):
        with torch.no_grad():
            away = [float((logits - built.module(frames, n_iter)).abs().max()) for n_iter in range(4)]
        assert [distance < 1e-5 for distance in away] == [n_iter == PASSES[name][0] for n_iter in range(4)]


WHOLE = [(None, [8]), (8, [8]), (64, [8])]
PARTS = {"image_tower": NUM_FRAMES, "text_tower": 1, "video_iam": 1, "text_iam": 1}
"""What a batch goes through, and the rows that it has there of one sample."""


def samples_in(model):
    """How many samples each call of a tower or a module has, filled while the model runs."""
    seen = {name: [] for name in PARTS}
    for name, per_sample in PARTS.items():
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, given, name=name, per_sample=per_sample: seen[name].append(len(given[0]) / per_sample)
        )
    return seen


@pytest.mark.parametrize(("piece_size", "expected"), [*WHOLE, (3, [3, 3, 2, 3, 3, 2]), (1, [1] * 16)])
def test_no_call_has_more_samples_than_a_piece_and_a_batch_that_is_one_piece_is_encoded_once(piece_size, expected):
    """Pieces are for the memory alone: whoever encodes whole batches all the same gets the same weights."""
    model = tiny_model()
    seen = samples_in(model)
    task_over(model, piece_size).backward(batch_of("LVLT"))
    assert seen == dict.fromkeys(PARTS, expected)


@pytest.mark.parametrize(("piece_size", "expected"), [*WHOLE, (3, [3, 3, 2])])
def test_no_call_of_a_classification_has_more_samples_than_a_piece(piece_size, expected):
    classifier = tiny_classifier()
    seen = samples_in(classifier.model)
    task_over(classifier, piece_size).backward(batch_of("LVLT"))
    assert seen == {"image_tower": expected, "video_iam": expected, "text_tower": [], "text_iam": []}
