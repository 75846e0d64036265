"""SIGTERM to a ``gex`` command: it ends as Ctrl-C ends it, in order and with nothing left behind, and is told apart.

Ray answers SIGTERM with an exit in the middle of whatever runs, and Prefect with an exception that Ray's own waiting
swallows; both know what to do with KeyboardInterrupt. Trainings and servers handle signals themselves.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Told:
    """Whether SIGTERM came."""

    def __init__(self) -> None:
        self.to_stop = False
        self._is_held = False

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """The signal's handler.

        Raises:
            KeyboardInterrupt: at once, unless it is held back.
        """
        self.to_stop = True
        if not self._is_held:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Make this handler the one in force, whoever put in another, and look whether the signal has come already.

        An exception that is raised in a callback or a finaliser is swallowed: then the next look stops the work.

        Raises:
            KeyboardInterrupt: it has.
        """
        signal.signal(signal.SIGTERM, self.handle)
        if self.to_stop:
            raise KeyboardInterrupt

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Inside the block the signal waits; after it this handler is the one in force, whoever put in another.

        An exception among the forks of a library that starts processes is swallowed, with locks still taken.

        Raises:
            KeyboardInterrupt: the signal came meanwhile.
        """
        self._is_held = True
        signal.signal(signal.SIGTERM, self.handle)
        try:
            yield
        finally:
            self._is_held = False
            signal.signal(signal.SIGTERM, self.handle)
        self.check()


_listening: list[Told] = []


@contextmanager
def sigterm_as_interrupt() -> Iterator[Told]:
    """Take SIGTERM as Ctrl-C inside the block; in the main thread only, elsewhere nobody listens."""
    told = Told()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    before = signal.signal(signal.SIGTERM, told.handle)
    _listening.append(told)
    try:
        yield told
    finally:
        _listening.pop()
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def listening() -> Told | None:
    """Who listens to SIGTERM in this thread; none outside of a command."""
    is_main = threading.current_thread() is threading.main_thread()
    return _listening[-1] if _listening and is_main else None
