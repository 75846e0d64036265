"""Parallel lists of texts: the checks that every score makes before a model sees them.

Blank texts never reach a model: some tokenizers raise on them and the others give them a
finite, meaningless embedding. Every score of this room gives them 0 instead.
"""

from __future__ import annotations

from collections.abc import Sequence


def is_blank(text: str) -> bool:
    """True where nothing would be seen on a page: no character, only spaces, zero-width or control characters."""
    return not any(character.isprintable() and not character.isspace() for character in text)


def check_parallel(left: Sequence[object], right: Sequence[object]) -> None:
    """Raise ValueError when two lists that should be pairs differ in length, or one of them is a bare string."""
    if isinstance(left, str) or isinstance(right, str):
        raise ValueError("expected two lists of texts, found a bare string; wrap it in a list")
    if len(left) != len(right):
        raise ValueError(f"expected pairs, found {len(left)} on the left and {len(right)} on the right")


def rows_to_score(left: Sequence[str], right: Sequence[str]) -> list[int]:
    """Row numbers where both texts say something.

    Raises:
        ValueError: the lists are not parallel.
    """
    check_parallel(left, right)
    return [row for row, (a, b) in enumerate(zip(left, right, strict=True)) if not (is_blank(a) or is_blank(b))]
