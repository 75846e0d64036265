"""Texts on pictures: fonts, wrapping, and what to do with letters that no font at hand has. Pillow only.

Pillow's built-in font draws plain English; texts with other Latin, Greek or Cyrillic letters are drawn in the
DejaVu font that matplotlib carries, or that the system has. What neither can draw in the right order becomes a note
such as "[Arabic, 12 characters]": boxes would say nothing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

_MISSING = "\uffff"
_BROAD = "DejaVuSans.ttf"
_LINE_LETTERS = 1000  # in a line at most: marks that take no width would never fill one
_NEEDS_SHAPING = ("R", "AL", "AN")  # bidirectional classes that run from right to left


@dataclass(frozen=True)
class Font:
    """One font in one size."""

    face: FreeTypeFont | ImageFont
    size_px: int

    def has(self, letter: str) -> bool:
        """Whether the letter is drawn as itself; right-to-left scripts are not."""
        if letter == " ":
            return True
        if unicodedata.bidirectional(letter) in _NEEDS_SHAPING or unicodedata.category(letter).startswith("C"):
            return False
        mask = self.face.getmask(letter)
        return mask.size != (0, 0) and (mask.size, bytes(mask)) != self._box

    @cached_property
    def _box(self) -> tuple[tuple[int, int], bytes]:
        mask = self.face.getmask(_MISSING)
        return mask.size, bytes(mask)


@cache
def plain_font(size_px: int) -> Font:
    """Pillow's built-in font."""
    from PIL import ImageFont

    return Font(ImageFont.load_default(size=size_px), size_px)


@cache
def broad_font(size_px: int) -> Font:
    """A font with more letters; the built-in one where there is none."""
    from PIL import ImageFont

    package = find_spec("matplotlib")
    carried = Path(package.origin or "").parent / "mpl-data" / "fonts" / "ttf" / _BROAD if package else None
    file = str(carried) if carried and carried.is_file() else _BROAD  # Pillow looks in the system's folders
    try:
        face = ImageFont.truetype(file, round(size_px * 0.9), layout_engine=ImageFont.Layout.BASIC)
    except OSError:
        return plain_font(size_px)
    return Font(face, size_px)


def readable(text: str, size_px: int) -> tuple[str, Font]:
    """A text that can be drawn, and the font to draw it with."""
    plain = plain_font(size_px)
    text = " ".join(text.split())
    if all(plain.has(letter) for letter in set(text)):
        return text, plain
    font = broad_font(size_px)
    known = {letter: font.has(letter) for letter in set(text)}
    return " ".join(_runs(text, known).split()), font


def _runs(text: str, known: dict[str, bool]) -> str:
    """The text with every run of letters that cannot be drawn named by its script."""
    kinds = [(letter, "" if known[letter] else _script(letter)) for letter in text]
    for index, (letter, _) in enumerate(kinds):  # a space inside a run belongs to it
        if letter == " " and 0 < index < len(kinds) - 1 and kinds[index - 1][1]:
            following = kinds[index + 1][1]
            kinds[index] = (letter, kinds[index - 1][1] if following == kinds[index - 1][1] else "")
    parts = []
    for script, run in groupby(kinds, key=lambda item: item[1]):
        letters = "".join(letter for letter, _ in run)
        unit = "character" if len(letters) == 1 else "characters"
        parts.append(f" [{script}, {len(letters)} {unit}] " if script else letters)
    return "".join(parts)


def _script(letter: str) -> str:
    """The first word of a letter's name says its script; marks and joiners say nothing."""
    word = unicodedata.name(letter, "SYMBOL").split()[0]
    if unicodedata.category(letter) in ("So", "Sk", "Cf", "Cn", "Mn", "Me"):
        return "Symbols"
    return word if word == "CJK" else word.capitalize()


def wrapped(text: str, font: Font, width_px: float, max_lines: int) -> list[str]:
    """The text in lines of at most that width; the last one ends in an ellipsis where more would follow."""
    lines: list[str] = []
    line = ""
    for word in _breakable(text, font, width_px):
        longer = f"{line} {word}" if line else word
        if _fits(longer, font, width_px):
            line = longer
            continue
        if line:
            lines.append(line)
        line = word
        if len(lines) == max_lines:
            break  # what follows is not shown
    lines.append(line)
    if len(lines) <= max_lines:
        return lines
    last = lines[max_lines - 1]
    return [*lines[: max_lines - 1], last[: _num_fitting(last, font, width_px, "…")].rstrip() + "…"]


def _breakable(text: str, font: Font, width_px: float) -> Iterator[str]:
    """Words, with those that are longer than a line cut; one at a time, since few of a long text are drawn."""
    for word in text.split():
        left = word
        while left:
            num = max(1, _num_fitting(left, font, width_px))
            yield left[:num]
            left = left[num:]


def _num_fitting(text: str, font: Font, width_px: float, tail: str = "") -> int:
    """How many of the first letters fit with `tail` after them; found from the front, however long the text is."""
    low, high = 0, 1
    while high <= len(text) and _fits(text[:high] + tail, font, width_px):
        low, high = high, 2 * high
    high = min(high, len(text) + 1)
    while high - low > 1:
        middle = (low + high) // 2
        if _fits(text[:middle] + tail, font, width_px):
            low = middle
        else:
            high = middle
    return low


def _fits(text: str, font: Font, width_px: float) -> bool:
    return len(text) <= _LINE_LETTERS and font.face.getlength(text) <= width_px


def draw_lines(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], lines: list[str], font: Font, fill: tuple[int, int, int]
) -> float:
    """Draw lines below each other; returns where the next one would begin."""
    x, y = place
    for line in lines:
        draw.text((x, y), line, font=font.face, fill=fill)
        y += line_height_px(font)
    return y


def line_height_px(font: Font) -> int:
    """Distance between two lines."""
    return round(font.size_px * 1.38)
