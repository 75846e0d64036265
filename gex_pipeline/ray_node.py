"""Watches the node of a private Ray: when its raylet dies, this process ends with one sentence and the code for "now".

Ray itself ends a process whose raylet is gone, with code 1, without a word for a person and past Python's clean-up,
so that a Prefect server started by this process would stay behind. Linux only; elsewhere Ray's way is what there is.
A cluster's raylet is nobody's child here and is not watched. While Ray starts, SIGTERM is kept from its handler. Does
not import ray.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gex_pipeline import stopping

_LOOK_S = 0.25
_WORDS = (
    "\ngex: the Ray node of this run has died; something ended its raylet, say a lack of memory. "
    "Finished shards stay. Run the same command again to go on\n"
)


@contextmanager
def watched() -> Iterator[None]:
    """Watch from before Ray is started until before it is shut down."""
    over = threading.Event()
    if hasattr(os, "pidfd_open"):
        threading.Thread(target=_watch, args=(over,), name="gex-ray-node", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(over: threading.Event) -> None:
    while not over.wait(_LOOK_S):
        for pid in _children("self"):
            if _name(pid) == "raylet":
                _wait_for(pid, over)
                return


def _wait_for(raylet: int, over: threading.Event) -> None:
    try:
        handle = os.pidfd_open(raylet)
    except ProcessLookupError:
        _end(over, [])
        return
    except OSError:  # a kernel or a sandbox without such handles
        return
    try:
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        workers: list[int] = []
        while not over.is_set():
            if ended.poll(1000 * _LOOK_S):
                _end(over, workers)
            workers = _children(raylet)
    finally:
        os.close(handle)


def _end(over: threading.Event, workers: list[int]) -> None:
    """Ray's workers and agents would notice for themselves, after a second or a minute."""
    if over.is_set():
        return
    os.write(2, _WORDS.encode())
    for pid, how in [
        *((pid, signal.SIGKILL) for pid in workers),
        *((pid, signal.SIGTERM) for pid in _children("self")),
    ]:
        with suppress(ProcessLookupError):
            os.kill(pid, how)
    os._exit(os.EX_TEMPFAIL)


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
    """Leave SIGTERM to the command that listens to it: what Ray puts in ends the process where it stands.

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
