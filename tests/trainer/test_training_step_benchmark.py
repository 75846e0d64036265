"""The benchmark of a training step asks the device for each granularity anew, and waits for it on both sides."""

from __future__ import annotations

from argparse import Namespace
from functools import partial

import torch

from benchmarks import training_step

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
    # warming up, then in each round the plain steps and ours
    assert asked == ["anew", "wait", *["wait", "step", "step", "wait"] * 2] * 2
