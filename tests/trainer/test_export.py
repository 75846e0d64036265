"""A checkpoint made into a model of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gex_pipeline.cli.main import main
from gex_pipeline.errors import GexError
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
    train_here(recipe)
    with pytest.raises(GexError, match=r"has no checkpoints\.best"):
        TrainingOutput(recipe.output).step_of("best")
