"""A training that is told to stop finishes its step first: signals in, one answer for all processes out."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any, Self

from trainer.processes import Processes

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_ONE_WORD_S = 1.0
"""A signal that comes again so soon is the same one: GNU timeout sends it to its child and to the group that the child
is in, and under systemd or Slurm a process gets it from these and from torchrun."""
EXIT_CODES = {"": 0, signal.SIGTERM.name: 75, signal.SIGINT.name: 130}
"""Of a training that was told to stop by this signal; 75 is EX_TEMPFAIL of sysexits.h."""


class StopSignals:
    """While it is entered, the first SIGTERM or SIGINT is kept; a later one acts as it always does.

    In another thread than the main one no signal can be kept, and none is.
    """

    def __init__(self) -> None:
        self.received = ""
        """The name of the signal that was kept."""
        self._received_s = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            # none stands for a handler that is not Python's
            self._before = {number: signal.signal(number, self._keep) or signal.SIG_DFL for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _keep(self, number: int, _frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if not self.received:
            self.received, self._received_s = signal.Signals(number).name, now_s
        elif now_s - self._received_s >= _ONE_WORD_S:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def told_to_stop(processes: Processes, here: str) -> str:
    """The name of the signal with which any process was told to stop, or empty; all of them ask after every step."""
    names = [name for name in EXIT_CODES if name]
    counts = processes.sum([float(here == name) for name in names])
    return next((name for name, count in zip(names, counts, strict=True) if count), "")
