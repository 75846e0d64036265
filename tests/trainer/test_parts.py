"""A training that starts from some parts of a trained model: these are taken as they are, the others begin anew."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gex_pipeline.cli.main import main
from gex_pipeline.errors import RecipeError
from tests.trainer.tiny_recipes import TINY_MODEL, largest_difference, tiny_recipe, train_here, weights_of
from trainer.build import Built, build
from trainer.checkpoint import named_tensors
from trainer.pretrained import Pretrained
from trainer.processes import Processes
from trainer.run_data import open_data
from trainer.settings import PARTS, TOWERS
from trainer.train_recipe import TrainRecipe

ALONE = Processes(0, 1, torch.device("cpu"))
SHORT = {"optim": {"epochs": 1}, "data": {"granularities": {"IT": {}}, "held_out_share": 0.0}}
ANOTHER_IAM = {"num_embeddings": 6, "dim": 24, "num_heads": 3, "num_temporal_positions": 2}


@pytest.fixture(scope="module")
def start(numbered_output, tmp_path_factory) -> TrainRecipe:
    """The recipe of a training that is at its end. Not to be changed."""
    recipe = tiny_recipe(numbered_output, tmp_path_factory.mktemp("start") / "training", SHORT)
    train_here(recipe)
    return recipe


@pytest.fixture(scope="module")
def classifier(start, numbered_output, tmp_path_factory) -> TrainRecipe:
    """The same of one that learned to classify the texts of IT."""
    output = tmp_path_factory.mktemp("classifier") / "training"
    recipe = tiny_recipe(numbered_output, output, SHORT, {"task": "classification"})
    train_here(recipe)
    return recipe


@pytest.fixture
def later(start, numbered_output, tmp_path):
    """Makes the recipe of a training that takes parts of the start."""

    def make(parts, model=None, **changes) -> TrainRecipe:
        tables = {"start_from": start.output, "start_from_parts": list(parts), **changes}
        return tiny_recipe(numbered_output, tmp_path / "later", SHORT, {"model": None}, {"model": model or {}}, tables)

    return make


def built_by(recipe: TrainRecipe) -> Built:
    with open_data(recipe.data, recipe.task) as data:
        return build(recipe, data, ALONE)


def tensors_of(built: Built) -> dict[str, torch.Tensor]:
    return dict(named_tensors(built.model))


def of_parts(tensors, parts):
    return {name: tensor for name, tensor in tensors.items() if name.partition(".")[0] in parts}


def test_trained_towers_start_a_model_with_another_module_and_all_else_is_new(start, later):
    """The towers of a trained model could not be had without its module, whatever N and D were wanted."""
    recipe = later(TOWERS, {"iam": ANOTHER_IAM, "initial_temperature": 0.1})
    built, trained = built_by(recipe), weights_of(Path(start.output))
    own = tensors_of(built)
    towers = of_parts(trained, TOWERS)
    assert towers and of_parts(own, TOWERS).keys() == towers.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in towers.items())
    assert own["video_iam.base"].shape == own["text_iam.base"].shape == (6, 24)
    assert torch.equal(own["temporal_position.position"], torch.zeros(2, 16))
    assert built.model.logit_scale.exp().item() == pytest.approx(10)
    assert float(own["video_iam.base"].std()) > 0
    assert (built.settings.towers, built.settings.iam.dim) == (start.model.towers, 24)
    text = ["half 0 of 3. a circle"]
    ids_BWL = Pretrained.from_pretrained(start.output).tokenizer(text).ids_BWL
    assert torch.equal(built.tokenizer(text).ids_BWL, ids_BWL)
    assert built.module.training and all(p.requires_grad for p in built.module.parameters())
    assert built.told == (f"of {start.output} only image_tower, text_tower are taken",)


def test_a_module_that_begins_anew_knows_no_granularity_of_the_start(start, later):
    assert built_by(later(TOWERS, {"iam": ANOTHER_IAM})).granularities == {}
    assert set(built_by(later(PARTS[:-1])).granularities) == {"IT"}


def test_what_comes_of_it_loads_and_goes_on_and_is_exported_and_says_what_was_taken(start, later, tmp_path):
    recipe = later(TOWERS, {"iam": ANOTHER_IAM, "towers": {"frozen": True}})
    outcome, said = train_here(recipe)
    sentence = f"of {start.output} only image_tower, text_tower are taken"
    assert said.count(sentence) == 1
    found = Pretrained.from_pretrained(outcome.model)
    assert found.settings.iam.num_embeddings == 6 and found.settings.towers.frozen
    assert found.encode_texts(["half 0 of 3."], 1).shape == (1, 24)
    assert found.trained["start_from_parts"] == list(TOWERS)
    assert [one["start_from_parts"] for one in found.trained["earlier"]] == [None]
    assert not (tmp_path / "later" / "clip").exists()
    towers = of_parts(weights_of(Path(start.output)), TOWERS)
    assert largest_difference(of_parts(weights_of(tmp_path / "later"), TOWERS), towers) == 0
    assert f"Towers: those of {start.output}, frozen." in (Path(outcome.model) / "README.md").read_text()
    again, said = train_here(later(reversed(TOWERS), {"iam": ANOTHER_IAM, "towers": {"frozen": True}}))
    assert (again.first_step, said[-1]) == (outcome.num_steps, "nothing left to do: all steps are done")
    assert sentence not in said
    assert main(["export", recipe.output, "--checkpoint", "latest", "-o", str(tmp_path / "M")]) == 0
    exported = load_file(tmp_path / "M" / "model.safetensors")
    assert largest_difference(exported, weights_of(tmp_path / "later")) == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"start_from_parts": list(TOWERS[:1])}, "start_from_parts is .*'text_tower'.* there and "),
        ({"model": {"iam": {**ANOTHER_IAM, "num_embeddings": 7}}}, "model.iam.num_embeddings is 6 there and 7 here"),
        (
            {"model": {"iam": ANOTHER_IAM, "towers": {"frozen": False}}},
            r"model.towers is None there and \{'frozen'",
        ),
    ],
    ids=["parts", "module", "towers"],
)
def test_another_choice_of_parts_or_another_module_is_another_training(later, changes, words):
    recipe = later(TOWERS, {"iam": ANOTHER_IAM})
    train_here(recipe)
    tables = recipe.model_dump(mode="json", exclude_unset=True)
    with pytest.raises(RecipeError, match=words):
        train_here(TrainRecipe.model_validate({**tables, **changes}))


@pytest.mark.parametrize("shared_base", [False, True])
def test_a_module_is_taken_into_a_model_with_other_towers_of_its_width(numbered_output, tmp_path, shared_base):
    model = {**TINY_MODEL, "shared_base": shared_base}
    first = tiny_recipe(numbered_output, tmp_path / "first", SHORT, {"model": model})
    train_here(first)
    parts = ["text_iam", "logit_scale"]
    deeper = {"towers": {"shape": {**TINY_MODEL["towers"]["shape"], "num_layers": 2}}}
    changes = {"start_from": first.output, "start_from_parts": parts, "model": deeper}
    recipe = tiny_recipe(numbered_output, tmp_path / "later", SHORT, {"model": None}, changes)
    built, trained = built_by(recipe), weights_of(tmp_path / "first")
    own = built.model.state_dict()
    expected = Pretrained.from_pretrained(first.output).model.state_dict()
    assert all(torch.equal(own[name], expected[name]) for name in of_parts(expected, parts))
    assert built.settings.iam.dim == 16 and built.settings.shared_base == shared_base
    assert "image_tower.encoder.encoder.layers.1.mlp.fc1.weight" in own
    assert torch.equal(own["video_iam.base"], expected["video_iam.base"]) == shared_base
    name = "video_iam.shared.cross.key.weight"
    assert not torch.equal(own[name], trained[name])


def test_beside_one_tower_the_other_one_begins_as_the_clip_of_the_start_did(start, later):
    recipe = later(["text_tower"])
    built, trained = built_by(recipe), weights_of(Path(start.output))
    own = tensors_of(built)
    assert largest_difference(of_parts(own, ["text_tower"]), of_parts(trained, ["text_tower"])) == 0
    assert largest_difference(of_parts(own, ["image_tower"]), of_parts(trained, ["image_tower"])) > 1e-3
    assert built.settings.towers == start.model.towers
    card = (Path(train_here(recipe)[0].model) / "README.md").read_text()
    assert f"Towers: the text tower of {start.output} and the other one from scratch; both trained on." in card


def test_a_module_beside_trained_towers_can_start_at_the_projections_of_the_clip_they_were_of(
    tiny_clip_folder, numbered_output, tmp_path, later
):
    first = tiny_recipe(
        numbered_output,
        tmp_path / "first",
        SHORT,
        {"model": None},
        {"model": {"towers": {"clip": str(tiny_clip_folder)}, "iam": ANOTHER_IAM}, "data": {"image_size_px": 32}},
    )
    train_here(first)
    recipe = later(
        TOWERS, {"iam": {"value_init": "clip_projection", "dim": 16, "num_heads": 2}}, start_from=first.output
    )
    recipe = recipe.model_copy(update={"data": first.data})
    built = built_by(recipe)
    from transformers import CLIPModel

    clip = CLIPModel.from_pretrained(tiny_clip_folder)
    assert torch.equal(built.model.video_iam.unrolled.cross.value.weight, clip.visual_projection.weight)
    assert torch.equal(
        tensors_of(built)["image_tower.encoder.post_layernorm.weight"],
        weights_of(tmp_path / "first")["image_tower.encoder.post_layernorm.weight"],
    )


@pytest.mark.parametrize(
    ("parts", "model", "words"),
    [
        (
            TOWERS,
            {"towers": {"projected": True}},
            r"image_tower brings its settings along, and towers.projected is False",
        ),
        (TOWERS, {"towers": {"shape": {"width": 8, "num_heads": 2}}}, "towers.shape is a table there and a table here"),
        (["text_iam"], {"iam": {"dim": 24}}, "text_iam brings its settings along, and iam.dim is 16 there and 24 here"),
        (["logit_scale"], {"initial_temperature": 0.1}, "initial_temperature is 0.07 there and 0.1 here; leave it out"),
        (["temporal_position"], {"iam": {"temporal_position": "none"}}, "iam.temporal_position is 'learned' there"),
    ],
)
def test_settings_that_contradict_those_of_a_part_are_refused(later, parts, model, words):
    with pytest.raises(RecipeError, match=rf"start_from_parts and \[model\] contradict each other: .*{words}"):
        built_by(later(parts, model))


def test_settings_that_say_what_the_parts_are_anyway_are_no_contradiction(later, start):
    said = later(TOWERS, {**TINY_MODEL, "towers": {"projected": False}})
    assert built_by(said).settings == start.model


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (["video_iam"], "video_iam.unrolled.cross.feature_norm.weight"),
        (["temporal_position"], "temporal_position.position"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(later, parts, name):
    wider = {"towers": {"shape": {**TINY_MODEL["towers"]["shape"], "width": 32}}}
    with pytest.raises(RecipeError, match="start_from_parts does not fit") as caught:
        built_by(later(parts, wider))
    assert f"{name} has shape (" in str(caught.value) and "in the model of start_from and (" in str(caught.value)


def test_parts_that_the_trained_model_lacks_are_refused_with_those_it_has(later):
    there = "image_tower, text_tower, video_iam, text_iam, temporal_position, logit_scale"
    with pytest.raises(RecipeError, match=f"names 'head', which the model of start_from lacks; it has {there}$"):
        built_by(later(["head"], task="classification"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"start_from_parts": ["towers"]},
            "start_from_parts.0 = 'towers': input should be 'image_tower', 'text_tower', ",
        ),
        ({"start_from_parts": []}, r"start_from_parts = \[\]: "),
        ({"start_from": None}, r"start_from_parts is set and start_from is not; .*\(image_tower, text_tower\)"),
        ({"start_from_parts": ["head"]}, "names 'head', which only task = 'classification' has; .* image_tower, "),
    ],
)
def test_parts_that_no_model_has_or_that_come_from_nowhere_are_refused(numbered_output, tmp_path, changes, words):
    tables = {"start_from": "model", "start_from_parts": list(TOWERS)}
    with pytest.raises(RecipeError, match=words):
        tiny_recipe(numbered_output, tmp_path / "later", tables, changes)


def test_a_head_is_taken_where_it_is_named_and_is_new_where_it_is_not(classifier, later):
    trained = weights_of(Path(classifier.output))
    common = {"start_from": classifier.output, "task": "classification"}
    taken = built_by(later(PARTS, **common))
    assert torch.equal(taken.module.head.weight, trained["head.weight"]) and trained["head.weight"].any()
    assert torch.equal(taken.model.video_iam.base, trained["model.video_iam.base"])
    left = built_by(later(TOWERS, {"iam": ANOTHER_IAM}, **common))
    assert left.module.head.weight.shape[1] == 24 and not left.module.head.weight.any()
    with pytest.raises(RecipeError, match=r"head brings its settings along, and iam\.dim is 16 there and 24 here"):
        built_by(later([*TOWERS, "head"], {"iam": ANOTHER_IAM}, **common))


def test_a_contrastive_training_that_starts_from_a_classifier_says_at_its_start_that_the_head_is_left(
    classifier, numbered_output, tmp_path
):
    """The head was dropped without a word."""
    changes = {"start_from": classifier.output, "model": None}
    recipe = tiny_recipe(numbered_output, tmp_path / "later", SHORT, changes)
    num_classes = len(Pretrained.from_pretrained(classifier.output).classifier.class_names)
    sentence = (
        f"the head of the model that this starts from ({num_classes} classes) is left: a contrastive training has none"
    )
    outcome, said = train_here(recipe)
    assert said.count(sentence) == 1
    assert Pretrained.from_pretrained(outcome.model).classifier is None
    assert sentence not in train_here(recipe)[1]
