"""A training that is told to stop finishes its step first: signals in, one answer for all processes out."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self

from trainer.processes import Processes

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """While it is entered, the first SIGTERM or SIGINT is kept for `told`; a second one acts as it always does."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._here = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._keep) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def told(self) -> bool:
        """Whether any process was told to stop; all of them ask after every step."""
        return bool(self._processes.sum([float(self._here)])[0])

    def _keep(self, _number: int, _frame: FrameType | None) -> None:
        self._here = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
