"""How far a run is, told to whoever listens: stage, done, total, rate, time left.

The stages report to the current `Progress`; the command line installs one that draws, the flow one
that only logs. Nothing of a run's data passes through here.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

# Letters that do something to a terminal or to those beside them: control characters but for tabs and ends of lines,
# what turns the direction of writing or hides, and halves of letters, which cannot be written.
ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """The same text, with what acts on a terminal shown as a replacement; names and messages come from anywhere."""
    return ACTING.sub("\ufffd", text)


class Progress:
    """Silent: the base, and the default in tests and libraries."""

    def stage(self, name: str, total: int | None, unit: str) -> None:
        """A stage begins; `total` is how many of `unit` it has to do, None when unknown."""

    def advance(self, amount: int) -> None:
        """So many more are done."""

    def note(self, text: str) -> None:
        """Something a person wants to know."""


class LineProgress(Progress):
    """One line a stage on a stream; on a terminal the line is redrawn, elsewhere repeated every few seconds."""

    def __init__(self, out: TextIO | None = None, every_s: float = 10.0) -> None:
        self._out = out or sys.stderr
        self._live = self._out.isatty()
        self._every_s = 0.2 if self._live else every_s
        self._name, self._unit, self._done = "", "", 0
        self._total: int | None = None
        self._started = self._shown = 0.0

    def stage(self, name: str, total: int | None, unit: str) -> None:
        """End the line before and begin a new one."""
        self.close()
        self._name, self._unit, self._total, self._done = name, unit, total, 0
        self._started = self._shown = time.monotonic()
        if self._live:
            self._draw()

    def advance(self, amount: int) -> None:
        """Count, and redraw when it is time."""
        self._done += amount
        if time.monotonic() - self._shown >= self._every_s:
            self._draw()

    def note(self, text: str) -> None:
        """Print a line of its own."""
        if self._live and self._name:
            self._out.write("\r\x1b[K")
        self._out.write(f"{printable(text)}\n")
        self._out.flush()

    def close(self) -> None:
        """End the current line with what the stage did and took."""
        if not self._name:
            return
        seconds = time.monotonic() - self._started
        unit = self._unit.removesuffix("s") if self._done == 1 else self._unit
        count = f"{self._done} {unit} in " if unit else ""
        self._out.write(f"{self._lead()}{self._name:<24} {count}{_duration(seconds)}\n")
        self._out.flush()
        self._name = ""

    def _lead(self) -> str:
        return "\r\x1b[K" if self._live else ""

    def _draw(self) -> None:
        self._shown = time.monotonic()
        seconds = max(self._shown - self._started, 1e-6)
        rate = self._done / seconds
        parts = [f"{self._done}" + (f" of {self._total}" if self._total else "") + f" {self._unit}"]
        if self._done:
            parts.append(f"{rate:.1f}/s")
        if self._total and self._done:
            parts.append(f"{_duration((self._total - self._done) / rate)} left")
        end = "" if self._live else "\n"
        self._out.write(f"{self._lead()}{self._name:<24} {', '.join(parts)}{end}")
        self._out.flush()


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


_CURRENT: ContextVar[Progress | None] = ContextVar("progress", default=None)


def progress() -> Progress:
    """The progress of the run this code is part of."""
    return _CURRENT.get() or Progress()


@contextmanager
def shown_by(listener: Progress) -> Iterator[None]:
    """Report to `listener` inside the block."""
    token = _CURRENT.set(listener)
    try:
        yield
    finally:
        _CURRENT.reset(token)
        if isinstance(listener, LineProgress):
            listener.close()
