"""How many cores this process may keep busy: a container, or who started it, may leave it fewer than there are."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")  # in a container that of the container


def num_cores(cgroups: Path = _CGROUPS) -> int:
    """The least of its affinity and of the processor time that its control group grants, rounded up."""
    granted = [_granted(cgroups / "cpu.max"), _granted(cgroups / "cpu/cpu.cfs_quota_us", "cpu.cfs_period_us")]
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([affinity, *(math.ceil(cores) for cores in granted if cores is not None)])


def _granted(file: Path, period_name: str = "") -> float | None:
    """Cores: a quota over its period, behind it in the file (version 2) or in another beside it; None without one."""
    try:
        words = file.read_text(encoding="ascii").split()
        quota, period = words if not period_name else (*words, file.with_name(period_name).read_text(encoding="ascii"))
        cores = int(quota) / int(period)
    except (OSError, ValueError):  # no such file, or "max"
        return None
    return cores if cores > 0 else None  # -1: no limit
