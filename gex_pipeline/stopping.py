"""Signals that end a ``gex`` command: each ends it as Ctrl-C does, in order and with nothing left behind; told apart.

Ray answers SIGTERM with an exit in the middle of whatever runs, and Prefect with an exception that Ray's own waiting
swallows; both know what to do with KeyboardInterrupt. A signal may come several times, from a terminal, GNU timeout or
an impatient person, and a second KeyboardInterrupt would break the clean-up that the first began: what comes soon after
the first is the same word, what comes later ends the process where it stands. Trainings and servers handle signals
themselves.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h
PATIENCE_S = 10.0
"""So long an end in order may take before another signal ends the process at once."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_MAY_BE_IGNORED = (signal.SIGINT, signal.SIGHUP)
"""A command in the background of a script is started so, and one under nohup; it shall outlive them."""


class Told:
    """Which signal came, if any."""

    def __init__(self) -> None:
        self.by: signal.Signals | None = None
        self._came_s = 0.0
        self._is_held = False
        self._before: dict[signal.Signals, Any] = {}

    @property
    def to_stop(self) -> bool:
        """Whether one came, and another one than the keyboard's."""
        return self.by not in (None, signal.SIGINT)

    @property
    def words(self) -> str:
        """What a command that was told says at its end."""
        what = f"told to stop by {self.by.name}" if self.by is not None and self.to_stop else "stopped"
        return f"{what}; run the same command again to go on"

    @property
    def code(self) -> int:
        """What a command that was told ends with."""
        return TRY_AGAIN if self.to_stop else 130

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """The signals' handler.

        Raises:
            KeyboardInterrupt: at the first signal, unless it is held back.
        """
        if self.by is None:
            self.by, self._came_s = signal.Signals(number), time.monotonic()
            if not self._is_held:
                raise KeyboardInterrupt
        elif time.monotonic() - self._came_s >= PATIENCE_S:
            self.end_at_once()

    def end_at_once(self) -> None:
        """End the process where it stands, with the words and the code of one that ended in order."""
        os.write(2, f"\ngex: {self.words}\n".encode())
        os._exit(self.code)

    def listen(self) -> None:
        """Put the handler in for the signals that are not ignored, for the time until `leave`."""
        self._before = {
            number: signal.getsignal(number) or signal.SIG_DFL  # none stands for a handler that is not Python's
            for number in _SIGNALS
            if number not in _MAY_BE_IGNORED or signal.getsignal(number) is not signal.SIG_IGN
        }
        self._put_in()

    def leave(self) -> None:
        """Put back what was there before; not where a signal came, since the process has yet to end in order."""
        if self.by is None:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Make this handler the one in force, whoever put in another, and look whether a signal has come already.

        An exception that is raised in a callback or a finaliser is swallowed: then the next look stops the work.

        Raises:
            KeyboardInterrupt: it has.
        """
        self._put_in()
        if self.by is not None:
            raise KeyboardInterrupt

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Inside the block the signals wait; after it this handler is the one in force, whoever put in another.

        An exception among the forks of a library that starts processes is swallowed, with locks still taken.

        Raises:
            KeyboardInterrupt: a signal came meanwhile, whatever else came of it.
        """
        self._is_held = True
        self._put_in()
        try:
            yield
        finally:
            self._is_held = False
            self.check()

    def _put_in(self) -> None:
        for number in self._before:
            signal.signal(number, self.handle)


_listening: list[Told] = []


@contextmanager
def sigterm_as_interrupt() -> Iterator[Told]:
    """Take SIGTERM and SIGHUP as Ctrl-C inside the block; in the main thread only, elsewhere nobody listens.

    After a signal it is taken as before the end of the block: what is left to do is to end the process.
    """
    told = Told()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    told.listen()
    _listening.append(told)
    try:
        yield told
    finally:
        _listening.pop()
        told.leave()


def listening() -> Told | None:
    """Who listens to signals in this thread; none outside of a command."""
    is_main = threading.current_thread() is threading.main_thread()
    return _listening[-1] if _listening and is_main else None
