"""Whose an output is: a training goes on in its own, and another one is told how it can go on elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from gex_pipeline.errors import RecipeError
from tests.trainer.tiny_recipes import tiny_recipe, train_here
from trainer.data_settings import DataSettings
from trainer.export import TrainingOutput
from trainer.processes import Processes
from trainer.publish import check_output

ALONE = Processes(0, 1, torch.device("cpu"))

ONE_EPOCH = {"optim": {"epochs": 1}}


@pytest.fixture(scope="module")
def trained(numbered_output, tmp_path_factory):
    """The recipe of a training that is at its end. Not to be changed."""
    recipe = tiny_recipe(numbered_output, tmp_path_factory.mktemp("trained") / "training", ONE_EPOCH)
    train_here(recipe)
    return recipe


@pytest.fixture
def again(trained, tmp_path):
    """A copy of its output, and the recipe for it."""
    output = Path(shutil.copytree(trained.output, tmp_path / "training"))
    return trained.model_copy(update={"output": str(output)}), output


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optim": {"learning_rate": 0.002}}, "optim.learning_rate is 0.001 there and 0.002 here"),
        ({"data": {"granularities": {"IT": {}}}}, "data.granularities.LVLT is "),
        ({"data": {"batch_size": 2}}, "data.batch_size is 4 there and 2 here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
    ],
)
def test_an_output_of_another_recipe_is_refused_with_the_key_that_differs(again, numbered_output, change, words):
    _, output = again
    before = files_of(output)
    with pytest.raises(RecipeError, match=r"holds a training with another recipe") as caught:
        train_here(tiny_recipe(numbered_output, output, ONE_EPOCH, change))
    assert words in str(caught.value)
    assert str(caught.value).endswith(
        f"or put the recipe back to go on with it. To go on from its weights by another recipe: gex export {output} "
        '--checkpoint latest -o M, then start_from = "M", without [model], in a recipe with another output; '
        "Adam's moments and the schedule begin anew"
    )
    assert files_of(output) == before


def test_how_it_runs_and_what_it_tells_may_change_when_a_training_goes_on(again, numbered_output):
    _, output = again
    changes = {
        "name": "other",
        "launch": {"num_processes": 2},
        "record": {"every_steps": 3},
        "checkpoints": {"keep": 7},
        "parallel": {"piece_size": 2},
        "data": {"num_workers": 1, "max_damaged_share": 0.5},
        "evaluation": {"batch_size": 3},
    }
    outcome, _ = train_here(tiny_recipe(numbered_output, output, ONE_EPOCH, changes))
    assert outcome.first_step == outcome.num_steps


def test_a_training_on_coin_of_a_version_that_trimmed_it_goes_on_with_that_said_and_is_refused_without(again):
    recipe, output = again
    coin = {"kind": "coin", "file": "COIN.json", "media": "videos"}
    granularities = {name: one.model_dump() for name, one in list(recipe.data.granularities.items())[:1]}

    def on_coin(**keys):
        tables = {"annotations": {**coin, **keys}, "granularities": granularities}
        return recipe.model_copy(update={"data": DataSettings.model_validate(tables)})

    content = on_coin().model_dump(mode="json")
    del content["data"]["annotations"]["trim"]
    (output / "recipe.json").write_text(json.dumps(content))
    assert check_output(on_coin(trim=True), ALONE) == on_coin(trim=True)
    with pytest.raises(RecipeError, match=r"data\.annotations\.trim is True there and False here; take another output"):
        check_output(on_coin(), ALONE)
    assert TrainingOutput(str(output)).recipe.data.annotations.trim is True  # gex export names what was trained on


def test_a_training_goes_on_though_its_recipe_lacks_keys_that_came_since(again):
    """A key with a default was taken for a difference, and no training outlived an upgrade."""
    recipe, output = again
    content = json.loads((output / "recipe.json").read_text())
    del content["optim"]["final_share"], content["data"]["window_shards"], content["mask_same_source"]
    (output / "recipe.json").write_text(json.dumps(content))
    assert train_here(recipe)[1][-1] == "nothing left to do: all steps are done"
    content = json.loads((output / "recipe.json").read_text())
    (output / "recipe.json").write_text(json.dumps({**content, "forgotten": 1}))
    with pytest.raises(RecipeError, match="forgotten is 1 there and None here"):
        train_here(recipe)
