"""Public data sets with classes through the head of a model that was trained on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.media.making_clips import Make, make_clip
from tests.trainer.annotations.real_formats import CHARADES_CLASSES, COIN_ENTRY, written
from tests.trainer.by_hand import file_of, logits_of, text_of, unit
from tests.trainer.conftest import write_tiny_model
from trainer.data_settings import AnnotationSettings, GranularitySettings
from trainer.evaluate import Options, PublishedData, evaluate_published
from trainer.evaluate_annotations import PublicData, evaluate_annotations
from trainer.pretrained import Pretrained

CLASSES = tuple(line[5:] for line in CHARADES_CLASSES.splitlines())
ACTIONS = {"v0": (0, 2), "v1": (1,), "v2": (), "v3": (2,), "v4": (1, 2)}
OPTIONS = Options(num_frames=3)


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    for number, name in enumerate(ACTIONS):
        make_clip(folder / f"{name}.mp4", 3 * number + 1, Make(num_frames=12, size_px=(96, 96)))
    return folder


@pytest.fixture(scope="module")
def classifier(tiny_clip_folder, tmp_path_factory) -> Pretrained:
    """A model with a head for the classes, in another order than that of the data set."""
    folder = tmp_path_factory.mktemp("classifier") / "model"
    model = Pretrained.from_pretrained(write_tiny_model(folder, tiny_clip_folder, tuple(reversed(CLASSES))))
    coin = GranularitySettings(num_frames=3, n_iter_video=3, n_iter_text=0)
    return replace(model, granularities={"COIN": coin}, trained={"samples": {"COIN": 9}})


def charades(tmp_path: Path, media: Path, classes: str = CHARADES_CLASSES) -> AnnotationSettings:
    rows = [f"{name}," + ";".join(f"c00{label} 0 1" for label in labels) for name, labels in ACTIONS.items()]
    file = written(tmp_path / "test.csv", "id,actions\n" + "\n".join(rows) + "\n")
    names = written(tmp_path / "classes.txt", classes)
    return AnnotationSettings(kind="charades-ego", file=str(file), media=str(media), class_names=str(names))


def map_by_hand(scores_VK: np.ndarray, names: list[str]) -> float:
    precisions = []
    for number in range(scores_VK.shape[1]):
        hits = [number in ACTIONS[names[place]] for place in np.argsort(-scores_VK[:, number])]
        at_hits = [sum(hits[: place + 1]) / (place + 1) for place in range(len(hits)) if hits[place]]
        precisions.append(np.mean(at_hits))
    return 100 * float(np.mean(precisions))


def test_charades_ego_is_measured_by_the_head_that_was_trained_on_it(tmp_path, media, classifier):
    """It was measured by the text branch, which that training had frozen, without a word."""
    found = evaluate_annotations(classifier, PublicData(charades(tmp_path, media)), OPTIONS)
    names = [name for name, labels in ACTIONS.items() if labels]
    logits = np.array([logits_of(classifier, media / f"{name}.mp4", 3, 3)[::-1] for name in names], dtype=np.float64)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert found.figures["map_percent"] == pytest.approx(map_by_hand(chances, names))
    assert found.method == (
        "videos are ranked for every class by the chance that the model's linear head gives it; unlabelled ones are "
        "left out"
    )
    assert (found.figures["num_unlabelled"], found.num_samples) == (1, 5)
    assert "templates" not in found.data


def test_chances_and_not_logits_are_compared_between_videos(tmp_path, media, classifier, monkeypatch):
    """What all logits of a video have in common, no loss has seen: it must not change the order of the videos."""
    expected = evaluate_annotations(classifier, PublicData(charades(tmp_path, media)), OPTIONS).figures
    plain = Pretrained.classify
    monkeypatch.setattr(
        Pretrained,
        "classify",
        lambda self, frames, n_iter: plain(self, frames, n_iter) + frames.flatten(1).float().mean(dim=1, keepdim=True),
    )
    assert evaluate_annotations(classifier, PublicData(charades(tmp_path, media)), OPTIONS).figures == expected


@pytest.mark.parametrize(
    ("classes", "templates", "why"),
    [
        (CHARADES_CLASSES.replace(CLASSES[0], "another class"), None, "the model's head is for other classes"),
        (CHARADES_CLASSES, ("{label} in short",), "prompts were given"),
    ],
)
def test_charades_ego_by_texts_says_why_the_head_is_not_used(tmp_path, media, classifier, classes, templates, why):
    data = PublicData(charades(tmp_path, media, classes), templates=templates)
    found = evaluate_annotations(classifier, data, OPTIONS)
    assert f"by similarity to its name ({why})" in found.method
    assert found.read.n_iter_text == 1


def test_the_prompts_of_a_classifier_are_encoded_as_its_start_or_the_paper_reads_short_texts(
    tmp_path, media, classifier
):
    entries = {
        name: {**COIN_ENTRY, "class": CLASSES[number % 3], "recipe_type": number % 3, "subset": "testing", "start": 0}
        | {"end": 0.48}
        for number, name in enumerate(ACTIONS)
    }
    file = written(tmp_path / "COIN.json", {"database": entries})
    settings = AnnotationSettings(kind="coin", file=str(file), media=str(media))
    templates = ("{label} in short",)
    by_head = evaluate_annotations(classifier, PublicData(settings), OPTIONS)
    assert (by_head.method, by_head.read.n_iter_text) == ("the model's linear head", 0)
    found = evaluate_annotations(classifier, PublicData(settings, templates=templates), OPTIONS)
    assert (found.read.granularity, found.read.n_iter_video, found.read.n_iter_text) == ("COIN", 3, 1)
    videos = unit([file_of(classifier, media / f"{name}.mp4", 3, 3, (0.0, 0.48)) for name in ACTIONS])
    classes = unit([text_of(classifier, f"{name} in short", 1) for name in CLASSES])
    right = (videos @ classes.T).argmax(axis=1) == np.arange(len(ACTIONS)) % 3
    assert found.figures["top1_percent"] == pytest.approx(100 * right.mean())


def test_of_a_classifier_only_what_its_own_training_was_on_is_measured_unless_it_is_named(
    numbered_output, tiny_clip_folder, tmp_path
):
    """A granularity that its start knew has texts that are none of its classes."""
    classes = tuple(f"a picture of {number}" for number in range(18))
    model = Pretrained.from_pretrained(write_tiny_model(tmp_path / "model", tiny_clip_folder, classes))
    assert len(model.granularities) == 3
    model = replace(model, trained={"samples": {"IT": 18}})
    (found,) = evaluate_published(model, PublishedData(str(numbered_output)), Options())
    assert (found.data["granularity"], found.task, found.num_samples) == ("IT", "accuracy", 18)
