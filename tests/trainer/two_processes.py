"""Whole trainings in two processes, one after the other; each leaves its output under its name.

Beside it each process leaves the step it began with and how much of every trained weight it holds at the end. A
training that cannot go on leaves what it says, by process. Every training has 6 steps over two granularities, or 3
over one, and figures of held-out samples at its end.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from gex_pipeline.errors import GexError
from tests.trainer.tiny_recipes import tiny_recipe
from trainer.parallel import Parallel
from trainer.processes import Processes, joined
from trainer.train import train
from trainer.train_recipe import TrainRecipe

NUM_PROCESSES = 2
BASE = {
    "data": {"held_out_share": 0.3, "granularities": {"LVST": {"num_frames": 2}, "IT": {}}},
    "optim": {"epochs": 1},
    "checkpoints": {"every_steps": 2, "keep": 9},
}
FSDP = {"parallel": {"strategy": "fsdp"}}
IMAGES = {"data": {"granularities": {"IT": {}}}}
WAYS: dict[str, tuple[Mapping[str, Any], ...]] = {
    "ddp": (),
    "fsdp": (FSDP,),
    "ddp in pieces": ({"parallel": {"piece_size": 1}},),
    "fsdp in pieces": (FSDP, {"parallel": {"piece_size": 1, "activation_checkpointing": True}}),
    "ddp images": (IMAGES,),
    "fsdp images": (FSDP, IMAGES),
    "fsdp averaged": (FSDP, {"optim": {"ema_decay": 0.75}}),
    "ddp resumed": (),
    "fsdp resumed": (FSDP,),
    "ddp again": (),
    "fsdp again": (FSDP,),
    "uneven": ({"data": {"batch_size": 3}},),
}
AGAIN = " again"
AGAIN_FROM = 2
"""The step to which a training that had come to its end is taken back, and goes on from."""


def settings_of(name: str) -> tuple[Mapping[str, Any], ...]:
    return (BASE, *WAYS[name])


def run_processes(dataset: Path, folder: Path, names: list[str], **environment: str) -> None:
    """Train in two processes, and wait for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(NUM_PROCESSES), **environment}
    torch.multiprocessing.spawn(_one_process, args=(str(dataset), str(folder), names, place), nprocs=NUM_PROCESSES)


def go_back(output: Path, step: int) -> None:
    """Leave a training as it was when it had come to this step."""
    shutil.rmtree(output / "model")
    for checkpoint in (output / "checkpoints").iterdir():
        if checkpoint.name > f"step-{step:09d}":
            shutil.rmtree(checkpoint)


def _one_process(rank: int, dataset: str, folder: str, names: list[str], place: dict[str, str]) -> None:
    torch.set_num_threads(1)
    os.environ.update(place, RANK=str(rank), LOCAL_RANK=str(rank))
    with joined() as processes:
        for name in names:
            if name.endswith(AGAIN) and processes.is_first:
                done = Path(folder, name.removesuffix(AGAIN))
                go_back(Path(shutil.copytree(done, Path(folder, name))), AGAIN_FROM)
            processes.wait()
            try:
                found = _train(tiny_recipe(dataset, Path(folder, name), *settings_of(name)), processes)
                Path(folder, f"{name} {rank}.json").write_text(json.dumps(found), encoding="utf-8")
            except GexError as error:
                Path(folder, f"{name} {rank}.txt").write_text(str(error), encoding="utf-8")
            processes.wait()


def _train(recipe: TrainRecipe, processes: Processes) -> dict[str, Any]:
    """Train; what a process leaves beside the output."""
    made: list[Parallel] = []

    def kept(*given: Any, **options: Any) -> Parallel:
        made.append(Parallel(*given, **options))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.train.Parallel", kept)
        outcome = train(recipe, processes)
    return {"first_step": outcome.first_step, "held": _held(made[-1].unwrapped)}


def _held(module: nn.Module) -> dict[str, tuple[int, int]]:
    """By name of a trained weight: its numbers that lie in this process, and all of them."""
    return {
        name: ((weight.to_local() if isinstance(weight, DTensor) else weight).numel(), weight.numel())
        for name, weight in module.named_parameters()
        if weight.requires_grad
    }
