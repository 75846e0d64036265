"""Prints what a pyproject.toml asks for: its dependencies and those of the extras named; one requirement a line.

    python requirements_of.py pyproject.toml score http

So that the layer of an image that holds the dependencies depends on these lines alone, and not on the code.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def requirements(pyproject: Path, extras: list[str]) -> list[str]:
    """The requirements in order, each once.

    Raises:
        SystemExit: there is no extra of this name.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    optional = project.get("optional-dependencies", {})
    unknown = [extra for extra in extras if extra not in optional]
    if unknown:
        raise SystemExit(f"{pyproject} has no extra {', '.join(unknown)}; it has {', '.join(sorted(optional))}")
    lines = [*project["dependencies"], *(line for extra in extras for line in optional[extra])]
    return list(dict.fromkeys(lines))


if __name__ == "__main__":
    sys.stdout.write("\n".join(requirements(Path(sys.argv[1]), sys.argv[2:])) + "\n")
