"""This package as a folder that Ray can send to the workers of a cluster: sources in, copies and the SQL files out.

Workers then run what the driver runs, whatever version they have installed or whether they have any; the packages it
needs (pyproject.toml) have to be there. Does not import ray.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HERE = Path(__file__).resolve().parent
PACKAGES = ("gex_pipeline", "trainer", "flows")


@contextmanager
def copied_code() -> Iterator[Path]:
    """A folder that holds the packages side by side, for the time until Ray has read it."""
    with tempfile.TemporaryDirectory(prefix="gex-code-") as name:
        folder = Path(name)
        for package in PACKAGES:
            source = _HERE.parent / package
            if source.is_dir():
                shutil.copytree(source, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        sql = folder / "gex_pipeline" / "_sql"
        if not sql.exists():  # a source checkout; an installed package has it
            shutil.copytree(_HERE.parent / "sql", sql)
        yield folder
