from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gex_pipeline.errors import RecipeError
from tests.trainer.outputs import make_numbered_output
from tests.trainer.tiny_recipes import tables_of, write_recipe
from trainer.settings import ModelSettings
from trainer.train_recipe import load_train_recipe, make_train_recipe, recipe_over, template, template_names

DATA = {"dataset": "data", "granularities": {"LVLT": {}}}
EVALUATED = {"data": {**DATA, "held_out_share": 0.5}, "evaluation": {"every_steps": 10}}
MSRVTT = {"kind": "msrvtt", "file": "train.csv", "media": "videos"}


def recipe_of(**tables):
    return make_train_recipe({"output": "out", "data": DATA, **tables})


def test_credentials_in_a_uri_are_refused_and_not_repeated():
    """Checkpoints and exports hold the recipe."""
    with pytest.raises(RecipeError, match=r"^data.dataset: a URI carries credentials") as caught:
        recipe_of(data={**DATA, "dataset": "s3://AKIA:cret@bucket/out"})
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"optim": {"learning_rte": 1}}, "optim.learning_rte: unknown key; did you mean .learning_rate"),
        ({"outptu": "x"}, "output"),
        ({"data": {**DATA, "bach_size": 3}}, "batch_size"),
        ({"data": {**DATA, "granularities": {"LVLT": {"frames": 3}}}}, "num_frames"),
        ({"model": {"towers": {"shape": {"widht": 3}}}}, "width"),
        ({"parallel": {"stratgy": "fsdp"}}, "strategy"),
        ({"launch": {"num_proceses": 2}}, "num_processes"),
    ],
)
def test_an_unknown_key_names_the_nearest_one(tables, words):
    with pytest.raises(RecipeError, match=words):
        recipe_of(**tables)


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"data": {**DATA, "annotations": MSRVTT}}, "either dataset or a table annotations"),
        ({"data": {"granularities": {"LVLT": {}}}}, "either dataset or a table annotations"),
        (
            {"data": {"annotations": MSRVTT, "granularities": {"LVLT": {}, "IT": {}}}},
            "a public data set is one granularity, 2 are named",
        ),
        ({"evaluation": {"every_steps": 10}}, "evaluation.every_steps is set and data.held_out_share is 0"),
        ({"checkpoints": {"best": "LVLT/t2v_r1_percent"}}, "checkpoints.best needs evaluation.every_steps"),
        ({**EVALUATED, "checkpoints": {"best": "LVLT/t2v_r1"}}, "says LVLT/t2v_r1_percent, LVLT/t2v_r5_percent"),
        ({**EVALUATED, "checkpoints": {"best": "SVST/t2v_r1_percent"}}, "checkpoints.best is 'SVST/t2v_r1_percent'"),
        (
            {**EVALUATED, "task": "classification", "checkpoints": {"best": "LVLT/t2v_r1_percent"}},
            "says LVLT/top1_percent, LVLT/top5_percent",
        ),
        ({"task": "clasification"}, "classification"),
        ({"data": {"dataset": "data", "granularities": {"OWN": {}}}}, "num_frames"),
        ({"optim": {"learning_rate": -1}}, "learning_rate"),
        ({"model": {"settings": "iam-papr"}}, "iam-paper"),
        ({"model": {"settings": "mine.toml"}}, "mine.toml"),
    ],
)
def test_what_contradicts_itself_or_cannot_be_is_refused(tables, words):
    with pytest.raises(RecipeError) as caught:
        recipe_of(**tables)
    assert words in str(caught.value)


@pytest.mark.parametrize("number", [0.5, 2])
def test_a_process_takes_one_gpu_or_none(number):
    """Two processes that shared a GPU were refused as too many, and a second one of a process lay idle."""
    with pytest.raises(RecipeError, match="gpus_a_process"):
        recipe_of(launch={"gpus_a_process": number})
    assert [recipe_of(launch={"gpus_a_process": one}).launch.gpus_a_process for one in (0, 1, 1.0)] == [0, 1, 1]


def test_relative_paths_start_from_the_folder_of_the_recipe_and_uris_stay(tmp_path):
    (tmp_path / "clip").mkdir()
    tables = {
        "output": "trainings/one",
        "start_from": "../before",
        "model": {"towers": {"clip": "clip"}},
        "data": {"annotations": {**MSRVTT, "captions": "/data/captions.json"}, "granularities": {"LVLT": {}}},
    }
    recipe = load_train_recipe(write_recipe(tmp_path / "recipes" / "train.toml", tables))
    folder = tmp_path / "recipes"
    assert recipe.output == f"{folder}/trainings/one"
    assert recipe.place("model", "config.json") == f"{folder}/trainings/one/model/config.json"
    assert recipe.start_from == f"{folder}/../before"
    assert recipe.data.annotations.file == f"{folder}/train.csv"
    assert recipe.data.annotations.media == f"{folder}/videos"
    assert recipe.data.annotations.captions == "/data/captions.json"
    assert recipe.model.towers.clip == "clip"  # no such folder beside the recipe: a hub id
    beside = load_train_recipe(write_recipe(tmp_path / "train.toml", tables))
    assert beside.model.towers.clip == f"{tmp_path}/clip"
    assert recipe_of(output="s3://bucket/out", data={**DATA, "dataset": "s3://b/data"}).data.dataset == "s3://b/data"


def test_a_shipped_tree_lies_below_the_keys_of_the_recipe():
    paper = recipe_of(model={"settings": "iam-paper", "iam": {"dim": 256}, "towers": {"frozen": True}}).model
    assert (paper.iam.dim, paper.iam.residual, paper.iam.norm, paper.iam.temporal_position) == (
        256,
        False,
        "none",
        "none",
    )
    assert (paper.towers.frozen, paper.towers.class_token) == (True, False)
    assert recipe_of().model == ModelSettings() == recipe_of(model={"settings": "iam-recommended"}).model


def test_settings_in_a_file_lie_beside_the_recipe(tmp_path):
    write_recipe(tmp_path / "mine.toml", {"model": {"iam": {"dim": 64}}})
    tables = {"output": "out", "data": DATA, "model": {"settings": "mine.toml", "iam": {"num_heads": 4}}}
    model = load_train_recipe(write_recipe(tmp_path / "train.toml", tables)).model
    assert (model.iam.dim, model.iam.num_heads) == (64, 4)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "does not exist"), ("output = ", "not a TOML file"), ('output = "x"', "train.toml: ")],
)
def test_a_file_that_is_no_recipe_is_named(tmp_path, content, words):
    if content is not None:
        (tmp_path / "train.toml").write_text(content)
    with pytest.raises(RecipeError, match=words):
        load_train_recipe(tmp_path / "train.toml")


PAPER = {  # d, #iter of video, #iter of text; 16 frames for short videos, 32 for long ones
    "SVST": (16, 1, 1),
    "LVLT": (32, 3, 3),
    "LVST": (32, 3, 1),
    "IT": (1, 0, 1),
}


def test_the_template_of_pretraining_holds_the_numbers_of_the_paper(tmp_path):
    recipe = loaded("pretraining", tmp_path)
    found = {n: (g.num_frames, g.n_iter_video, g.n_iter_text) for n, g in recipe.data.granularities.items()}
    # of appendix F's images the main model knows nothing: IT was among them
    assert found == {name: PAPER[name] for name in ("SVST", "LVLT", "LVST")}
    assert {one.weight for one in recipe.data.granularities.values()} == {1.0}  # in proportion to their sizes
    assert (recipe.optim.learning_rate_towers, recipe.optim.learning_rate, recipe.optim.epochs) == (1e-6, 1e-4, 5)
    assert (recipe.data.batch_size, recipe.model.initial_temperature) == (512, 0.07)
    assert (recipe.optim.warmup_steps, recipe.optim.final_share) == (0, 0.0)
    assert recipe.model.towers.clip == "openai/clip-vit-base-patch32"
    assert recipe.task == "contrastive"


def test_images_are_a_stage_of_their_own_that_starts_from_the_main_model(tmp_path):
    recipe = loaded("images", tmp_path)
    found = {n: (g.num_frames, g.n_iter_video, g.n_iter_text) for n, g in recipe.data.granularities.items()}
    assert found == {"IT": PAPER["IT"]}
    assert recipe.start_from == loaded("pretraining", tmp_path).output == f"{tmp_path}/training"
    assert recipe.data.dataset == loaded("pretraining", tmp_path).data.dataset
    assert (recipe.optim.epochs, recipe.task, recipe.model.model_fields_set) == (5, "contrastive", set())


@pytest.mark.parametrize("name", ["pretraining", "images", "retrieval", "classification"])
def test_a_template_of_the_paper_fits_a_gpu_of_80_gb(tmp_path, name):
    """Bytes that ViT-B/32 keeps of a frame and of a text: of all videos at once 400 GB."""
    recipe = loaded(name, tmp_path)
    most_frames = max(granularity.num_frames for granularity in recipe.data.granularities.values())
    size = recipe.parallel.piece_size or recipe.data.batch_size
    assert size * (24.3e6 * most_frames + 31e6) < 60e9


@pytest.mark.parametrize(
    ("name", "task", "numbers", "batch_size"),
    [
        ("retrieval", "contrastive", (1e-7, 1e-5, 50), 512),
        ("classification", "classification", (1e-7, 1e-6, 100), 64),  # 512 was said to be the paper's
    ],
)
def test_the_templates_of_fine_tuning_hold_the_numbers_of_the_paper(tmp_path, name, task, numbers, batch_size):
    recipe = loaded(name, tmp_path)
    optim = recipe.optim
    assert (optim.learning_rate_towers, optim.learning_rate, optim.epochs) == numbers
    assert (recipe.task, recipe.data.batch_size) == (task, batch_size)
    assert recipe.start_from == f"{tmp_path}/training"
    assert recipe.model.model_fields_set == set()  # so that nothing contradicts what it starts from


def test_every_template_loads_and_says_what_is_to_be_edited(tmp_path):
    assert template_names() == ["classification", "images", "pretraining", "retrieval", "scratch"]
    for name in template_names():
        assert loaded(name, tmp_path).output.startswith(str(tmp_path))
    with pytest.raises(RecipeError, match=r"no training recipe 'pretrainng' comes with the package; there are .*retr"):
        template("pretrainng")


def loaded(name: str, folder: Path):
    (folder / f"{name}.toml").write_text(template(name), encoding="utf-8")
    return load_train_recipe(folder / f"{name}.toml")


def test_a_recipe_over_a_data_set_has_all_its_granularities_and_the_largest_batch_that_fits(numbered_output):
    recipe = recipe_over(str(numbered_output))
    found = {n: (g.num_frames, g.n_iter_video, g.n_iter_text) for n, g in recipe.data.granularities.items()}
    assert found == {name: PAPER[name] for name in ("LVLT", "LVST", "IT")}
    assert recipe.data.batch_size == 16  # of 18 samples
    assert recipe.output == f"{numbered_output}-training"
    assert recipe.optim.learning_rate == 1e-4
    assert recipe.parallel.piece_size == 64


def test_a_recipe_over_a_data_set_fits_a_power_of_two_exactly(tmp_path):
    assert recipe_over(str(make_numbered_output(tmp_path, 4))).data.batch_size == 4


def test_a_recipe_over_what_is_no_data_set_or_has_a_granularity_of_its_own_is_refused(tmp_path, numbered_output):
    with pytest.raises(RecipeError, match=r"is neither a training recipe nor a published data set"):
        recipe_over(str(tmp_path))
    other = Path(shutil.copytree(numbered_output, tmp_path / "other"))
    manifest = (other / "dataset.json").read_text()
    (other / "dataset.json").write_text(manifest.replace('"LVST"', '"OWN"'))
    with pytest.raises(
        RecipeError, match=r"has granularities the paper has no numbers for: OWN; write a training recipe"
    ):
        recipe_over(str(other))


def test_a_recipe_survives_being_written_down_and_read_again(tmp_path):
    recipe = load_train_recipe(write_recipe(tmp_path / "train.toml", tables_of("data", "out")))
    assert type(recipe).model_validate(recipe.model_dump(mode="json")) == recipe
    assert type(recipe).model_validate(recipe.model_dump(mode="json", exclude_unset=True)) == recipe
