"""Figures of a training: numbers of a step in; lines on the console, JSON Lines, and TensorBoard where asked for.

Without its JSON Lines a training does not go on; a sink that is `Beside` them may fail.

One object a line, flushed at once, in the order of steps. A training that goes on from a step cuts off what was
written of that step and later ones, so no step is there twice. What is not a finite number is ``null`` in JSON.
Rank 0 records; its waiting time is its own. Chooses no figures and computes none but rates.
"""

from __future__ import annotations

import json
import math
import resource
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from gex_pipeline.errors import GexError, MissingExtraError
from gex_pipeline.storage_failures import explained, one_line

Figure = float | int | str | bool | list[dict[str, str]] | None
"""Numbers and words; samples that are named, a mapping each."""

WANDB_RUN = "wandb-run"
"""File beside the figures that names the run at Weights & Biases."""


class Sink(Protocol):
    """Where figures go."""

    def write(self, step: int, figures: Mapping[str, Figure]) -> None:
        """Take the figures of a step."""

    def close(self) -> None:
        """Finish."""


class Record:
    """All sinks of a training, every so many steps."""

    def __init__(self, sinks: Sequence[Sink], *, every_steps: int = 1, keep: Callable[[], None] = lambda: None) -> None:
        """`keep` brings what was written so far to where the death of this process does not reach it."""
        if every_steps < 1:
            raise ValueError(f"every_steps is {every_steps}; expected 1 or more")
        self._sinks, self._every_steps = list(sinks), every_steps
        self.keep = keep

    def due(self, step: int) -> bool:
        """Whether a step (from 0) is one to write."""
        return (step + 1) % self._every_steps == 0

    def write(self, step: int, figures: Mapping[str, Figure]) -> None:
        """Give the figures of a step to every sink."""
        for sink in self._sinks:
            sink.write(step, figures)

    def close(self) -> None:
        """Finish every sink, also after one that cannot."""
        with ExitStack() as stack:
            for sink in self._sinks:
                stack.callback(sink.close)


class Beside:
    """A sink that training can do without: when it fails that is said once, and it gets no more."""

    def __init__(self, name: str, sink: Sink, say: Callable[[str], None]) -> None:
        """`name` is what a person calls it."""
        self._name, self._say = name, say
        self._sink: Sink | None = sink

    def write(self, step: int, figures: Mapping[str, Figure]) -> None:
        """Give it the figures of a step."""
        self._try(lambda sink: sink.write(step, figures))

    def close(self) -> None:
        """Finish it."""
        self._try(lambda sink: sink.close())

    def _try(self, use: Callable[[Sink], None]) -> None:
        if self._sink is None:
            return
        try:
            use(self._sink)
        except Exception as error:  # noqa: BLE001 - libraries of others, and none of what they raise ends a training
            self._sink = None
            self._say(f"warning: {self._name} gets no more figures: {type(error).__name__}: {one_line(error)}")


class JsonLines:
    """A local file of one object a line."""

    def __init__(self, file: Path, *, next_step: int = 0) -> None:
        """`next_step` is the first that will be written; lines of it and later ones are cut off.

        Raises:
            GexError: the file holds a line that is not a training's, or cannot be written.
        """
        self._file = file
        with explained(str(file)):
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.exists():
                _cut(file, next_step)
            # without a buffer: closing the file would try once more to write what it did not take
            self._out = file.open("ab", buffering=0)

    def write(self, step: int, figures: Mapping[str, Figure]) -> None:
        """Add a line.

        Raises:
            GexError: it cannot be written; what was written of it is cut off when the training goes on.
        """
        finite = {name: None if _is_not_finite(value) else value for name, value in figures.items()}
        line = json.dumps({"step": step, **finite}, allow_nan=False).encode() + b"\n"
        with explained(str(self._file)):
            while line:
                line = line[self._out.write(line) :]

    def close(self) -> None:
        """Close the file."""
        self._out.close()


class Lines:
    """A line a step for a person."""

    def __init__(self, say: Callable[[str], None], form: Callable[[int, Mapping[str, Figure]], str]) -> None:
        """`form` makes the line of a step."""
        self._say, self._form = say, form

    def write(self, step: int, figures: Mapping[str, Figure]) -> None:
        """Say a line."""
        self._say(self._form(step, figures))

    def close(self) -> None:
        """Nothing to finish."""


class TensorBoard:
    """TensorBoard's event files; those of later steps, from before a training went on, are hidden."""

    def __init__(self, folder: Path, *, next_step: int = 0) -> None:
        """Numbers are written, words are not.

        Raises:
            MissingExtraError: tensorboard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("tensorboard", "tensorboard") from error
        self._writer: Any = SummaryWriter(str(folder), purge_step=next_step or None)

    def write(self, step: int, figures: Mapping[str, Figure]) -> None:
        """Write a point a number."""
        for name, value in figures.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class WeightsAndBiases:
    """A run at Weights & Biases, or in its files on this machine with ``WANDB_MODE=offline``.

    The key is wandb's own affair: it reads it from the environment or its login. A training that goes on continues
    the run that its output names.
    """

    def __init__(self, folder: Path, project: str, name: str, recipe: Mapping[str, Any]) -> None:
        """`folder` is where its files lie.

        Raises:
            MissingExtraError: wandb is not installed; GexError: it refuses.
        """
        try:
            import wandb
        except ImportError as error:
            raise MissingExtraError("wandb", "wandb") from error
        marker = folder / WANDB_RUN
        run_id = marker.read_text(encoding="utf-8").strip() if marker.exists() else secrets.token_hex(8)
        settings = wandb.Settings(console="off", silent=True)
        try:
            self._run: Any = wandb.init(
                project=project,
                name=name,
                id=run_id,
                resume="allow",
                dir=folder,
                config=dict(recipe),
                settings=settings,
            )
        except (wandb.errors.Error, OSError) as error:
            raise GexError(
                f"Weights & Biases refuses: {error}; set WANDB_MODE=offline to write its files here"
            ) from error
        with explained(str(marker)):
            marker.write_text(run_id + "\n", encoding="utf-8")

    def write(self, step: int, figures: Mapping[str, Figure]) -> None:
        """Log the figures of a step; those of one step may come in several parts."""
        self._run.log(
            {name: value for name, value in figures.items() if isinstance(value, float | int | str)}, step=step
        )

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class Rates:
    """Speed since the last figures: counts of all ranks and times of this one in; rates out."""

    def __init__(
        self, *, num_devices: int = 1, peak_flops_per_s: float | None = None, clock: Callable[[], float] | None = None
    ) -> None:
        """`peak_flops_per_s` of one device; none: no utilisation is told.

        Raises:
            ValueError: the peak is not positive.
        """
        if peak_flops_per_s is not None and peak_flops_per_s <= 0:
            raise ValueError(f"peak is {peak_flops_per_s} FLOP/s; expected a positive number")
        self._num_devices, self._peak = num_devices, peak_flops_per_s
        self._clock = clock or time.perf_counter
        self._start_anew()

    def count(self, *, num_samples: int = 0, num_frames: int = 0, flops: float = 0.0) -> None:
        """Add samples and frames of all ranks, and the operations that their training needs."""
        self._num_samples += num_samples
        self._num_frames += num_frames
        self._flops += flops

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what waits for data."""
        begin = self._clock()
        try:
            yield
        finally:
            self._wait_s += self._clock() - begin

    @contextmanager
    def excluded(self) -> Iterator[None]:
        """Around what is not training: evaluation, a checkpoint."""
        begin = self._clock()
        try:
            yield
        finally:
            self._start_s += self._clock() - begin

    def figures(self) -> dict[str, float]:
        """Rates since the last call; a utilisation stands beside the peak that it is a share of."""
        duration_s = max(self._clock() - self._start_s, 1e-9)
        found = {
            "samples_per_s": self._num_samples / duration_s,
            "frames_per_s": self._num_frames / duration_s,
            "data_wait_share": self._wait_s / duration_s,
        }
        if self._peak is not None:
            found["mfu"] = self._flops / (duration_s * self._num_devices * self._peak)
            found["mfu_peak_flops_per_s"] = self._peak
        self._start_anew()
        return found

    def _start_anew(self) -> None:
        self._start_s = self._clock()
        self._num_samples = self._num_frames = 0
        self._flops = self._wait_s = 0.0


def peak_memory(device: Any = None) -> dict[str, int]:
    """Most bytes that this process held so far: of the host, and of the CUDA device (a ``torch.device``) it uses."""
    unit = 1 if sys.platform == "darwin" else 1024
    found = {"peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device is not None and device.type == "cuda":
        import torch

        found["peak_device_bytes"] = int(torch.cuda.max_memory_allocated(device))
    return found


def _cut(file: Path, next_step: int) -> None:
    kept_bytes = 0
    with file.open("rb+") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n") or _step_of(line, number, file) >= next_step:
                break
            kept_bytes += len(line)
        lines.truncate(kept_bytes)


def _step_of(line: bytes, number: int, file: Path) -> int:
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        step = None
    if not isinstance(step, int):
        raise GexError(f"line {number} of {file} is not a step of a training; move the file away")
    return step


def _is_not_finite(value: Figure) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
