"""One training in this process, from an output to a model, and what it does when it is started again."""

from __future__ import annotations

import json
import math
import shutil
import tarfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gex_pipeline.errors import GexError, RecipeError
from gex_pipeline.shards.manifest import read_manifest
from tests.trainer.outputs import add_snapshot, grouped, make_numbered_output
from tests.trainer.tiny_recipes import (
    checkpoint_of,
    largest_difference,
    log_of,
    steps_of,
    tiny_recipe,
    train_here,
    weights_of,
)
from trainer import record
from trainer import train as train_module
from trainer.build import build
from trainer.catalog import read_catalog
from trainer.checkpoint_files import read_index
from trainer.figures import StepLog
from trainer.pretrained import Pretrained
from trainer.processes import Processes
from trainer.run_data import open_data
from trainer.train import TrainingRun

ALONE = Processes(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def trained(numbered_output, tmp_path_factory):
    """A training to its end: recipe, outcome, what was said. Not to be changed."""
    recipe = tiny_recipe(numbered_output, tmp_path_factory.mktemp("trained") / "training")
    return recipe, *train_here(recipe)


@pytest.fixture
def again(trained, tmp_path):
    """A copy of its output, and the recipe for it."""
    recipe, _, _ = trained
    output = Path(shutil.copytree(recipe.output, tmp_path / "training"))
    return recipe.model_copy(update={"output": str(output)}), output


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_step_leaves_its_figures(trained):
    recipe, outcome, _ = trained
    steps = steps_of(Path(recipe.output))
    with open_data(recipe.data) as data:
        places = [data.order.place_of(step) for step in range(outcome.num_steps)]
    assert [line["step"] for line in steps] == list(range(outcome.num_steps))
    assert [line["epoch"] for line in steps] == [place.epoch for place in places]
    for line, place in zip(steps, places, strict=True):
        name = place.granularity
        assert line.keys() == {
            "step",
            "epoch",
            f"loss/{name}",
            "grad_norm",
            "learning_rate/towers",
            "learning_rate/rest",
            "temperature",
            "samples_per_s",
            "frames_per_s",
            "data_wait_share",
            "num_damaged",
            "num_skipped_steps",
            f"truncated_share/{name}",
            f"without_negatives_share/{name}",
            "peak_host_bytes",
        }
        assert line["frames_per_s"] == pytest.approx(line["samples_per_s"] * {"LVLT": 2, "LVST": 1, "IT": 1}[name])
        # "half 0 of 3. half 1 of 3." does not fit into eleven tokens
        assert line[f"truncated_share/{name}"] == (1.0 if name == "LVLT" else 0.0)
        assert line[f"without_negatives_share/{name}"] == 0
        assert 0 < line["data_wait_share"] < 1
        assert line["grad_norm"] > 0
        assert line["temperature"] == pytest.approx(0.07, rel=0.05)
        share = (1 + math.cos(math.pi * line["step"] / outcome.num_steps)) / 2
        assert line["learning_rate/rest"] == pytest.approx(1e-3 * share)
        assert line["num_damaged"] == line["num_skipped_steps"] == 0


def test_the_figures_of_held_out_samples_close_the_log_and_are_in_the_checkpoint_and_in_the_outcome(trained):
    recipe, outcome, said = trained
    output = Path(recipe.output)
    (line,) = [line for line in log_of(output) if "samples_per_s" not in line]
    assert line == {"step": outcome.num_steps - 1, **{f"held_out/{name}": v for name, v in outcome.figures.items()}}
    index = read_index(str(output / "checkpoints" / f"step-{outcome.num_steps:09d}"))
    assert index["progress"]["metrics"] == outcome.figures
    assert outcome.figures["IT/num_samples"] >= 3
    assert any("IT held out" in line and "R@1" in line for line in said)
    assert any(f"step {outcome.num_steps}/{outcome.num_steps}" in line for line in said)


def test_the_same_recipe_gives_the_same_weights_and_a_line_of_some_steps_their_means(
    trained, numbered_output, tmp_path
):
    recipe, outcome, _ = trained
    train_here(tiny_recipe(numbered_output, tmp_path / "other", {"record": {"every_steps": 5}}))
    assert largest_difference(weights_of(tmp_path / "other"), weights_of(Path(recipe.output))) == 0
    single, several = steps_of(Path(recipe.output)), steps_of(tmp_path / "other")
    assert [line["step"] for line in several] == [*range(4, outcome.num_steps, 5), outcome.num_steps - 1]
    first = 0
    for line in several:
        part = single[first : line["step"] + 1]
        names = {key for one in part for key in one if key.startswith("loss/")}
        assert {key for key in line if key.startswith("loss/")} == names
        for name in names:
            losses = [one[name] for one in part if name in one]
            assert line[name] == pytest.approx(sum(losses) / len(losses))
        first = line["step"] + 1


def test_started_again_after_its_end_it_changes_nothing_and_says_so(trained):
    recipe, _, _ = trained
    output = Path(recipe.output)
    before = files_of(output)
    outcome, said = train_here(recipe)
    assert said[-1] == "nothing left to do: all steps are done"
    assert outcome.first_step == outcome.num_steps
    assert outcome.model == f"{output}/model"
    assert files_of(output) == before


def test_a_model_that_was_not_exported_any_more_is_exported_from_the_last_checkpoint(again):
    recipe, output = again
    expected, lines = files_of(output / "model"), log_of(output)
    shutil.rmtree(output / "model")
    outcome, said = train_here(recipe)
    assert f"going on from step {outcome.num_steps} of {outcome.num_steps}" in said
    assert files_of(output / "model") == expected
    assert log_of(output) == lines


def test_going_on_from_a_checkpoint_in_the_middle_gives_the_same_weights_and_the_same_log(
    trained, numbered_output, tmp_path
):
    recipe, outcome, _ = trained
    output = tmp_path / "training"
    often = tiny_recipe(numbered_output, output, {"checkpoints": {"every_steps": 5, "keep": 10}})
    train_here(often)
    assert sorted(path.name for path in (output / "checkpoints").iterdir()) == [
        f"step-{step:09d}" for step in [*range(5, outcome.num_steps, 5), outcome.num_steps]
    ]
    shutil.rmtree(output / "model")
    for step in [*range(10, outcome.num_steps, 5), outcome.num_steps]:
        shutil.rmtree(output / "checkpoints" / f"step-{step:09d}")
    later, said = train_here(often)
    assert (later.first_step, later.num_steps) == (5, outcome.num_steps)
    assert f"going on from step 5 of {outcome.num_steps}" in said
    assert largest_difference(weights_of(output), weights_of(Path(recipe.output))) == 0
    losses = [
        [{k: v for k, v in line.items() if "loss" in k} for line in steps_of(Path(o))] for o in (output, recipe.output)
    ]
    assert losses[0] == losses[1]


def test_a_data_set_that_grows_while_a_training_rests_changes_nothing_of_it(tmp_path):
    """The order follows from the sizes: with new samples, a training that went on lost some and doubled others."""
    dataset, scratch = make_numbered_output(tmp_path / "data", 8), tmp_path / "data" / "scratch"
    changes = {"data": {"held_out_share": 0, "granularities": {"IT": {}}}, "checkpoints": {"every_steps": 1}}
    recipe = tiny_recipe(dataset, tmp_path / "training", changes)
    train_here(recipe)
    quiet, output = weights_of(tmp_path / "training"), tmp_path / "training"
    shutil.rmtree(output / "model")
    for step in (3, 4):
        shutil.rmtree(output / "checkpoints" / f"step-{step:09d}")
    add_snapshot(dataset, range(8, 12), scratch)
    outcome, said = train_here(recipe)
    assert (outcome.first_step, outcome.num_steps) == (2, 4)
    assert largest_difference(weights_of(output), quiet) == 0
    assert any("snapshot 0" in line for line in said)
    assert json.loads((output / "model" / "config.json").read_text())["trained"]["snapshot"] == 0
    with pytest.raises(RecipeError, match=r"data.snapshot is 0 there and 1 here"):
        train_here(tiny_recipe(dataset, output, changes, {"data": {"snapshot": 1}}))


def test_a_training_whose_data_were_retired_while_it_rested_does_not_go_on_over_what_is_left(tmp_path):
    """It went on in silence, with fewer steps an epoch and other samples in each."""
    output = make_numbered_output(tmp_path)
    add_snapshot(output, range(18, 36), tmp_path / "scratch")
    recipe = tiny_recipe(output, tmp_path / "training")
    train_here(recipe)
    manifest = read_manifest(str(output))
    first = manifest.snapshots[0]
    emptied = {name: replace(entry, shards=(), last_shard=0) for name, entry in first.granularities.items()}
    first = replace(first, granularities=emptied, retired="2026-05-04T03:02:01+00:00")
    (output / "dataset.json").write_bytes(replace(manifest, snapshots=(first, manifest.snapshots[1])).to_json())
    with pytest.raises(GexError, match=r"began with 108 samples, and its data are 54 now: a snapshot was retired"):
        train_here(recipe)


def test_a_tiny_model_learns_its_pairs_by_heart(tmp_path):
    dataset = make_numbered_output(tmp_path / "data", 8)
    changes = {
        "data": {"batch_size": 8, "held_out_share": 0, "granularities": {"IT": {"n_iter_video": 1}}},
        "optim": {"epochs": 60},
    }
    outcome, _ = train_here(tiny_recipe(dataset, tmp_path / "training", changes))
    assert outcome.figures == {}
    losses = [line["loss/IT"] for line in steps_of(tmp_path / "training")]
    assert losses[0] > math.log(8) / 2
    assert max(losses[-5:]) < 0.1
    model = Pretrained.from_pretrained(tmp_path / "training")
    recipe = tiny_recipe(dataset, tmp_path / "training", changes)
    with open_data(recipe.data) as data:
        from trainer.sequence import Reading, SequenceLoader

        with SequenceLoader(data.training, "IT", Reading(1, recipe.data.image_size_px, 8)) as loader:
            batch = next(loader)
    similarities = model.encode_texts(batch.texts, 1) @ model.encode_videos(batch.frames_BT3HW, 1).T
    assert similarities.argmax(dim=1).tolist() == list(range(8))  # chance is one of eight


def test_the_exported_average_is_the_one_made_by_hand_from_the_weights_of_every_step(numbered_output, tmp_path):
    changes = {
        "data": {"granularities": {"LVST": {"num_frames": 1}, "IT": {}}},
        "optim": {"epochs": 1, "ema_decay": 0.75},
        "checkpoints": {"every_steps": 1, "keep": 100},
    }
    recipe = tiny_recipe(numbered_output, tmp_path / "training", changes)
    with open_data(recipe.data) as data:
        average = {name: tensor.clone() for name, tensor in build(recipe, data, ALONE).module.state_dict().items()}
    outcome, _ = train_here(recipe)
    assert outcome.num_steps >= 4
    for step in range(1, outcome.num_steps + 1):
        stays = min(0.75, step / (9 + step))
        for name, weight in checkpoint_of(tmp_path / "training", step).items():
            average[name] = stays * average[name] + (1 - stays) * weight
    exported = weights_of(tmp_path / "training")
    # a multiple of the rounding; an average that missed a step, or one more, is 1e-5 away
    assert largest_difference(exported, average) < 1e-6
    assert largest_difference(exported, checkpoint_of(tmp_path / "training", outcome.num_steps)) > 5e-5


GROUPED = {"granularities": {"GRP": {"num_frames": 1, "n_iter_video": 1, "n_iter_text": 1}}, "held_out_share": 0}


def test_samples_of_one_group_are_negatives_unless_they_share_a_source_video(tmp_path):
    """All samples of one channel were masked against each other: a loss of 0.000, and "done"."""
    output = grouped(tmp_path, *(("one channel", [f"v{number}", f"w{number}"]) for number in range(8)))
    train_here(tiny_recipe(output, tmp_path / "training", {"data": GROUPED, "optim": {"epochs": 1}}))
    for line in steps_of(tmp_path / "training"):
        assert line["loss/GRP"] > 0.5 and line["grad_norm"] > 0 and line["without_negatives_share/GRP"] == 0


def test_random_groups_that_share_a_source_video_are_not_each_others_negatives_and_that_is_told_once(tmp_path):
    """source_id of such a group is its own key: no two were ever of one source."""
    output = grouped(tmp_path, *((f"key {number}", ["shared", f"v{number}"]) for number in range(8)))
    changes = {"data": GROUPED, "optim": {"epochs": 1}}
    _, said = train_here(tiny_recipe(output, tmp_path / "training", changes))
    lines = steps_of(tmp_path / "training")
    assert [(line["loss/GRP"], line["without_negatives_share/GRP"]) for line in lines] == [(0, 1)] * 2
    assert sum("GRP 100% without negatives" in line for line in said) == 2
    [warning] = [line for line in said if line.startswith("warning: ")]
    assert "GRP: no sample had a negative in its batch" in warning and warning.endswith("or leave out GRP")
    _, said = train_here(tiny_recipe(output, tmp_path / "other", changes, {"mask_same_source": False}))
    assert all(line["loss/GRP"] > 0.5 for line in steps_of(tmp_path / "other"))
    assert not any("without negatives" in line or line.startswith("warning") for line in said)


def test_too_few_samples_to_train_on_are_told_with_where_the_others_are(tmp_path):
    with read_catalog(str(make_numbered_output(tmp_path / "which", 18))) as catalog:
        split = catalog.split(0.5)
        inside, outside = (
            sorted({part.sample("IT", number).source_id for number in range(part.num_samples("IT"))})
            for part in (split.training, split.held_out)
        )
    groups = [[inside[0]], [inside[1]], [inside[2]], [outside[0]], [inside[0], outside[0]]]
    output = grouped(tmp_path, *(("channel", names) for names in groups))
    recipe = tiny_recipe(output, tmp_path / "training", {"data": {**GROUPED, "held_out_share": 0.5}})
    expected = r"GRP has 3 samples to train on \(of 5; 1 held out, 1 in neither part\), fewer than one batch of 4"
    with pytest.raises(GexError, match=expected), open_data(recipe.data):
        pass


def test_a_skipped_step_moves_nothing_and_the_temperature_stays_in_its_bound(numbered_output, tmp_path):
    """The second of three steps is not finite; before the third the temperature is set far over its bound."""
    changes = {"data": {"granularities": {"IT": {}}}, "optim": {"epochs": 1, "ema_decay": 0.75}}
    recipe = tiny_recipe(numbered_output, tmp_path / "training", changes)
    with open_data(recipe.data) as data:
        run = TrainingRun(recipe, data, build(recipe, data, ALONE), ALONE)
        log, task, model = StepLog(recipe, run.built, ALONE), run.task, run.built.model

        def state() -> dict[str, torch.Tensor]:
            kept = {f"average of {name}": tensor for name, tensor in run.ema.state_dict().items()}
            return {name: tensor.clone() for name, tensor in (run.built.module.state_dict() | kept).items()}

        with run.loader(range(3)) as loader:
            upcoming, states = run.next(loader, log), [state()]
            for step, factor in enumerate((1.0, math.nan, 1.0)):
                run.task = SimpleNamespace(
                    prepare=task.prepare, backward=lambda batch, factor=factor: task.backward(batch) * factor
                )
                if step == 2:
                    torch.nn.init.constant_(model.logit_scale, 99.0)
                upcoming = run.step(step, upcoming, loader, log)
                states.append(state())
        assert [largest_difference(*pair) > 0 for pair in pairwise(states)] == [True, False, True]
        assert model.logit_scale.item() == pytest.approx(model.max_log_scale)
        figures = log.figures(0)
        assert figures["num_skipped_steps"] == 1
        assert math.isfinite(figures["loss/IT"])  # the mean of the two others
        run.save(3, {})
        resumed = TrainingRun(recipe, data, build(recipe, data, ALONE), ALONE)
        assert resumed.resume() == 3
        assert resumed.optimiser.counters() == {"num_skipped": 1, "num_skipped_in_row": 0}


def test_an_evaluation_on_the_way_is_written_chooses_the_best_checkpoint_and_changes_no_weight(
    trained, numbered_output, tmp_path
):
    recipe, outcome, _ = trained
    changes = {
        "evaluation": {"every_steps": 6},
        "checkpoints": {"keep": 1, "best": "IT/t2v_median_rank", "every_steps": 1000},
    }
    train_here(tiny_recipe(numbered_output, tmp_path / "training", changes))
    evaluated = [line for line in log_of(tmp_path / "training") if "held_out/IT/num_samples" in line]
    assert [line["step"] for line in evaluated] == [*range(5, outcome.num_steps - 1, 6), outcome.num_steps - 1]
    assert largest_difference(weights_of(tmp_path / "training"), weights_of(Path(recipe.output))) == 0
    ranks = [line["held_out/IT/t2v_median_rank"] for line in evaluated]
    best = evaluated[ranks.index(min(ranks))]["step"] + 1
    kept = sorted(path.name for path in (tmp_path / "training" / "checkpoints").iterdir())
    assert kept == sorted({f"step-{best:09d}", f"step-{outcome.num_steps:09d}"})


def test_waiting_for_the_others_to_say_whether_to_stop_counts_as_training_evaluation_and_saving_do_not(
    numbered_output, tmp_path, monkeypatch
):
    """The question was left out with what follows it: of a training held up by its slowest process nothing was seen."""
    clock = SimpleNamespace(now_s=0.0)
    asked = train_module.told_to_stop

    def slowly(seconds, function):
        def call(*arguments):
            clock.now_s += seconds
            return function(*arguments)

        return call

    monkeypatch.setattr(record, "time", SimpleNamespace(perf_counter=lambda: clock.now_s))
    monkeypatch.setattr(train_module, "told_to_stop", slowly(5.0, asked))
    monkeypatch.setattr(TrainingRun, "evaluate", slowly(1000.0, TrainingRun.evaluate))
    monkeypatch.setattr(TrainingRun, "save", slowly(1000.0, TrainingRun.save))
    changes = {
        "data": {"granularities": {"IT": {}}},
        "evaluation": {"every_steps": 1},
        "checkpoints": {"every_steps": 1},
    }
    train_here(tiny_recipe(numbered_output, tmp_path / "training", changes))
    rates = [line["samples_per_s"] for line in steps_of(tmp_path / "training")[1:]]
    assert rates == [4 / 5.0] * 5


def test_a_frame_size_that_the_image_tower_does_not_read_is_refused(trained, numbered_output, tmp_path):
    recipe, _, _ = trained
    changes = {"model": None, "start_from": recipe.output, "data": {"image_size_px": 32}}
    with pytest.raises(RecipeError, match=r"data.image_size_px is 32, the image tower reads 48"):
        train_here(tiny_recipe(numbered_output, tmp_path / "other", changes))


def test_several_frames_of_images_are_refused_before_the_first_step(numbered_output, tmp_path):
    """It was found at the first batch of images, which with a small weight comes late."""
    changes = {"data": {"granularities": {"LVLT": {"num_frames": 2}, "IT": {"num_frames": 2, "weight": 0.5}}}}
    with pytest.raises(GexError, match=r"^IT holds images, of which 2 frames are asked; set num_frames to 1$"):
        train_here(tiny_recipe(numbered_output, tmp_path / "training", changes))
    assert steps_of(tmp_path / "training") == []


def spoil_first_image(tar: Path) -> None:
    content = bytearray(tar.read_bytes())
    start = content.find(b"\xff\xd8\xff")
    content[start : start + 4000] = bytes(4000)
    tar.write_bytes(content)


def test_a_damaged_sample_is_counted_and_named_in_the_figures_and_on_the_console(tmp_path):
    """It was counted, and nobody learned which one it was."""
    dataset = make_numbered_output(tmp_path / "data", 6)
    tar = sorted((dataset / "IT").glob("*.tar"))[0]
    with tarfile.open(tar) as members:
        key = next(name for name in members.getnames() if name.endswith(".jpg")).removesuffix(".jpg")
    spoil_first_image(tar)
    changes = {"data": {"granularities": {"IT": {}}, "held_out_share": 0, "batch_size": 2, "max_damaged_share": 0.5}}
    outcome, said = train_here(tiny_recipe(dataset, tmp_path / "training", changes, {"record": {"every_steps": 2}}))
    assert outcome.num_steps == 6
    lines = steps_of(tmp_path / "training")
    found = [one for line in lines for one in line.get("damaged", [])]
    assert [line["num_damaged"] for line in lines] == [len(line.get("damaged", [])) for line in lines]
    assert len(found) == 2  # one an epoch
    assert {(one["granularity"], one["key"]) for one in found} == {("IT", key)}
    assert found[0]["reason"].startswith("an image cannot be decoded: ")
    assert len([line for line in said if f"  1 damaged, first {key}: an image cannot be decoded: " in line]) == 2


def test_too_many_damaged_samples_end_a_training_with_one_sentence(tmp_path):
    dataset = make_numbered_output(tmp_path / "data", 4)
    for tar in (dataset / "IT").glob("*.tar"):
        spoil_first_image(tar)
    changes = {"data": {"granularities": {"IT": {}}, "held_out_share": 0, "batch_size": 2, "max_damaged_share": 0.1}}
    with pytest.raises(GexError, match=r"cannot be read, more than max_damaged_share = 0.1 allows"):
        train_here(tiny_recipe(dataset, tmp_path / "training", changes))
