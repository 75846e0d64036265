"""Runs `gex train` on a disk that is really full; started by a test in a namespace of its own, where it may mount.

`unshare -rm python full_training_disk.py RECIPE SIZE`: first the output, which is beside the recipe, has this size,
then there is room. Prints a JSON list, an entry a run: exit code, what it said, the files of the output.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

from tests.faults.full_disk import mount


def run(recipe: Path) -> dict[str, object]:
    from gex_pipeline.cli.main import main as gex

    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = gex(["train", str(recipe)])
    output = recipe.parent / "training"
    files = sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_file())
    return {"code": code, "error": said.getvalue(), "files": files}


def main(recipe: Path, size: str) -> None:
    output = recipe.parent / "training"
    mount(output, size)
    runs = [run(recipe)]
    mount(output, "100m", "remount,")
    runs.append(run(recipe))
    print(json.dumps(runs))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
