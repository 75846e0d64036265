"""What Ray holds for whoever works on it: CPU-seconds and GPU-seconds of a block, asked for once a second.

What is held is what a cluster costs, whether it is used or not. What was held on a cluster when this run came there
belongs to others, until less is held: then these have let go of the rest. Ray says how much is held and not by whom, so
what others take later is counted in, and what this run takes within the second in which others let go of as much is
taken for theirs. That there is nothing of this run's cannot be known later, for what it lets go is seen a second late.
"""

from __future__ import annotations

import sys
import threading
import time

_EVERY_S = 1.0
_PATIENCE_S = 5.0  # with a cluster that does not answer any more
_KINDS = ("CPU", "GPU")
_OTHERS = dict.fromkeys(_KINDS, 0.0)


def is_ray_running() -> bool:
    """Whether this process is connected to a Ray; does not load it."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def leave_out_others() -> None:
    """Count nothing of what is held now: called once, before this run holds anything of a cluster."""
    _OTHERS.update(_held_now() or {})


class Held:
    """Use as a context manager; the figures grow until it ends."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(_KINDS, 0.0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._count, name="gex-held", daemon=True)

    @property
    def cpu_s(self) -> float:
        """CPU-seconds, in Ray's logical CPUs."""
        return self._seconds["CPU"]

    @property
    def gpu_s(self) -> float:
        """GPU-seconds."""
        return self._seconds["GPU"]

    def __enter__(self) -> Held:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(_PATIENCE_S)

    def _count(self) -> None:
        before, before_s = _own_now(), time.monotonic()
        is_last = False
        while not is_last:
            is_last = self._ended.wait(_EVERY_S)
            now, now_s = _own_now(), time.monotonic()
            for kind in _KINDS:
                self._seconds[kind] += (before[kind] + now[kind]) / 2 * (now_s - before_s)
            before, before_s = now, now_s


def _own_now() -> dict[str, float]:
    """What is held beyond what others have held all the time; nothing where the cluster does not answer."""
    held = _held_now()
    if held is None:
        return dict.fromkeys(_KINDS, 0.0)
    for kind in _KINDS:
        _OTHERS[kind] = min(_OTHERS[kind], max(held[kind], 0.0))
    return {kind: max(held[kind] - _OTHERS[kind], 0.0) for kind in _KINDS}


def _held_now() -> dict[str, float] | None:
    """Logical CPUs and GPUs that are in use; None where the cluster does not answer."""
    import ray

    try:
        there, free = ray.cluster_resources(), ray.available_resources()
    except (ray.exceptions.RayError, RuntimeError):
        return None
    return {kind: there.get(kind, 0.0) - free.get(kind, 0.0) for kind in _KINDS}
