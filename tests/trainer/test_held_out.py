from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.media.making_clips import Make, make_clip
from tests.trainer.annotations.real_formats import written
from tests.trainer.outputs import IMAGE_PX, numbers_of
from tests.trainer.tiny_recipes import tiny_recipe, train_here
from trainer.build import build
from trainer.evaluate import Options
from trainer.evaluate_annotations import PublicData, evaluate_annotations
from trainer.evaluate_retrieval import retrieval_of_captions
from trainer.frames import read_frames
from trainer.held_out import evaluate_held_out
from trainer.history import held_out_of_annotations
from trainer.media_reader import MediaReader
from trainer.model import Embeddings
from trainer.pretrained import Pretrained
from trainer.processes import Processes
from trainer.run_data import open_data

ALONE = Processes(0, 1, torch.device("cpu"))
HALF = {"data": {"held_out_share": 0.5}, "optim": {"epochs": 1}}


@pytest.fixture(scope="module")
def trained(numbered_output, tmp_path_factory):
    """Recipe and outcome of a training that holds half of the sources out."""
    recipe = tiny_recipe(numbered_output, tmp_path_factory.mktemp("held_out") / "training", HALF)
    return recipe, train_here(recipe)[0]


def by_hand(recipe, model: Pretrained, name: str) -> dict[str, float]:
    """Figures of all held-out samples, one at a time, with plain sorts."""
    reading = recipe.data.granularities[name]
    videos, texts, media = [], [], MediaReader()
    with open_data(recipe.data) as data:
        for number in range(data.held_out.num_samples(name)):
            sample = data.held_out.sample(name, number)
            frames = torch.from_numpy(read_frames(sample, reading.num_frames, IMAGE_PX, media))[None]
            videos.append(model.encode_videos(frames, reading.n_iter_video)[0].numpy())
            texts.append(model.encode_texts([sample.text], reading.n_iter_text)[0].numpy())
        media.close()
    similarity = np.stack(texts) @ np.stack(videos).T
    figures = {"num_samples": float(len(videos)), "num_damaged": 0.0}
    for direction, rows in (("t2v", similarity), ("v2t", similarity.T)):
        ranks = np.array([list(np.argsort(-row)).index(number) + 1 for number, row in enumerate(rows)])
        figures |= {f"{direction}_r{k}_percent": float((ranks <= k).mean() * 100) for k in (1, 5, 10)}
        figures[f"{direction}_median_rank"] = float(np.median(ranks))
    return figures


@pytest.mark.parametrize("name", ["LVLT", "LVST", "IT"])
def test_figures_are_those_made_by_hand_from_the_exported_model(trained, name):
    recipe, outcome = trained
    expected = by_hand(recipe, Pretrained.from_pretrained(outcome.model), name)
    assert expected["num_samples"] >= 6
    found = {key.split("/")[1]: value for key, value in outcome.figures.items() if key.startswith(f"{name}/")}
    assert found == pytest.approx(expected)


def test_neither_the_size_of_batches_nor_the_way_there_changes_a_figure(trained):
    recipe, outcome = trained
    small = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"batch_size": 2})})
    with open_data(recipe.data) as data:
        built = build(recipe, data, ALONE)
        built.module.train()
        first, second = (evaluate_held_out(one, data, built, ALONE) for one in (small, recipe))
        assert first.keys() == outcome.figures.keys()
        assert second == pytest.approx(first)
        assert built.module.training


def test_what_is_measured_has_the_middle_frames_whatever_is_trained_on(trained):
    recipe, _ = trained
    random = recipe.model_copy(update={"data": recipe.data.model_copy(update={"frame_sampling": "random"})})
    with open_data(recipe.data) as data:
        built = build(recipe, data, ALONE)
        assert evaluate_held_out(random, data, built, ALONE) == evaluate_held_out(recipe, data, built, ALONE)


def test_at_most_so_many_samples_are_evaluated_always_the_same_ones(trained):
    recipe, _ = trained
    few = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"max_samples": 3})})
    with open_data(recipe.data) as data:
        built = build(recipe, data, ALONE)
        first, second = (evaluate_held_out(few, data, built, ALONE) for _ in range(2))
    assert first == second
    assert {value for key, value in first.items() if key.endswith("num_samples")} == {3.0}


def test_damaged_samples_are_left_out_and_counted(trained, tmp_path):
    recipe, _ = trained
    dataset = Path(shutil.copytree(recipe.data.dataset, tmp_path / "out"))
    moved = recipe.model_copy(update={"data": recipe.data.model_copy(update={"dataset": str(dataset)})})
    with open_data(moved.data) as data:
        num_samples = data.held_out.num_samples("IT")
        for number in (0, 2):
            sample = data.held_out.sample("IT", number)
            with Path(sample.media_uri).open("r+b") as tar:
                tar.seek(sample.media_offset_bytes)
                tar.write(bytes(sample.media_size_bytes))
        figures = evaluate_held_out(moved, data, build(moved, data, ALONE), ALONE)
    assert figures["IT/num_damaged"] == 2
    assert figures["IT/num_samples"] == num_samples - 2
    assert figures["LVLT/num_damaged"] == 0
    assert "IT/t2v_r1_percent" in figures


def test_nothing_held_out_gives_no_figures_and_one_sample_alone_none_either(trained, tmp_path):
    recipe, _ = trained
    whole = recipe.model_copy(update={"data": recipe.data.model_copy(update={"held_out_share": 0.0})})
    with open_data(whole.data) as data:
        assert evaluate_held_out(whole, data, build(whole, data, ALONE), ALONE) == {}


# Public data: videos with several captions


NUM_VIDEOS, NUM_CAPTIONS = 12, 4


@pytest.fixture(scope="module")
def captioned(tmp_path_factory) -> Path:
    """Videos v0 to v11, whose frames say which they are, with four captions each; two of them word for word."""
    folder = tmp_path_factory.mktemp("captioned")
    (folder / "videos").mkdir()
    sentences = []
    for number in range(NUM_VIDEOS):
        make_clip(folder / "videos" / f"v{number}.mp4", number, Make(num_frames=3, size_px=(96, 96)))
        texts = [f"clip {number} seen {how}" for how in ("first", "again", "again", "last")]
        sentences += [{"video_id": f"v{number}", "caption": text} for text in texts]
    written(folder / "captions.json", {"sentences": sentences})
    written(folder / "train.csv", "video_id\n" + "".join(f"v{number}\n" for number in range(NUM_VIDEOS)))
    return folder


def of_captions(folder: Path, output: Path, *changes):
    annotations = {
        "kind": "msrvtt",
        "file": str(folder / "train.csv"),
        "media": str(folder / "videos"),
        "captions": str(folder / "captions.json"),
    }
    data = {
        "dataset": None,
        "annotations": annotations,
        "granularities": {"MSRVTT": {"num_frames": 2, "n_iter_video": 1, "n_iter_text": 1}},
        "held_out_share": 0.5,
    }
    return tiny_recipe("unused", output, {"data": data, "optim": {"epochs": 1}}, *changes)


class Tokens(list):
    def to(self, device):
        return self


class Perfect(torch.nn.Module):
    """Knows which clip a frame is of, and which one a text is about."""

    def forward(self, video_BT3HW, texts, *, n_iter_video, n_iter_text):
        clips = [numbers_of(frames.numpy())[0][0] % NUM_VIDEOS for frames in video_BT3HW]
        told = [int(text.split()[1]) if text.startswith("clip") else 0 for text in texts]
        eye = torch.eye(NUM_VIDEOS)
        return Embeddings(eye[clips], eye[told], torch.ones(1))


def test_a_perfect_model_is_perfect_where_videos_have_several_captions(captioned, tmp_path):
    """Each pair of a video and a caption was a candidate of its own, so a video competed with itself."""
    three = {"data": {"batch_size": 4}, "evaluation": {"max_samples": 3, "batch_size": 2}}
    recipe = of_captions(captioned, tmp_path / "out", three)
    built = SimpleNamespace(module=Perfect(), tokenizer=Tokens, class_names=())
    with open_data(recipe.data) as data:
        figures = evaluate_held_out(recipe, data, built, ALONE)
    owners = np.repeat(np.arange(3), NUM_CAPTIONS)
    texts = [f"clip {owner} seen {how}" for owner in range(3) for how in ("first", "again", "again", "last")]
    expected = retrieval_of_captions(np.eye(3)[owners], np.eye(3), owners, texts)
    assert figures.pop("MSRVTT/num_samples") == 3
    assert figures.pop("MSRVTT/num_damaged") == 0
    assert figures == as_figures(expected.text_to_video, expected.video_to_text)
    assert (figures["MSRVTT/t2v_r1_percent"], figures["MSRVTT/v2t_r1_percent"]) == (100, 100)


def test_videos_in_spans_are_measured_whole_as_gex_eval_has_it(captioned, tmp_path):
    rows = "".join(f"{number % 3} class{number % 3} v{number} tt0\n" for number in range(NUM_VIDEOS))
    annotations = {
        "kind": "lvu",
        "file": str(written(tmp_path / "train.csv", "class_id class_name youtube_id imdb_id\n" + rows)),
        "media": str(captioned / "videos"),
        "captions": None,
        "span_s": 0.05,
    }
    changes = {"task": "classification", "data": {"annotations": annotations}}
    recipe = of_captions(captioned, tmp_path / "out", changes)
    outcome, _ = train_here(recipe)
    model = Pretrained.from_pretrained(outcome.model)
    split = held_out_of_annotations(model.trained, recipe.data.annotations)
    measured = evaluate_annotations(model, PublicData(recipe.data.annotations, held_out=split), Options())
    assert (measured.data["span_s"], measured.data["num_spans"]) == (0.05, 3 * measured.num_samples)
    assert outcome.figures["MSRVTT/num_samples"] == measured.num_samples >= 3
    assert outcome.figures["MSRVTT/top1_percent"] == pytest.approx(measured.figures["top1_percent"])
    # a model that was trained on spans was measured on whole videos where nothing was said
    silent = recipe.data.annotations.model_copy(update={"span_s": None})
    again = evaluate_annotations(model, PublicData(silent, held_out=split), Options())
    assert (again.data["span_s"], again.figures) == (0.05, measured.figures)
    longer = evaluate_annotations(model, PublicData(silent, span_s=1e6, held_out=split), Options())
    assert longer.data["num_spans"] == longer.num_samples == measured.num_samples


def test_captions_that_are_classes_are_measured_by_the_head(captioned, tmp_path):
    outcome, _ = train_here(of_captions(captioned, tmp_path / "out", {"task": "classification"}))
    num_videos, rest = divmod(outcome.figures["MSRVTT/num_samples"], NUM_CAPTIONS)
    assert (num_videos > 2, rest) == (True, 0)
    assert 0 <= outcome.figures["MSRVTT/top1_percent"] <= outcome.figures["MSRVTT/top5_percent"] <= 100


def as_figures(text_to_video, video_to_text) -> dict[str, float]:
    return {
        f"MSRVTT/{direction}_{name}": getattr(metrics, name)
        for direction, metrics in (("t2v", text_to_video), ("v2t", video_to_text))
        for name in ("r1_percent", "r5_percent", "r10_percent", "median_rank")
    }


@pytest.mark.parametrize("max_samples", [1000, 3])
def test_figures_of_captions_are_those_that_gex_eval_gives_of_the_same_videos(captioned, tmp_path, max_samples):
    """Also where a video cannot be read; and it is videos that are chosen, not captions."""
    folder = Path(shutil.copytree(captioned, tmp_path / "data"))
    recipe = of_captions(folder, tmp_path / "out", {"evaluation": {"max_samples": max_samples, "batch_size": 3}})
    with open_data(recipe.data) as data:
        held_out = sorted(
            {data.held_out.sample("MSRVTT", n).source_id for n in range(data.held_out.num_samples("MSRVTT"))}
        )
    if max_samples > len(held_out):
        (folder / "videos" / f"{held_out[0]}.mp4").write_bytes(b"nothing")
    outcome, _ = train_here(recipe)
    model = Pretrained.from_pretrained(outcome.model)
    split = held_out_of_annotations(model.trained, recipe.data.annotations)
    public = PublicData(recipe.data.annotations, held_out=split)
    measured = evaluate_annotations(model, public, Options(max_samples=max_samples))
    assert outcome.figures["MSRVTT/num_samples"] == measured.num_samples > 2
    assert outcome.figures["MSRVTT/num_damaged"] == len(measured.damaged)
    expected = {}
    for direction, figures in (("t2v", "text_to_video"), ("v2t", "video_to_text")):
        for name in ("r1_percent", "r5_percent", "r10_percent", "median_rank"):
            expected[f"MSRVTT/{direction}_{name}"] = measured.figures[figures][name]
    assert {name: outcome.figures[name] for name in expected} == pytest.approx(expected)
