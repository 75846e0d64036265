"""The benchmark of a training step asks the device for each granularity anew, and waits for it on both sides.

What it tells of the loader is that of a training that goes on; a count that is wrong ends it with 1.
"""

from __future__ import annotations

import math
from argparse import Namespace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from transformers import CLIPConfig

from benchmarks import training_step
from trainer.flops import image_tower_shape, text_tower_shape, tower_flops
from trainer.settings import TowerSettings
from trainer.tokens import load_tokenizer

ARGUMENTS = Namespace(
    small=True,
    batch_size=2,
    piece_size=None,
    workers=0,
    steps=2,
    rounds=2,
    warmup=1,
    precision="fp32",
    compile=False,
    activation_checkpointing=False,
    peak_flops_per_s=None,
)


def test_every_granularity_has_its_own_peak_and_no_clock_stops_before_the_device_is_done(tmp_path, monkeypatch):
    """The peak was that of the largest granularity so far; ours was timed without the work that was still queued."""
    asked: list[str] = []
    step = training_step.TrainingRun.step

    def noted_step(*arguments):
        asked.append("step")
        return step(*arguments)

    monkeypatch.setattr(training_step.TrainingRun, "step", noted_step)
    monkeypatch.setattr(training_step, "joined", partial(training_step.joined, use_gpu=False))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: asked.append("anew"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: asked.append("wait"))
    training_step.write_dataset(tmp_path / "data", 8, 64, 8)
    for name in ("SVST", "IT"):
        found = training_step.measure(tmp_path, ARGUMENTS, name)
        assert found["samples_per_s"] > 0
        assert not found["wrong"]
    # warming up, then in each round the plain steps and ours
    assert asked == ["anew", "wait", *["wait", "step", "step", "wait"] * 2] * 2


def test_batches_that_workers_read_ahead_are_not_timed(tmp_path):
    """With a loader of half the step's speed, two or three of six batches had been read while the plain steps ran."""
    recipe = training_step.recipe_of(tmp_path, Namespace(**{**vars(ARGUMENTS), "workers": 3}), "SVST")
    done: list[str] = []
    run = SimpleNamespace(
        recipe=recipe,
        next=lambda loader, log: next(loader),
        step=lambda step, upcoming, loader, log: done.append(f"step {step} on {upcoming}") or next(loader),
    )
    loader = iter(range(100))
    assert training_step.settle(run, loader, None, 10) == 13
    ahead = recipe.data.num_workers * recipe.data.prefetch_batches
    assert done == [f"step {10 + number} on {ahead + number}" for number in range(3)]
    alone = training_step.recipe_of(tmp_path, ARGUMENTS, "SVST")
    assert training_step.settle(SimpleNamespace(recipe=alone), iter(()), None, 5) == 5  # nobody reads ahead


def test_batches_that_are_not_those_of_the_steps_and_losses_that_are_not_finite_are_wrong(tmp_path):
    recipe = training_step.recipe_of(tmp_path, ARGUMENTS, "SVST")
    whole = [(7, "SVST", 2, 8, 3, 64, 64), (8, "SVST", 2, 8, 3, 64, 64)]
    assert training_step.wrong_batches(recipe, "SVST", whole) == []
    for wrong in ((9, *whole[0][1:]), (8, "IT", *whole[0][2:]), (8, "SVST", 1, *whole[0][3:]), ()):
        assert len(training_step.wrong_batches(recipe, "SVST", [whole[0], wrong])) == 1
    assert len(training_step.wrong_batches(recipe, "SVST", [(), whole[1]])) == 2
    good = {"loss/SVST": 1.0, "num_skipped_steps": 0, "num_damaged": 0}
    assert training_step.wrong_figures(good, "SVST") == []
    for change in ({"loss/SVST": math.nan}, {"num_skipped_steps": 1}, {"num_damaged": 3}):
        assert training_step.wrong_figures(good | change, "SVST")


@pytest.mark.parametrize(("wrong", "code"), [([], 0), (["a batch is ()"], 1)])
def test_what_is_wrong_ends_it_with_1(monkeypatch, capsys, wrong, code):
    monkeypatch.setattr(training_step, "measure", lambda folder, arguments, name: {"granularity": name, "wrong": wrong})
    monkeypatch.setattr(training_step, "write_dataset", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["training_step.py", "--small", "--granularity", "IT"])
    assert training_step.main() == code
    assert '"granularity": "IT"' in capsys.readouterr().out


def test_its_towers_are_those_of_vit_b_32(tmp_path):
    """The text tower was as wide as the image tower, and took 13.3 operations in place of 5.96."""
    training_step.write_clip(tmp_path)
    shape = CLIPConfig.from_pretrained(tmp_path)
    assert round(tower_flops(image_tower_shape(shape)) / 1e9, 3) == 8.818
    assert round(tower_flops(text_tower_shape(shape)) / 1e9, 3) == 5.960
    text = " ".join(["red", "circle"] * 22)  # as long as the longest that is written
    assert load_tokenizer(TowerSettings(clip=str(tmp_path)))([text]).ids_BWL.shape == (1, 1, 77)
