"""Benchmarks at a small size: each compares what it measures with the bare tool's answer, and ends with 1 otherwise.

The one of browsing had stood still since receipts have columns of frames. Others are run by the tests of their rooms.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("command", "last_line"),
    [
        (["browse_1m.py", "--samples", "20000", "--repeats", "1"], "peak at the end "),
        (["plan_10m.py", "--videos", "2000", "--repeats", "1", "--scratch", "scratch"], "counts are right"),
        (["cli_start.py", "--repeats", "1"], "                 loads duckdb, "),
        (["integrate_encode.py", "--repeats", "1"], "ours : bare "),
    ],
)
def test_a_small_benchmark_finds_what_it_measures_to_be_right(tmp_path, command, last_line):
    program, *options = command
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / program), *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith(last_line)
