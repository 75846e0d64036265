"""Takes quotes and other marks off the ends of a text, and only those that belong to no word of it.

A mark stays where its partner stands inside the text (`a sign that says "stop"`); a pair around the whole text goes,
and so does a mark without a partner. Only the ends are touched. Linear in the text's length.
"""

from __future__ import annotations

import re

ALL_MARKS = "\"'\u201c\u201d\u2018\u2019`*_"
_KIND = {"\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'"}  # the rest stand for themselves
_BEFORE_OPENING = "([{-/\u2013\u2014"
_AFTER_CLOSING = ".,;:!?)]}-/\u2013\u2014\u2026"


def unquoted(text: str, marks: str = ALL_MARKS) -> str:
    """`text` without spaces and without enclosing or lone `marks` at its ends."""
    partners = _partners(text, marks)
    start, end = 0, len(text)
    while start < end:
        first, last = text[start], text[end - 1]
        if first.isspace():
            start += 1
        elif last.isspace():
            end -= 1
        elif first in marks and partners.get(start) == end - 1:
            start, end = start + 1, end - 1
        elif last in marks and end - 1 not in partners:
            end -= 1
        elif first in marks and start not in partners:
            start += 1
        else:
            break
    return text[start:end]


def _partners(text: str, marks: str) -> dict[int, int]:
    """Places of marks that open and close the same quotation, in both directions."""
    partners: dict[int, int] = {}
    opened: dict[str, list[int]] = {}
    for run in re.finditer(f"[{re.escape(marks)}]+", text):
        before, after = text[max(0, run.start() - 1) : run.start()], text[run.end() : run.end() + 1]
        opens = (not before or before.isspace() or before in _BEFORE_OPENING) and bool(after.strip())
        closes = (not after or after.isspace() or after in _AFTER_CLOSING) and bool(before.strip())
        for place in range(run.start(), run.end()):
            waiting = opened.setdefault(_KIND.get(text[place], text[place]), [])
            if closes and waiting:
                other = waiting.pop()
                partners |= {place: other, other: place}
            elif opens:
                waiting.append(place)
    return partners
