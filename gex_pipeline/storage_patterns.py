"""Patterns over the parts of a path, the same for disks and object stores: names and patterns in; whether they fit out.

As in a shell: ``*``, ``?`` and ``[..]`` stand for parts of one name, ``**`` for any number of folders, none included,
and a dot in front of a name must be asked for. Looks at no file.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

from gex_pipeline.errors import GexError

FOLDERS = "**"
_GLOB = re.compile(r"[*?\[]")


def is_pattern(part: str) -> bool:
    """Whether a part of a path stands for more than itself."""
    return _GLOB.search(part) is not None


def checked(pattern: Sequence[str]) -> list[str]:
    """The parts of a pattern; ``**`` at the end is all files below.

    Raises:
        GexError: ``**`` is not a whole part, where a shell would take it for ``*``.
    """
    for part in pattern:
        if FOLDERS in part and part != FOLDERS:
            raise GexError(f"{part!r}: ** stands for folders, and must be between slashes, as in clips/**/*.parquet")
    return [*pattern, "*"] if pattern and pattern[-1] == FOLDERS else list(pattern)


def matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path fit those of a pattern."""
    if not pattern or not names:
        return not pattern and not names
    if pattern[0] == FOLDERS:
        return matches(names, pattern[1:]) or (fits(names[0], "*") and matches(names[1:], pattern))
    return fits(names[0], pattern[0]) and matches(names[1:], pattern[1:])


def fits(name: str, part: str) -> bool:
    """Whether a name fits one part of a pattern."""
    return fnmatch.fnmatchcase(name, part) and (part.startswith(".") or not name.startswith("."))
