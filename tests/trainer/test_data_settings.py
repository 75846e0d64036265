from __future__ import annotations

from typing import get_args

import pytest
from pydantic import ValidationError

from gex_pipeline.errors import RecipeError
from tests.trainer.tiny_recipes import tiny_recipe, train_here, write_recipe
from trainer.annotation_kinds import KINDS, KindName
from trainer.data_settings import AnnotationSettings, DataSettings
from trainer.train_recipe import load_train_recipe, make_train_recipe


def test_the_papers_granularities_need_no_numbers():
    settings = DataSettings.model_validate({"dataset": "out", "granularities": {"LVLT": {}, "IT": {"weight": 0.5}}})
    long, image = settings.granularities["LVLT"], settings.granularities["IT"]
    assert (long.num_frames, long.n_iter_video, long.n_iter_text, long.weight) == (32, 3, 3, 1.0)
    assert (image.num_frames, image.n_iter_video, image.n_iter_text, image.weight) == (1, 0, 1, 0.5)
    assert settings.batch_size == 512


def test_a_training_with_random_frames_does_not_go_on_with_middle_ones(numbered_output, tmp_path):
    changes = {"data": {"frame_sampling": "random"}, "optim": {"epochs": 1}}
    recipe = tiny_recipe(numbered_output, tmp_path / "training", changes)
    train_here(recipe)
    middles = recipe.model_copy(update={"data": recipe.data.model_copy(update={"frame_sampling": "middle"})})
    with pytest.raises(RecipeError, match=r"data\.frame_sampling is 'random' there and 'middle' here"):
        train_here(middles)


def test_a_number_that_is_given_stands_and_another_granularity_needs_its_numbers():
    tables = {"LVST": {"num_frames": 8}}
    assert (
        DataSettings.model_validate({"dataset": "out", "granularities": tables}).granularities["LVST"].num_frames == 8
    )
    with pytest.raises(ValidationError, match="num_frames"):
        DataSettings.model_validate({"dataset": "out", "granularities": {"CHANNEL": {}}})


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"held_out_share": 1.0}, {"granularities": {}}, {"batchsize": 4}, {"granularities": {"IT": 3}}],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        DataSettings.model_validate({"dataset": "out", "granularities": {"IT": {}}, **wrong})


COIN = {"kind": "coin", "file": "COIN.json", "media": "videos"}
FILES = ("media", "captions", "class_names", "subset")
EVERY_KEY = {**{name: f"{name} file" for name in FILES}, "span_s": 60.0, "trim": True}


def data_of(annotations) -> DataSettings:
    return DataSettings.model_validate({"annotations": annotations, "granularities": {"LVST": {}}})


def test_coin_is_trained_on_its_training_videos_where_no_subset_is_named():
    """It was the testing subset, which is the default of gex eval, so figures were of videos trained on."""
    assert data_of(COIN).annotations.subset == "training"
    assert data_of(AnnotationSettings(**COIN)).annotations.subset == "training"
    assert data_of({**COIN, "subset": "testing"}).annotations.subset == "testing"
    assert data_of({"kind": "lsmdc", "file": "a.csv", "media": "videos"}).annotations.subset is None
    assert AnnotationSettings(**COIN).subset is None


def test_coin_that_an_earlier_version_began_is_still_trimmed():
    """Its recipe was written down with every key it knew; whole videos would be another training."""
    assert data_of(COIN).annotations.trim is False
    assert data_of({**COIN, "trim": True}).annotations.trim is True
    begun = data_of(COIN).model_dump(mode="json")
    assert DataSettings.model_validate(begun).annotations.trim is False
    del begun["annotations"]["trim"]
    assert DataSettings.model_validate(begun).annotations.trim is True
    other = data_of({"kind": "lsmdc", "file": "a.csv", "media": "videos"}).model_dump(mode="json")
    del other["annotations"]["trim"]
    assert DataSettings.model_validate(other).annotations.trim is None


@pytest.mark.parametrize(
    ("annotations", "sentence"),
    [
        (
            {"kind": "msrvtt", "file": "a.csv", "media": "m", "subset": "training", "class_names": "foo"},
            "annotations of kind msrvtt take no class_names, subset; beside file they take captions, media",
        ),
        ({"kind": "folders", "file": "a", "media": "m"}, "annotations of kind folders take no media"),
        ({"kind": "lvu", "file": "a.csv"}, "annotations of kind lvu need media; name it"),
        ({**COIN, "span_s": 60}, "annotations of kind coin take no span_s; beside file they take media, subset, trim"),
        ({"kind": "lvu", "file": "a.csv", "media": "m", "trim": True}, "annotations of kind lvu take no trim; beside"),
        ({"kind": "lvu", "file": "a.csv", "media": "m", "span_s": 0}, "greater than 0"),
        ({"kind": "charades-ego", "file": "a.csv"}, "annotations of kind charades-ego need class_names, media; name"),
        ({**COIN, "subset": "train"}, "COIN has no subset 'train'; expected training or testing"),
    ],
)
def test_keys_that_a_kind_does_not_take_or_lacks_are_refused(annotations, sentence):
    with pytest.raises(ValidationError) as caught:
        data_of(annotations)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_of_every_kind_is_located_and_coins_subset_is_none(kind):
    keys = {name: EVERY_KEY[name] for name in KINDS[kind].takes}
    keys |= {"subset": "testing"} if kind == "coin" else {}
    no_paths = {"coin": ["subset", "trim"], "lvu": ["span_s"]}.get(kind, [])
    annotations = data_of({"kind": kind, "file": "a", **keys}).located(lambda path: f"/recipes/{path}").annotations
    found = annotations.model_dump(exclude_none=True)
    assert found.pop("kind") == kind
    assert [name for name, path in found.items() if not str(path).startswith("/recipes/")] == no_paths


def test_activitynets_file_of_ids_lies_beside_the_recipe(tmp_path):
    """It was read from the working directory, under Ray that of a worker."""
    annotations = {"kind": "activitynet", "file": "val_1.json", "media": "videos", "subset": "val_ids.json"}
    tables = {"output": "out", "data": {"annotations": annotations, "granularities": {"LVLT": {}}}}
    recipe = load_train_recipe(write_recipe(tmp_path / "recipes" / "train.toml", tables))
    assert recipe.data.annotations.subset == f"{tmp_path}/recipes/val_ids.json"


def test_a_recipe_with_a_key_of_another_kind_is_refused_in_a_sentence():
    """It was accepted, and the key did nothing."""
    annotations = {"kind": "msrvtt", "file": "train.csv", "media": "videos", "subset": "training"}
    with pytest.raises(RecipeError) as caught:
        make_train_recipe({"output": "out", "data": {"annotations": annotations, "granularities": {"LVLT": {}}}})
    assert str(caught.value) == (
        "data.annotations: annotations of kind msrvtt take no subset; beside file they take captions, media"
    )


def test_every_kind_that_is_known_stands_in_the_table():
    assert tuple(KINDS) == get_args(KindName)
