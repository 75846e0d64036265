"""Cores of a process in a control group, in the files that the kernel has for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gex_pipeline.cores import num_cores


def group(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        file = folder / ("cpu/cpu.cfs_" + name if name.endswith("_us") else "cpu." + name)
        file.parent.mkdir(exist_ok=True)
        file.write_text(content + "\n")
    return folder


@pytest.fixture
def of_64(monkeypatch):
    """A process that may run on 64 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)), raising=False)


@pytest.mark.parametrize(
    ("files", "num"),
    [
        ({"max": "200000 100000"}, 2),
        ({"max": "150000 100000"}, 2),
        ({"max": "50000 100000"}, 1),
        ({"max": "max 100000"}, 64),
        ({"max": "9900000 100000"}, 64),
        ({"quota_us": "300000", "period_us": "100000"}, 3),
        ({"quota_us": "-1", "period_us": "100000"}, 64),
        ({}, 64),
        ({"max": ""}, 64),
    ],
)
def test_a_container_has_the_cores_that_it_was_given_and_not_those_of_its_machine(of_64, tmp_path, files, num):
    """In a pod of 2 CPUs on a node of 64 cores, 64 processes were started, of 6.6 GB together."""
    assert num_cores(group(tmp_path, **files)) == num


def test_who_was_bound_to_some_cores_has_those(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3, 7}, raising=False)
    assert num_cores(tmp_path) == 2
    assert num_cores(group(tmp_path, max="100000 100000")) == 1
