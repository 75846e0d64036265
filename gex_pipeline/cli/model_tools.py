"""What the commands that use a trained model have in common: choosing what it reads, and telling what could not be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gex_pipeline.cli.show import say_note
from gex_pipeline.errors import GexError

_NAMED = 20


def one_granularity(names: Sequence[str], chosen: str | None) -> str:
    """The one that was chosen, or the only one there is.

    Raises:
        GexError: there are several, or the chosen one is not among them.
    """
    if chosen is None and len(names) == 1:
        return names[0]
    if chosen in names:
        return str(chosen)
    found = f"there is no granularity {chosen!r}" if chosen else f"there are {len(names)} granularities"
    raise GexError(f"{found}; name one with --granularity: {', '.join(names)}")


def note_damaged(damaged: Sequence[Any]) -> None:
    """Name what could not be read on the error stream, and how much it was."""
    for one in damaged[:_NAMED]:
        say_note(f"{one.key} is left out: {one.reason}")
    if damaged:
        say_note(f"{len(damaged)} could not be read and are left out")
