from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainer.outputs import IMAGE_PX
from tests.trainer.tiny_recipes import tiny_recipe, train_here
from trainer.build import build
from trainer.frames import MediaReader, read_frames
from trainer.held_out import evaluate_held_out
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
