"""A checkpoint made into a model of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from gex_pipeline.cli.main import main
from gex_pipeline.errors import GexError, RecipeError
from tests.trainer.tiny_recipes import checkpoint_of, largest_difference, log_of, tiny_recipe, train_here, weights_of
from trainer.export import TrainingOutput
from trainer.pretrained import Pretrained

FIGURE = "IT/t2v_median_rank"


@pytest.fixture(scope="module")
def training(numbered_output, tmp_path_factory) -> Path:
    """A training with an evaluation every three steps, moved to another place since."""
    changes = {
        "data": {"held_out_share": 0.5, "granularities": {"IT": {}}, "batch_size": 2},
        "evaluation": {"every_steps": 3},
        "checkpoints": {"keep": 1, "best": FIGURE},
    }
    folder = tmp_path_factory.mktemp("export")
    train_here(tiny_recipe(numbered_output, folder / "first", changes))
    return Path(shutil.move(folder / "first", folder / "moved"))


def best_step(training: Path) -> int:
    """As its log says: the earliest with the best rank."""
    lines = [line for line in log_of(training) if f"held_out/{FIGURE}" in line]
    return min(lines, key=lambda line: (line[f"held_out/{FIGURE}"], line["step"]))["step"] + 1


def test_the_best_checkpoint_becomes_a_model_that_says_when_and_how_good_it_was(training, tmp_path, capsys):
    best = best_step(training)
    assert main(["export", str(training), "-o", str(tmp_path / "best"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["step"], told["model"]) == (best, str(tmp_path / "best"))
    model = Pretrained.from_pretrained(tmp_path / "best")
    assert model.trained["num_steps"] == best
    rank = min(line[f"held_out/{FIGURE}"] for line in log_of(training) if f"held_out/{FIGURE}" in line)
    assert model.trained["figures"][FIGURE] == told["figures"][FIGURE] == rank
    tensors = {name: tensor.detach() for name, tensor in model.model.state_dict().items()}
    expected = checkpoint_of(training, best)
    assert largest_difference({name: tensors[name] for name in expected}, expected) == 0


def test_the_latest_checkpoint_is_the_model_of_the_end(training, tmp_path):
    output = TrainingOutput(str(training))
    end = output.export(output.step_of("latest"), str(tmp_path / "latest"))
    exported = Pretrained.from_pretrained(end.uri).model.state_dict()
    at_the_end = weights_of(training)
    assert largest_difference({name: exported[name] for name in at_the_end}, at_the_end) == 0


def card_of(folder: Path) -> str:
    return " ".join((folder / "README.md").read_text(encoding="utf-8").split())


def test_the_card_of_a_checkpoint_says_how_far_it_is_and_that_nothing_was_measured_then(numbered_output, tmp_path):
    """It said that half of the sources were held out, and then that nothing was; and all the epochs' numbers."""
    changes = {
        "data": {"held_out_share": 0.5, "granularities": {"IT": {}}, "batch_size": 2},
        "checkpoints": {"every_steps": 2, "keep": 9},
    }
    recipe = tiny_recipe(numbered_output, tmp_path / "t", changes)
    num_steps = train_here(recipe)[0].num_steps
    output = TrainingOutput(recipe.output)
    output.export(2, str(tmp_path / "early"))
    card = card_of(tmp_path / "early")
    assert f"2 of {num_steps} steps (2 epochs) of 2 samples; learning rates 0.001 (towers)" in card
    assert card.endswith("Not measured at this step.")
    assert "50% of the sources were held out" in card
    output.export(num_steps, str(tmp_path / "end"))
    assert f"{num_steps} steps of 2 samples, 2 epochs; learning rates" in card_of(tmp_path / "end")
    assert "Not measured" not in card_of(tmp_path / "end")


def test_of_a_training_with_averages_the_average_is_exported(numbered_output, tmp_path):
    changes = {"data": {"granularities": {"IT": {}}}, "optim": {"epochs": 1, "ema_decay": 0.75}}
    recipe = tiny_recipe(numbered_output, tmp_path / "training", changes)
    outcome, _ = train_here(recipe)
    end = TrainingOutput(recipe.output).export(outcome.num_steps, str(tmp_path / "model"))
    exported = Pretrained.from_pretrained(end.uri).model.state_dict()
    average, plain = weights_of(tmp_path / "training"), checkpoint_of(tmp_path / "training", outcome.num_steps)
    assert largest_difference({name: exported[name] for name in average}, average) == 0
    assert largest_difference(average, plain) > 1e-4


IMAGES = {"data": {"held_out_share": 0.0, "granularities": {"IT": {}}, "batch_size": 2}, "optim": {"epochs": 1}}


def test_a_training_that_started_from_a_model_can_be_exported_and_gone_on_from_by_another_recipe(
    numbered_output, tmp_path
):
    """Its recipe was written with all defaults of [model], and these contradicted the model that it started from."""
    first = tiny_recipe(numbered_output, tmp_path / "first", IMAGES, {"model": {"towers": {"frozen": True}}})
    train_here(first)
    later = {"model": None, "start_from": first.output}
    recipe = tiny_recipe(numbered_output, tmp_path / "later", IMAGES, later)
    train_here(recipe)
    with pytest.raises(RecipeError, match="put the recipe back to go on with it"):
        train_here(tiny_recipe(numbered_output, tmp_path / "later", IMAGES, later, {"data": {"batch_size": 3}}))
    assert main(["export", recipe.output, "--checkpoint", "latest", "-o", str(tmp_path / "M")]) == 0
    assert largest_difference(tensors_of(tmp_path / "M"), weights_of(Path(recipe.output))) == 0
    assert Pretrained.from_pretrained(tmp_path / "M").settings.towers.frozen
    onward = tiny_recipe(
        numbered_output,
        tmp_path / "onward",
        IMAGES,
        later,
        {"start_from": str(tmp_path / "M"), "data": {"batch_size": 3}},
    )
    assert train_here(onward)[0].first_step == 0


def tensors_of(folder: Path):
    return load_file(folder / "model.safetensors")


def test_without_a_folder_the_checkpoints_are_shown(training, capsys):
    assert main(["export", str(training)]) == 0
    shown = capsys.readouterr().out
    rows = [line.split() for line in shown.splitlines() if line.strip()[:1].isdigit()]
    assert [int(row[0]) for row in rows] == sorted(
        {best_step(training), TrainingOutput(str(training)).step_of("latest")}
    )
    assert [int(row[0]) for row in rows if row[-1] == "best"] == [best_step(training)]
    assert FIGURE in shown


@pytest.mark.parametrize(("which", "words"), [("7777", "no checkpoint '7777'; there are: "), ("-1", "no checkpoint")])
def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(training, which, words):
    with pytest.raises(GexError, match=words):
        TrainingOutput(str(training)).step_of(which)


def test_a_folder_that_holds_something_and_what_is_no_training_are_refused(training, tmp_path):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    output = TrainingOutput(str(training))
    with pytest.raises(GexError, match="holds something already"):
        output.export(output.step_of("latest"), str(tmp_path))
    with pytest.raises(GexError, match=r"is no output of a training: there is no recipe\.json in it"):
        TrainingOutput(str(tmp_path))


def test_best_without_a_figure_to_be_best_by_is_refused(numbered_output, tmp_path):
    recipe = tiny_recipe(
        numbered_output, tmp_path / "t", {"data": {"granularities": {"IT": {}}}, "optim": {"epochs": 1}}
    )
    train_here(recipe.model_copy(update={"data": recipe.data.model_copy(update={"held_out_share": 0.0})}))
    assert card_of(tmp_path / "t" / "model").endswith("Nothing was held out.")
    with pytest.raises(GexError, match=r"has no checkpoints\.best"):
        TrainingOutput(recipe.output).step_of("best")
