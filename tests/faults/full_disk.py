"""Runs `gex run` on disks that are really full; started by a test in a namespace of its own, where it may mount.

`unshare -rm python full_disk.py RECIPE OUTPUT_SIZE SCRATCH_SIZE`: first the output is too small, then there is room
in it but the scratch folder is too small, then there is room in both. One process and one Ray for all three.
Prints a JSON list, an entry a run: exit code, what it said, the files of the output, what is left in scratch.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def mount(folder: Path, size: str, options: str = "") -> None:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"{options}size={size}", "none", str(folder)], check=True)


def run(recipe: Path, scratch: Path) -> dict[str, object]:
    from gex_pipeline.cli.main import main as gex

    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = gex(["run", str(recipe), "--no-report"])
    output = recipe.parent / "output"
    files = {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*"))
        if path.is_file()
    }
    return {
        "code": code,
        "error": said.getvalue(),
        "files": files,
        "scratch": sorted(path.name for path in scratch.iterdir()),
    }


def main(recipe: Path, output_size: str, scratch_size: str) -> None:
    output, scratch = recipe.parent / "output", recipe.parent / "scratch"
    mount(output, output_size)
    mount(scratch, "100m")
    os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)

    from gex_pipeline.ray_jobs import ray_session
    from gex_pipeline.recipe import load_recipe

    with ray_session(load_recipe(recipe).ray):
        runs = [run(recipe, scratch)]
        mount(output, "100m", "remount,")
        mount(scratch, scratch_size, "remount,")
        runs.append(run(recipe, scratch))
        mount(scratch, "100m", "remount,")
        runs.append(run(recipe, scratch))
    print(json.dumps(runs))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
