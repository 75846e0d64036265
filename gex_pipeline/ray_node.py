"""Watches the node of a private Ray: when its raylet dies, this process ends with one sentence and the code for "now".

Ray itself ends a process whose raylet is gone, with code 1, without a word for a person and past Python's clean-up.
A raylet that dies of the signal by which all processes are told to stop is no fault: the command has the time to end
in order. Linux only; elsewhere Ray's way is what there is. A cluster's raylet is nobody's child here and is not
watched. While Ray starts, signals are kept from its handler. Does not import ray.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gex_pipeline import stopping

_LOOK_S = 0.25
_SAME_WORD_S = 1.0  # until a signal that came to all processes has come to this one's main thread too
_IN_ORDER_S = 30.0  # without its node an end takes longer: Ray asks in vain, and is waited for
_WORDS = (
    "\ngex: the Ray node of this run has died; something ended its raylet, say a lack of memory. "
    "Finished shards stay. Run the same command again to go on\n"
)


@contextmanager
def watched() -> Iterator[None]:
    """Watch from before Ray is started until before it is shut down."""
    over = threading.Event()
    if hasattr(os, "pidfd_open"):
        watching = (over, stopping.listening())
        threading.Thread(target=_watch, args=watching, name="gex-ray-node", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(over: threading.Event, told: stopping.Told | None) -> None:
    while not over.wait(_LOOK_S):
        for pid in _children("self"):
            if _name(pid) == "raylet":
                workers = _wait_for(pid, over)
                if not over.is_set():
                    _end(over, told, workers)
                return


def _wait_for(raylet: int, over: threading.Event) -> list[int]:
    """Until it has died or the watch is over; its children at last."""
    try:
        handle = os.pidfd_open(raylet)
    except ProcessLookupError:
        return []
    except OSError:  # a kernel or a sandbox without such handles
        over.wait()
        return []
    try:
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        workers: list[int] = []
        while not over.is_set() and not ended.poll(1000 * _LOOK_S):
            workers = _children(raylet)
        return workers
    finally:
        os.close(handle)


def _end(over: threading.Event, told: stopping.Told | None, workers: list[int]) -> None:
    # Ray's workers and agents would notice for themselves, after a second or a minute.
    _kill(workers, signal.SIGKILL)
    if told is not None:
        until_s = time.monotonic() + _SAME_WORD_S
        while told.by is None and time.monotonic() < until_s:
            if over.wait(_LOOK_S):
                return
        if told.by is not None and over.wait(_IN_ORDER_S):
            return
    if over.is_set():
        return
    _kill(_children("self"), signal.SIGTERM)
    if told is not None and told.by is not None:
        told.end_at_once()
    os.write(2, _WORDS.encode())
    os._exit(stopping.TRY_AGAIN)


def _kill(pids: list[int], how: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, how)


def _children(process: int | str) -> list[int]:
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(pid) for pid in task.read_text(encoding="ascii").split()]
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


@contextmanager
def sigterm_kept(ray_utils: Any) -> Iterator[None]:
    """Leave signals to the command that listens to them: what Ray puts in for SIGTERM ends the process where it stands.

    `ray_utils` is Ray's private module by which it puts its handler in; there is no public way to tell it not to.
    """
    told = stopping.listening()
    if told is None:
        yield
        return
    theirs, ray_utils.set_sigterm_handler = ray_utils.set_sigterm_handler, lambda _handler: None
    try:
        with told.held_back():
            yield
    finally:
        ray_utils.set_sigterm_handler = theirs
