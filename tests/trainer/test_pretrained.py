from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from gex_pipeline.errors import GexError, RecipeError
from tests.trainer.tiny_recipes import (
    TINY_MODEL,
    checkpoint_of,
    largest_difference,
    steps_of,
    tiny_recipe,
    train_here,
    weights_of,
)
from trainer import cost
from trainer.build import build
from trainer.checkpoint import named_tensors
from trainer.pretrained import Pretrained
from trainer.processes import Processes
from trainer.run_data import open_data
from trainer.sequence import Reading, SequenceLoader
from trainer.train_recipe import TrainRecipe

ALONE = Processes(0, 1, torch.device("cpu"))
FINE_TUNING = {"model": None, "optim": {"epochs": 1, "learning_rate": 1e-4}}


@pytest.fixture(scope="module")
def trained(numbered_output, tmp_path_factory):
    """Recipe and outcome of a training of one epoch. Not to be changed."""
    output = tmp_path_factory.mktemp("pretrained") / "training"
    recipe = tiny_recipe(numbered_output, output, {"optim": {"epochs": 1}})
    return recipe, train_here(recipe)[0]


@pytest.fixture
def model_folder(trained, tmp_path) -> Path:
    """A copy of the model, to be damaged."""
    return Path(shutil.copytree(trained[1].model, tmp_path / "model"))


@pytest.fixture(scope="module")
def batch(trained):
    recipe, _ = trained
    with open_data(recipe.data) as data, SequenceLoader(data.held_out, "LVLT", Reading(2, 48, 4)) as loader:
        return next(loader)


def rebuilt(recipe: TrainRecipe):
    with open_data(recipe.data) as data:
        return build(recipe, data, ALONE)


def test_a_model_that_is_loaded_gives_the_vectors_of_the_one_in_memory(trained, batch):
    recipe, outcome = trained
    built = rebuilt(recipe)
    weights = checkpoint_of(Path(recipe.output), outcome.num_steps)
    for name, tensor in named_tensors(built.module).items():
        tensor.copy_(weights[name])
    built.module.eval()
    loaded = Pretrained.from_pretrained(outcome.model)
    with torch.inference_mode():
        videos = built.model.encode_video(batch.frames_BT3HW, 3)
        texts = built.model.encode_text(built.tokenizer(batch.texts), 2)
    assert torch.equal(loaded.encode_videos(batch.frames_BT3HW, 3), videos)
    assert torch.equal(loaded.encode_texts(batch.texts, 2), texts)
    assert torch.allclose(videos.norm(dim=1), torch.ones(len(videos)))
    assert not loaded.model.training
    assert loaded.settings == recipe.model
    assert loaded.granularities == recipe.data.granularities
    assert loaded.image_size_px == 48


@pytest.mark.parametrize(
    ("has_bf16", "record", "expected"),
    [
        (True, {"precision": "bf16"}, True),
        (True, {"precision": "fp32"}, False),
        (True, {}, True),  # a model from before precision was written down
        (False, {"precision": "bf16"}, False),
    ],
)
def test_on_a_gpu_a_model_computes_in_the_precision_of_its_training_where_the_gpu_has_it(
    trained, monkeypatch, has_bf16, record, expected
):
    """It was bf16 always: emulated on a T4, and other figures than those of a training in 32 bits."""
    loaded = Pretrained.from_pretrained(trained[1].model)
    assert loaded.trained["precision"] == "fp32"
    loaded.trained = record
    monkeypatch.setattr(Pretrained, "device", torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or has_bf16
    )
    assert loaded._autocast()._enabled == expected
    assert cost.autocast(loaded.device)._enabled == has_bf16


def test_the_output_of_a_training_is_named_as_well_as_the_model_in_it(trained, batch):
    recipe, outcome = trained
    first, second = (Pretrained.from_pretrained(place) for place in (recipe.output, outcome.model))
    assert torch.equal(first.encode_texts(batch.texts, 1), second.encode_texts(batch.texts, 1))


def test_a_probe_can_be_trained_on_the_vectors(trained, batch):
    """They were made in inference mode: on a CPU, a gradient over one batch of them was refused."""
    model = Pretrained.from_pretrained(trained[1].model)
    for vectors in (model.encode_videos(batch.frames_BT3HW, 1), model.encode_texts(batch.texts, 1)):
        probe = torch.nn.Linear(vectors.shape[1], 3)
        probe(vectors).sum().backward()
        assert torch.allclose(probe.weight.grad, vectors.sum(0).expand(3, -1))
        assert not vectors.requires_grad
        vectors.mul_(2)


def test_a_batch_of_which_no_sample_can_be_read_has_no_vectors(trained, batch):
    """What a loader hands over for it ended in a sentence about a reshape, deep in transformers."""
    model = Pretrained.from_pretrained(trained[1].model)
    assert model.encode_videos(batch.frames_BT3HW[:0], 1).shape == (0, 16)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"towers": {"frozn": True}}, "settings: towers.frozn: unknown key; did you mean 'frozen'?"),
        ({"foo": 1}, "settings: foo: unknown key; known keys: towers, iam"),
        ({"towers": {"long_text": "wndows"}}, "towers.long_text = 'wndows': input should be 'truncate' or 'windows'"),
        ({"towers": 3}, "towers = 3: input should be a valid dictionary"),
        ({"iam": {"dim": 64}}, "video_iam.base is of shape (4, 16) in the checkpoint and of shape (4, 64) here"),
    ],
)
def test_changes_that_a_model_cannot_take_are_refused(trained, changes, words):
    """A misspelt one was passed over, and a value that is none was written into the settings."""
    with pytest.raises(GexError) as caught:
        Pretrained.from_pretrained(trained[1].model, changes=changes)
    assert words in str(caught.value)


def test_a_change_leaves_what_it_does_not_name(trained):
    recipe, outcome = trained
    found = Pretrained.from_pretrained(outcome.model, changes={"towers": {"frozen": True}, "max_logit_scale": 50})
    towers = recipe.model.towers.model_copy(update={"frozen": True})
    assert found.settings == recipe.model.model_copy(update={"towers": towers, "max_logit_scale": 50.0})
    assert found.model.image_tower.frozen


def test_the_card_names_data_figures_and_how_each_granularity_is_read(trained, numbered_output):
    _, outcome = trained
    card = (Path(outcome.model) / "README.md").read_text()
    trained_on = json.loads((Path(outcome.model) / "config.json").read_text())["trained"]
    assert f"Data: {numbered_output}, snapshot 0; 25% of the sources were held out." in card
    assert "| LVLT | 2 | 3 | 3 | " in card
    assert f"| IT | 1 | 0 | 1 | {trained_on['samples']['IT']} |" in card
    for name, value in outcome.figures.items():
        assert f"| {name} | {value:.4g} |" in card
    words = " ".join(card.split())
    assert (
        f"{outcome.num_steps} steps of 4 samples, 1 epochs; learning rates 0.001 (towers) and 0.001 (the rest)" in words
    )
    num_weights = sum(tensor.numel() for tensor in weights_of(Path(trained[0].output)).values())
    assert f"{num_weights:,} parameters" in card


def test_the_lines_of_code_in_the_card_work(trained):
    _, outcome = trained
    card = (Path(outcome.model) / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    assert "path/to/this/folder" in code
    names: dict = {}
    exec(code.replace("path/to/this/folder", outcome.model), names)
    assert names["vectors"].shape == (1, 16)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(GexError, match=r"no model at .*: neither it nor its folder 'model' holds a config.json"):
        Pretrained.from_pretrained(tmp_path)


def cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def change(file: Path, value: object, *keys: str) -> None:
    content = table = json.loads(file.read_text())
    for key in keys[:-1]:
        table = table[key]
    table[keys[-1]] = value
    file.write_text(json.dumps(content))


DAMAGE = {
    "cut config": lambda folder: cut(folder / "config.json"),
    "wider": lambda folder: change(folder / "config.json", 32, "model", "iam", "dim"),
    "deeper": lambda folder: change(folder / "clip" / "config.json", 2, "vision_config", "num_hidden_layers"),
    "unknown key": lambda folder: change(folder / "config.json", 16, "model", "iam", "widht"),
    "newer": lambda folder: change(folder / "config.json", 99, "format"),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "cut weights": lambda folder: cut(folder / "model.safetensors"),
    "no clip": lambda folder: shutil.rmtree(folder / "clip"),
    "no tokenizer": lambda folder: [file.unlink() for file in (folder / "clip").glob("*token*")],
    "more classes": lambda folder: change(folder / "config.json", ["a", "b"], "class_names"),
}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("cut config", "config.json is not that of a model"),
        ("wider", "does not fit"),
        ("deeper", "does not fit"),
        ("unknown key", "widht"),
        ("newer", "format 99; this version reads format 1"),
        ("no weights", "model.safetensors' cannot be read"),
        ("cut weights", "model.safetensors' cannot be read"),
        ("no clip", "the folder 'clip' of the model is not that of a CLIP"),
        ("no tokenizer", "its tokenizer has 2 entries"),
        ("more classes", "does not fit"),
    ],
)
def test_files_that_do_not_fit_each_other_are_refused_in_one_sentence(model_folder, damage, words):
    DAMAGE[damage](model_folder)
    with pytest.raises(GexError) as caught:
        Pretrained.from_pretrained(model_folder)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_training_that_starts_from_another_has_its_weights_and_settings_at_the_start(
    trained, numbered_output, tmp_path
):
    recipe, _ = trained
    later = tiny_recipe(numbered_output, tmp_path / "later", FINE_TUNING, {"start_from": recipe.output})
    built = rebuilt(later)
    weights = {name: tensor.clone() for name, tensor in named_tensors(built.module).items()}
    assert largest_difference(weights, weights_of(Path(recipe.output))) == 0
    assert built.settings == recipe.model
    assert built.module.training
    found, _ = train_here(later)
    assert largest_difference(weights_of(tmp_path / "later"), weights) > 1e-5
    assert Pretrained.from_pretrained(found.model).settings == recipe.model
    assert f"those of {recipe.output}, trained on" in (Path(found.model) / "README.md").read_text()
    assert not (tmp_path / "later" / "clip").exists()


def test_a_classifier_starts_from_a_model_without_classes(trained, numbered_output, tmp_path):
    recipe, _ = trained
    changes = {"start_from": recipe.output, "task": "classification", "data": {"granularities": {"IT": {}}}}
    built = rebuilt(tiny_recipe(numbered_output, tmp_path / "later", FINE_TUNING, changes))
    own = {name.removeprefix("model."): tensor for name, tensor in named_tensors(built.module).items()}
    start = weights_of(Path(recipe.output))
    assert own.keys() - start.keys() == {"head.weight", "head.bias"}
    assert largest_difference({name: own[name] for name in start}, start) == 0


CLASSES = {"task": "classification", "data": {"granularities": {"IT": {}}}, "model": None, "optim": {"epochs": 1}}


@pytest.fixture(scope="module")
def classifier(numbered_output, tmp_path_factory) -> Path:
    """A trained model with a head that knows the texts of IT."""
    output = tmp_path_factory.mktemp("classifier") / "training"
    train_here(tiny_recipe(numbered_output, output, CLASSES, {"model": TINY_MODEL}))
    return output


def started_from(classifier: Path, recipe: TrainRecipe, names: tuple[str, ...]):
    """What a training of these classes begins with."""
    with open_data(recipe.data) as data:
        return build(recipe, dataclasses.replace(data, class_names=names), ALONE)


def test_a_classifier_that_starts_from_one_of_the_same_classes_has_its_head_whatever_their_order(
    classifier, numbered_output, tmp_path, batch
):
    """The head that was trained was dropped without a word, and another one began at random."""
    start = Pretrained.from_pretrained(classifier)
    names = start.classifier.class_names
    recipe = tiny_recipe(numbered_output, tmp_path / "later", CLASSES, {"start_from": str(classifier)})
    expected = start.classify(batch.frames_BT3HW, 1)
    assert float(expected.std(dim=1).min()) > 0
    for order in (names, tuple(reversed(names))):
        built = started_from(classifier, recipe, order)
        with torch.inference_mode():
            logits = built.module.eval()(batch.frames_BT3HW, 1)
        places = [names.index(name) for name in order]
        assert torch.equal(logits, expected[:, places])
        assert (built.class_names, built.told) == (order, ())
        assert built.module.head.weight.requires_grad


def test_a_classifier_that_starts_from_one_of_other_classes_has_a_new_head_and_says_so_at_its_start(
    classifier, numbered_output, tmp_path
):
    changes = {"start_from": str(classifier), "data": {"granularities": {"LVST": {"num_frames": 1}}}}
    recipe = tiny_recipe(numbered_output, tmp_path / "later", CLASSES, changes, {"data": {"held_out_share": 0.0}})
    built = rebuilt(recipe)
    assert not built.module.head.weight.any()
    sentence = "a new head: the model's classes are others (18 there, 18 here)"
    assert built.told == (sentence,)
    assert train_here(recipe)[1].count(sentence) == 1
    assert sentence not in train_here(recipe)[1]  # it has begun, and goes on with its own


def test_what_a_trained_model_is_cannot_be_said_again(trained, numbered_output, tmp_path):
    recipe, _ = trained
    changes = {"start_from": recipe.output, "optim": {"epochs": 1}, "model": {"iam": {"num_embeddings": 8}}}
    with pytest.raises(RecipeError, match=r"start_from and \[model\] contradict each other"):
        train_here(tiny_recipe(numbered_output, tmp_path / "later", changes))


def test_settings_on_which_no_weight_depends_can_be_said_of_a_trained_model_and_are_in_what_comes_of_it(
    trained, numbered_output, tmp_path
):
    """Texts that were cut in pre-training could not be read whole in fine-tuning, as paragraphs want it."""
    recipe, _ = trained
    said = {"towers": {"long_text": "windows", "max_windows": 3, "mask_padding": False, "class_token": False}}
    changes = {"start_from": recipe.output, "model": {**said, "max_logit_scale": 2.0}}
    later = tiny_recipe(numbered_output, tmp_path / "later", FINE_TUNING, {"model": None}, changes)
    outcome, _ = train_here(later)
    cut, whole = Pretrained.from_pretrained(recipe.output), Pretrained.from_pretrained(outcome.model)
    text = "half 0 of 3. half 1 of 3."
    assert cut.tokenizer([text]).truncated_B.item() and not whole.tokenizer([text]).truncated_B.item()
    assert 1 < whole.tokenizer([text]).ids_BWL.shape[1] <= 3
    assert all(line.get("truncated_share/LVLT", 0) == 0 for line in steps_of(tmp_path / "later"))
    assert whole.model.logit_scale.exp().item() <= 2.0 + 1e-6 < cut.model.logit_scale.exp().item()
    assert whole.model.image_tower.num_features == cut.model.image_tower.num_features - 1
    towers = recipe.model.towers.model_copy(update=said["towers"])
    assert whole.settings == recipe.model.model_copy(update={"towers": towers, "max_logit_scale": 2.0})
    built = rebuilt(later)  # every weight is the start's, but for the temperature that is bounded lower
    weights = {name: tensor for name, tensor in named_tensors(built.module).items() if name != "logit_scale"}
    start = weights_of(Path(recipe.output))
    assert largest_difference(weights, {name: start[name] for name in weights}) == 0
    assert start.keys() - weights.keys() == {"logit_scale"}


@pytest.mark.parametrize(
    "said", [{"iam": {"num_heads": 4}}, {"towers": {"projected": True}}, {"initial_temperature": 0.1}], ids=str
)
def test_settings_that_weights_depend_on_or_that_would_do_nothing_are_refused(trained, numbered_output, tmp_path, said):
    changes = {"start_from": trained[0].output, "model": said}
    with pytest.raises(RecipeError, match=r"contradict each other: .* but for max_logit_scale, towers\.class_token, "):
        rebuilt(tiny_recipe(numbered_output, tmp_path / "later", FINE_TUNING, {"model": None}, changes))


def test_a_model_keeps_how_its_start_read_the_granularities_that_it_does_not_go_on_with(
    trained, numbered_output, tmp_path
):
    """After a stage of images alone, videos were read as images: one frame, #iter 0-1."""
    recipe, _ = trained
    images = {"data": {"granularities": {"IT": {"n_iter_text": 2}}}, "start_from": recipe.output}
    outcome, _ = train_here(tiny_recipe(numbered_output, tmp_path / "images", FINE_TUNING, images))
    found = Pretrained.from_pretrained(outcome.model)
    assert found.granularities["LVLT"] == recipe.data.granularities["LVLT"]
    assert found.granularities["LVST"] == recipe.data.granularities["LVST"]
    assert found.granularities["IT"].n_iter_text == 2
    # the card knew images alone
    card = (Path(outcome.model) / "README.md").read_text()
    assert "\n| LVLT | 2 | 3 | 3 | trained before |\n" in card
    assert f"\n| IT | 1 | 0 | 2 | {found.trained['samples']['IT']} |\n" in card
    assert list(found.trained["samples"]) == ["IT"]


@pytest.mark.parametrize("sent", [False, True], ids=["here", "through Ray"])
def test_whether_towers_train_can_be_said_of_a_trained_model(trained, numbered_output, tmp_path, sent):
    recipe, _ = trained
    changes = {"start_from": recipe.output, "model": {"towers": {"frozen": True}}}
    later = tiny_recipe(numbered_output, tmp_path / "later", {"model": None}, changes)
    if sent:  # as trainer.launch does
        later = TrainRecipe.model_validate(later.model_dump(mode="json", exclude_unset=True))
    built = rebuilt(later)
    assert not any(p.requires_grad for p in built.model.image_tower.parameters())
    assert built.settings.towers.frozen
    assert all(p.requires_grad for p in built.model.video_iam.parameters())


def test_frozen_towers_stay_frozen_in_what_starts_from_them(numbered_output, tmp_path):
    frozen = {"model": {"towers": {"frozen": True}}, "optim": {"epochs": 1}, "data": {"granularities": {"IT": {}}}}
    first = tiny_recipe(numbered_output, tmp_path / "first", frozen)
    train_here(first)
    later = tiny_recipe(numbered_output, tmp_path / "later", FINE_TUNING, {"start_from": first.output})
    assert not any(p.requires_grad for p in rebuilt(later).model.text_tower.parameters())
    freed = tiny_recipe(
        numbered_output,
        tmp_path / "freed",
        {"model": None},
        {"start_from": first.output, "model": {"towers": {"frozen": False}}},
    )
    assert all(p.requires_grad for p in rebuilt(freed).model.text_tower.parameters())


def test_a_start_that_is_not_there_is_refused_before_any_step(numbered_output, tmp_path):
    recipe = tiny_recipe(numbered_output, tmp_path / "later", FINE_TUNING, {"start_from": str(tmp_path / "none")})
    with pytest.raises(GexError, match=r"no model at .*none"):
        train_here(recipe)
    assert steps_of(tmp_path / "later") == []
