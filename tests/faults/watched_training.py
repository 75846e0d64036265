"""Trainings in processes of their own that write down what they read, and stop themselves where a test disturbs them.

Their steps take a few milliseconds each: a test that waited for a step to be done would come too late on a machine
that is busy, so the process sends itself SIGSTOP, and goes on when the test has done what it does (`let_go`).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.trainer.tiny_recipes import ROOT, log_of
from tests.waiting import state_of, wait_for
from trainer import train
from trainer.loader import Loader
from trainer.record import JsonLines


def start(
    recipe: Path, notes: str = "notes", *, pause_after: int | None = None, **environment: str
) -> subprocess.Popen[str]:
    """One process of a training, in a session of its own.

    Args:
        recipe: what is trained.
        notes: the file beside it where every process writes what it reads, but for the rank at its end.
        pause_after: the step whose figures are the last that the first process writes before it stops itself, once.
    """
    return popen([sys.executable, "-m", __name__, str(recipe)], recipe, notes, pause_after, **environment)


def start_two(
    recipe: Path, notes: str = "notes", *, pause_after: int | None = None, **environment: str
) -> list[subprocess.Popen[str]]:
    """Both processes of a training, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank), **place} for rank in range(2)]
    return [start(recipe, notes, pause_after=pause_after, **rank, **environment) for rank in ranks]


def start_torchrun(
    recipe: Path, *options: str, pause_after: int | None = None, **environment: str
) -> subprocess.Popen[str]:
    """Torchrun with two processes of a training."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *options]
    return popen([*command, "-m", __name__, str(recipe)], recipe, "notes", pause_after, **environment)


def popen(
    command: list[str], recipe: Path, notes: str, pause_after: int | None, **environment: str
) -> subprocess.Popen[str]:
    pausing = {} if pause_after is None else {"PAUSE_AFTER": str(pause_after)}
    watching = {"NOTES": str(recipe.parent / notes), "PAUSED": str(recipe.parent / "paused"), **pausing}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **watching, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def paused(recipe: Path, process: subprocess.Popen[str]) -> int:
    """Wait until the first process of a training has stopped itself; its number."""
    number = wait_for(lambda: paused_by(recipe.parent / "paused") or process.poll() is not None, 120)
    assert process.poll() is None, process.stderr.read()
    return number


def paused_by(note: Path) -> int | None:
    """The process that has stopped itself."""
    number = int(note.read_text() or 0) if note.exists() else 0
    return number if state_of(number) == "T" else None


def let_go(pid: int) -> None:
    """Let a process that has stopped itself go on."""
    os.kill(pid, signal.SIGCONT)


def after_step(output: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Wait until an endless training has left the figures of this step."""
    wait_for(lambda: any(line["step"] >= step for line in log_of(output)) or process.poll() is not None, 120)
    assert process.poll() is None, process.stderr.read()


def end(*processes: subprocess.Popen[str], code: int = 0) -> list[str]:
    """What each of them said, after all ended with this code."""
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), said
    return said


def checkpoint_steps(output: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (output / "checkpoints").glob("step-*"))


def pause_after(step: int, note: Path) -> None:
    """From now on this process stops itself once the figures of the step are written, unless one did so before."""
    write = JsonLines.write

    def write_and_wait(self, number, figures):
        write(self, number, figures)
        if number == step and not note.exists():
            note.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)

    JsonLines.write = write_and_wait


def pausing(one_process: Callable[[dict[str, Any]], None], step: int, note: Path) -> Callable[[dict[str, Any]], None]:
    """What Ray Train is to run in every process, with such a pause."""

    def run(config: dict[str, Any]) -> None:
        pause_after(step, note)
        one_process(config)

    return run


def note_batches(file: Path) -> None:
    """From now on this process writes down what it reads, batch by batch."""
    read = Loader.__next__

    def read_and_note(self):
        batch = read(self)
        with file.open("a", encoding="utf-8") as notes:
            notes.write(json.dumps([batch.step, batch.granularity, batch.keys]) + "\n")
        return batch

    Loader.__next__ = read_and_note


if __name__ == "__main__":
    note_batches(Path(os.environ["NOTES"] + os.environ.get("RANK", "0")))
    if "PAUSE_AFTER" in os.environ:
        pause_after(int(os.environ["PAUSE_AFTER"]), Path(os.environ["PAUSED"]))
    train.main(sys.argv[1:])
