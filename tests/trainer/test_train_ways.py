"""What does not change what is learned: pieces of batches, forgotten activations, compiled layers, half precision."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers.models.clip.modeling_clip import CLIPMLP

from tests.trainer.outputs import jpeg_of
from tests.trainer.tiny_recipes import (
    GRANULARITIES,
    largest_difference,
    steps_of,
    tiny_recipe,
    train_here,
    weights_of,
)

ONE_EPOCH = {"optim": {"epochs": 1}, "data": {"held_out_share": 0.0}}
# Rounding of single steps in 32 bits is 1e-8 here and grows with every step; a wrong gradient is 1e-3 away, since Adam
# moves every weight by about the learning rate.
CLOSE = 2e-5


@pytest.fixture(scope="module")
def plain(numbered_output, tmp_path_factory):
    """Weights of a training with nothing special, of 12 steps."""
    output = tmp_path_factory.mktemp("plain") / "training"
    outcome, _ = train_here(tiny_recipe(numbered_output, output, ONE_EPOCH))
    assert outcome.num_steps == 12
    return weights_of(output)


@pytest.mark.parametrize(
    "parallel",
    [
        {"piece_size": 1},
        {"piece_size": 3},
        {"piece_size": 64},
        {"activation_checkpointing": True},
        {"piece_size": 2, "activation_checkpointing": True},
    ],
    ids=str,
)
def test_pieces_and_forgotten_activations_give_the_weights_of_whole_batches(plain, numbered_output, tmp_path, parallel):
    train_here(tiny_recipe(numbered_output, tmp_path / "training", ONE_EPOCH, {"parallel": parallel}))
    assert largest_difference(weights_of(tmp_path / "training"), plain) < CLOSE


@pytest.mark.parametrize("forgets", [False, True])
def test_forgotten_activations_are_computed_a_second_time(numbered_output, tmp_path, forgets):
    """Weights alone do not tell: they are the same where nothing is forgotten. Counted is within a layer, since a
    layer that is recomputed is entered once.
    """
    calls = Counter[CLIPMLP]()
    with register_module_forward_pre_hook(lambda part, _: calls.update([part] if isinstance(part, CLIPMLP) else [])):
        parallel = {"activation_checkpointing": forgets}
        outcome, _ = train_here(tiny_recipe(numbered_output, tmp_path / "training", ONE_EPOCH, {"parallel": parallel}))
    assert list(calls.values()) == [outcome.num_steps * (2 if forgets else 1)] * 2  # a layer in each tower


@pytest.mark.slow
def test_compiled_layers_give_the_same_weights_and_all_granularities_are_compiled(
    numbered_output, tmp_path, monkeypatch
):
    """Layers share their code, and torch gave up on it after eight shapes, without an error.

    Graphs are captured and guarded as always; code is not generated for them, which takes minutes of C++ for these.
    """
    granularities = {"LVLT": {"num_frames": 3}, "LVST": {"num_frames": 2}, "IT": {}}
    changes = {"data": {"granularities": granularities}, "optim": {"epochs": 1}, "parallel": {"piece_size": 3}}
    train_here(tiny_recipe(numbered_output, tmp_path / "plain", changes))
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 8)  # put back afterwards
    before = torch.compiler.get_default_backend()
    torch.compiler.set_default_backend("eager")
    num_graphs = {}
    try:
        for forgets in (False, True):  # a layer that forgets its activations is compiled like any other
            compiled = {"parallel": {"compile": True, "activation_checkpointing": forgets}}
            torch._dynamo.utils.counters.clear()
            train_here(tiny_recipe(numbered_output, tmp_path / f"training-{forgets}", changes, compiled))
            num_graphs[forgets] = torch._dynamo.utils.counters["stats"]["unique_graphs"]
            torch._dynamo.reset()
    finally:
        torch.compiler.set_default_backend(before)
        torch._dynamo.reset()
    assert num_graphs[True] == num_graphs[False] > 16
    for forgets in num_graphs:
        assert largest_difference(weights_of(tmp_path / f"training-{forgets}"), weights_of(tmp_path / "plain")) < CLOSE


def test_half_precision_trains_weights_in_full_precision(plain, numbered_output, tmp_path):
    train_here(tiny_recipe(numbered_output, tmp_path / "training", ONE_EPOCH, {"optim": {"precision": "bf16"}}))
    weights = weights_of(tmp_path / "training")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert 1e-5 < largest_difference(weights, plain) < 0.1
    assert all(line["num_skipped_steps"] == 0 for line in steps_of(tmp_path / "training"))


def test_frozen_towers_keep_their_weights_and_the_rest_learns(plain, numbered_output, tmp_path):
    train_here(tiny_recipe(numbered_output, tmp_path / "training", ONE_EPOCH, {"model": {"towers": {"frozen": True}}}))
    train_here(
        tiny_recipe(
            numbered_output,
            tmp_path / "start",
            ONE_EPOCH,
            {"optim": {"learning_rate": 0.0, "learning_rate_towers": 0.0, "weight_decay": 0.0}},
        )
    )
    start, end = weights_of(tmp_path / "start"), weights_of(tmp_path / "training")
    towers = {name for name in end if "tower" in name}
    assert towers
    assert largest_difference({n: end[n] for n in towers}, {n: start[n] for n in towers}) == 0
    assert largest_difference(plain, start) > 1e-3
    learned = {name for name in end if name not in towers and not torch.equal(end[name], start[name])}
    assert {name.split(".")[0] for name in learned} == {"video_iam", "text_iam", "temporal_position", "logit_scale"}


def test_data_workers_change_nothing(plain, numbered_output, tmp_path):
    train_here(tiny_recipe(numbered_output, tmp_path / "training", ONE_EPOCH, {"data": {"num_workers": 1}}))
    assert largest_difference(weights_of(tmp_path / "training"), plain) == 0


CLASSES = ("dark", "light")


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    """A classifier of pictures by class folders; each class has ten of them, dark and light ones."""
    folder = tmp_path_factory.mktemp("classes")
    for label, name in enumerate(CLASSES):
        (folder / "media" / name).mkdir(parents=True)
        for number in range(10):
            picture = jpeg_of((0x0FF if label else 0) | number << 8)  # eight of its twelve bars
            (folder / "media" / name / f"{number}.jpg").write_bytes(picture)
    data = {
        "dataset": None,
        "annotations": {"kind": "folders", "file": str(folder / "media")},
        "granularities": {"SHAPES": {"num_frames": 1, "n_iter_video": 1, "n_iter_text": 0}},
        "held_out_share": 0.3,
    }
    changes = {"task": "classification", "data": data, "optim": {"epochs": 10, "weight_decay": 0.0}}
    recipe = tiny_recipe("unused", folder / "training", changes)
    return recipe, *train_here(recipe)


def test_a_classifier_learns_the_names_of_class_folders_and_loads_with_its_head(classified):
    from trainer.pretrained import Pretrained
    from trainer.run_data import open_data
    from trainer.sequence import Reading, SequenceLoader

    recipe, outcome, said = classified
    assert outcome.figures["SHAPES/top1_percent"] == 100
    assert outcome.figures["SHAPES/num_samples"] >= 4
    assert any("top-1 100.0 %" in line for line in said)
    model = Pretrained.from_pretrained(outcome.model)
    assert model.classifier is not None
    assert model.classifier.class_names == CLASSES
    with open_data(recipe.data, recipe.task) as data:
        num_samples = 0
        for part in (data.training, data.held_out):
            with SequenceLoader(part, "SHAPES", Reading(1, 48, 32)) as loader:
                (batch,) = loader
            logits = model.classify(batch.frames_BT3HW, 1)
            assert logits.shape == (len(batch.texts), 2)
            assert [CLASSES[label] for label in logits.argmax(dim=1).tolist()] == batch.texts
            num_samples += len(batch.texts)
    assert num_samples == 20


def test_what_such_a_training_held_out_is_what_is_measured_of_its_folders_by_itself(classified, capsys):
    from gex_pipeline.cli.main import main

    recipe, outcome, _ = classified
    command = ["eval", outcome.model, recipe.data.annotations.file, "--annotations", "folders", "--json"]
    assert main([*command, "--granularity", "SHAPES", "--workers", "0"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["evaluations"]
    assert (found["data"]["part"], found["data"]["held_out"]) == ("held out", [{"share": 0.3, "seed": 0}])
    assert found["num_samples"] == outcome.figures["SHAPES/num_samples"] < 20
    assert found["figures"]["top1_percent"] == outcome.figures["SHAPES/top1_percent"]


def test_classifying_leaves_the_text_branch_and_the_temperature_as_they_are(classified, tmp_path):
    recipe, _, _ = classified
    still = recipe.model_copy(update={"output": str(tmp_path / "training")})
    still = still.model_copy(
        update={
            "optim": recipe.optim.model_copy(
                update={"epochs": 1, "learning_rate": 0.0, "learning_rate_towers": 0.0, "weight_decay": 0.0}
            )
        }
    )
    train_here(still)
    start, end = weights_of(tmp_path / "training"), weights_of(Path(recipe.output))
    changed = {name.removeprefix("model.").split(".")[0] for name in end if not torch.equal(end[name], start[name])}
    assert changed == {"image_tower", "temporal_position", "video_iam", "head"}
    assert not any("temperature" in line for line in steps_of(tmp_path / "training"))


def test_a_classification_in_pieces_gives_the_weights_of_whole_batches(classified, tmp_path):
    recipe, _, _ = classified
    optim = recipe.optim.model_copy(update={"epochs": 1})
    found = []
    for size in (None, 3):
        output = tmp_path / str(size)
        parallel = recipe.parallel.model_copy(update={"piece_size": size})
        train_here(recipe.model_copy(update={"output": str(output), "optim": optim, "parallel": parallel}))
        found.append(weights_of(output))
    assert largest_difference(*found) < CLOSE


def test_the_texts_of_a_published_output_can_be_classes_even_one_that_is_held_out_only(numbered_output, tmp_path):
    """Such a class was unknown to the head, and the evaluation at the end of the training raised."""
    changes = {"task": "classification", "data": {"granularities": {"IT": GRANULARITIES["IT"]}}, "optim": {"epochs": 1}}
    outcome, _ = train_here(tiny_recipe(numbered_output, tmp_path / "training", changes))
    names = json.loads((tmp_path / "training" / "model" / "config.json").read_text())["class_names"]
    assert names == sorted(f"a picture of {number}" for number in range(18))
    assert outcome.figures["IT/num_samples"] >= 3
