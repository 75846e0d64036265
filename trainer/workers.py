"""Worker processes of a data loader: how they start, how long they are waited for, how they end.

They are not copies of the process that asks: they see no accelerator and hold none of its locks, leave SIGTERM and
SIGINT to it, and end when it does, however it ends. Knows neither samples nor batches.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any, TypeVar

Item = TypeVar("Item")

_NOT_THEIRS = (signal.SIGTERM, signal.SIGINT)  # torchrun, systemd, GNU timeout and Ctrl-C send them to all at once
_LOOK_S = 2.0  # after waiting so long for a batch it is seen whether the workers are alive
_PRELOADED = ["trainer.sequence"]  # by name, since it imports this file; with it comes all that a worker needs


class WorkersStoppedError(Exception):
    """The workers gave nothing more; the message says why."""

    def __init__(self, why: str, *, timed_out: bool = False) -> None:
        super().__init__(why)
        self.timed_out = timed_out


def worker_options(num_workers: int, prefetch_batches: int) -> dict[str, Any]:
    """Keyword arguments for torch's DataLoader; without workers the asking process does the work."""
    if not num_workers:
        return {}
    # how many is the recipe's choice; torch warns of more than there are cores, at every loader
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    return {
        "num_workers": num_workers,
        "prefetch_factor": prefetch_batches,
        "timeout": _LOOK_S,
        "multiprocessing_context": _worker_context(),
        "worker_init_fn": partial(_start_worker, dict(os.environ)),
    }


def next_batch(batches: Iterator[Item], num_workers: int, timeout_s: float) -> Item:
    """The next of a DataLoader's batches.

    Raises:
        StopIteration: there are no more.
        WorkersStoppedError: a worker died, or none of them gave anything for `timeout_s`.
    """
    until_s = time.monotonic() + timeout_s
    while True:
        try:
            return next(batches)
        except (RuntimeError, EOFError, OSError) as error:
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            if not num_workers or why.startswith("Caught "):
                raise  # a mistake of ours, with its traceback
            if not isinstance(error, RuntimeError):  # it was killed between saying that a batch is there and giving it
                why = f"a worker exited while it gave a batch ({why})"
            if not why.startswith("DataLoader timed out"):
                raise WorkersStoppedError(why) from error
            if time.monotonic() >= until_s:
                raise WorkersStoppedError(f"nothing came for {timeout_s:g} s", timed_out=True) from error


def end_workers(batches: object) -> None:
    """End the workers behind a DataLoader's iterator, and wait until they are gone."""
    # torch ends workers when its iterator goes, which may be much later, and has no public name for it
    workers = getattr(batches, "_workers", [])
    getattr(batches, "_shutdown_workers", int)()
    for worker in workers:
        if worker.is_alive():  # it did not end when it was asked to
            worker.kill()
        worker.join()


class _Worker(ForkServerProcess):
    def terminate(self) -> None:
        """End it, as torch does with workers that did not leave when they were asked to."""
        self.kill()  # SIGTERM would not reach it


class _Workers(ForkServerContext):
    Process = _Worker


def _worker_context() -> _Workers:
    """Workers come from a process that has loaded what they need and nothing else: many start as fast as one."""
    context = _Workers()
    context.set_forkserver_preload(_PRELOADED)
    resource_tracker.ensure_running()  # first, since its start lets SIGTERM in again
    with _kept_out():
        forkserver.ensure_running()
    return context


@contextmanager
def _kept_out() -> Iterator[None]:
    """What is started meanwhile never gets the signals that tell a training to stop; its children do not either."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_THEIRS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(environment: dict[str, str], _number: int) -> None:
    # theirs to handle is the asking process's, which then ends its workers. The process they come from keeps the
    # signals out of them, unless it was there before; and torch has just let SIGTERM end them
    for number in _NOT_THEIRS:
        signal.signal(number, signal.SIG_IGN)
    # theirs is that of the process they come from, which may be older than what was set for storage
    os.environ.update(environment, CUDA_VISIBLE_DEVICES="")
    # torch looks whether the process they come from lives, and that lives as long as they do
    threading.Thread(target=_end_with_parent, name="gex-parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
