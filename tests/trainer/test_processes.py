"""Two processes learn what one learns, whichever way they share the model, and take up each other's checkpoints.

Weights are in 32 bits: a sum over processes rounds in another order than one over a whole batch, and Adam makes steps
of the learning rate of whatever is left of a gradient that is nearly nothing. So rounding grows by a factor of some
tens a step at worst; CLOSE was chosen five times above what is seen (2e-6). A missing or doubled share of a gradient
is 1e-3 away.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.tiny_recipes import (
    ROOT,
    checkpoint_of,
    largest_difference,
    log_of,
    steps_of,
    tiny_recipe,
    train_here,
    weights_of,
)
from tests.trainer.two_processes import AGAIN_FROM, FSDP, NUM_PROCESSES, WAYS, go_back, run_processes, settings_of

CLOSE = 1e-5
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def alone(numbered_output, tmp_path_factory):
    """The outputs of trainings in one process, by what they train on."""
    folder = tmp_path_factory.mktemp("alone")
    for name in ("ddp", "ddp images", "fsdp averaged"):
        train_here(tiny_recipe(numbered_output, folder / name, *settings_of(name)))
    return {"all": folder / "ddp", "images": folder / "ddp images", "averaged": folder / "fsdp averaged"}


@pytest.fixture(scope="module")
def together(numbered_output, alone, tmp_path_factory):
    """The folder with the outputs of all ways in two processes; two of them go on from a checkpoint of one process."""
    folder = tmp_path_factory.mktemp("together")
    for name in ("ddp resumed", "fsdp resumed"):
        go_back(Path(shutil.copytree(alone["all"], folder / name)), 4)
    run_processes(numbered_output, folder, list(WAYS))
    return folder


@pytest.mark.parametrize("name", [name for name in WAYS if name != "uneven"])
def test_two_processes_give_the_weights_of_one(together, alone, name):
    expected = alone[name.split()[-1] if name.split()[-1] in alone else "all"]
    assert largest_difference(weights_of(together / name), weights_of(expected)) < CLOSE
    assert [line["step"] for line in steps_of(together / name)] == [line["step"] for line in steps_of(expected)]


def left_by(folder: Path, name: str) -> list[dict[str, Any]]:
    """What each process left of a training."""
    return [json.loads((folder / f"{name} {rank}.json").read_text()) for rank in range(NUM_PROCESSES)]


@pytest.mark.parametrize("name", [name for name in WAYS if name != "uneven"])
def test_with_fsdp_each_process_holds_its_half_of_every_weight_and_with_ddp_all_of_them(together, name):
    """Weights alone do not tell: both ways learn the same."""
    first, second = (left["held"] for left in left_by(together, name))
    assert first.keys() == second.keys()
    whole = {weight: all_of_it for weight, (_, all_of_it) in first.items()}
    if FSDP not in WAYS[name]:
        assert first == second == {weight: [size, size] for weight, size in whole.items()}
        return
    assert {weight: first[weight][0] + second[weight][0] for weight in whole} == whole
    for held in (first, second):
        assert sum(own for own, _ in held.values()) == pytest.approx(sum(whole.values()) / 2, rel=0.1)


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_two_processes_that_go_on_from_their_own_checkpoint_are_equal_to_the_bit(together, way):
    assert [left["first_step"] for left in left_by(together, f"{way} again")] == [AGAIN_FROM] * NUM_PROCESSES
    assert largest_difference(weights_of(together / f"{way} again"), weights_of(together / way)) == 0


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_losses_rates_and_held_out_figures_are_those_of_one_process(together, alone, name):
    for ours, theirs in zip(log_of(together / name), log_of(alone["all"]), strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            if key.startswith(("loss/", "learning_rate/", "held_out/", "truncated_share/", "without_", "grad_norm")):
                assert ours[key] == pytest.approx(value, rel=1e-4), key


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_one_process_goes_on_from_the_checkpoint_of_two(together, alone, numbered_output, tmp_path, name):
    output = Path(shutil.copytree(together / name, tmp_path / "training"))
    go_back(output, 2)
    outcome, _ = train_here(tiny_recipe(numbered_output, output, *settings_of("ddp")))
    assert (outcome.first_step, outcome.num_steps) == (2, 6)
    assert largest_difference(weights_of(output), weights_of(alone["all"])) < CLOSE


def test_a_block_that_no_image_needs_stays_as_it_was(together):
    for name in ("ddp images", "fsdp images"):
        start, end = checkpoint_of(together / name, 2), weights_of(together / name)
        shared = [name for name in end if name.startswith("video_iam.shared")]
        assert shared
        assert all((end[one] == start[one]).all() for one in shared)


def test_a_batch_that_cannot_be_divided_is_refused_by_every_process_in_one_sentence(together):
    for rank in range(2):
        said = (together / f"uneven {rank}.txt").read_text()
        assert said.startswith("the batch size 3 cannot be divided among 2 ranks; set batch_size to 2 or 4")
    assert not (together / "uneven" / "model").exists()


WAITING = "from trainer.processes import joined\nwith joined() as processes:\n    processes.wait()"
# NCCL's groups are destroyed when all are there to do it, at Python's own end too; here all of that never comes
ALONE = """
import atexit, threading
import torch.distributed
from trainer.train import main
never = threading.Event().wait
torch.distributed.destroy_process_group = never
atexit.register(never)
main(["missing.toml"])
"""


def run_two(*programs: str) -> list[tuple[int, str]]:
    """Two processes of one training: how each ended, and what it said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "RANK": str(rank), "LOCAL_RANK": str(rank), **place},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, program in enumerate(programs)
    ]
    try:
        said = [process.communicate(timeout=120)[1] for process in reversed(running)]
    finally:
        for process in running:
            process.kill()
    return [(process.returncode, words) for process, words in zip(running, reversed(said), strict=True)]


def test_an_error_of_one_process_is_told_and_ends_it_though_the_others_wait_for_it():
    """It had waited for them first, and they for it; nothing was printed."""
    (waiting, _), (code, said) = run_two(WAITING, ALONE)
    assert code == 1
    assert said.startswith("process 1: ")
    assert "missing.toml" in said
    assert len(said.splitlines()) == 1
    assert waiting != 0  # it lost the other one


def test_processes_that_end_well_leave_no_group_behind():
    after = "\nimport torch\nassert not torch.distributed.is_initialized()"
    assert run_two(WAITING + after, WAITING + after) == [(0, ""), (0, "")]
