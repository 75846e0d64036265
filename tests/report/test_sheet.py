from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gex_pipeline.report.lettering import Font, broad_font, plain_font, readable, wrapped
from tests.report import outputs


def shares(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Columns that hold many pixels of about this colour."""
    near = np.abs(picture.astype(int) - colour).max(axis=2) < 40
    return np.flatnonzero(near.sum(axis=0) > 40)


def test_frames_stand_in_the_order_of_their_segments(output_uri: str) -> None:
    sheet = np.asarray(Image.open(Path(output_uri, "report", "contact-sheet.png")).convert("RGB"))
    red, green, blue = (shares(sheet, colour) for colour in (outputs.RED, outputs.GREEN, outputs.BLUE))
    assert red.size and green.size and blue.size
    assert red.max() < green.min() <= green.max() < blue.min()
    yellow, grey = shares(sheet, outputs.YELLOW), shares(sheet, outputs.GREY)
    assert yellow.max() < grey.min()


def test_plain_english_is_drawn_with_the_built_in_font() -> None:
    text, font = readable("A dog, running  (fast)!\n", 14)
    assert text == "A dog, running (fast)!"
    assert font == plain_font(14)


def test_other_latin_and_cyrillic_letters_are_drawn_as_they_are() -> None:
    text, font = readable("Café, щенок", 14)
    assert text == "Café, щенок"
    assert font == broad_font(14)


def test_without_matplotlib_the_font_of_the_system_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the extra `score` drew notes in place of letters, though the font was there."""
    (tmp_path / "fonts").mkdir()
    shutil.copy(str(broad_font(14).face.path), tmp_path / "fonts" / "DejaVuSans.ttf")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    found = []
    for folder in (tmp_path, tmp_path / "nothing"):
        monkeypatch.setenv("XDG_DATA_HOME", str(folder))
        monkeypatch.setenv("XDG_DATA_DIRS", str(folder))
        broad_font.cache_clear()
        found.append(readable("Café, щенок", 14)[0])
    broad_font.cache_clear()
    assert found == ["Café, щенок", "Caf [Latin, 1 character] , [Cyrillic, 5 characters]"]


def test_letters_that_cannot_be_drawn_are_named_by_their_script() -> None:
    assert readable("cat مرحبا بك end", 14)[0] == "cat [Arabic, 8 characters] end"
    assert readable("犬が走る", 14)[0].startswith("[CJK, 1 character] [Hiragana, 1 character]")


def test_lines_keep_to_their_width_and_end_in_an_ellipsis() -> None:
    font = plain_font(13)
    lines = wrapped("several words of a caption " * 20 + "x" * 300, font, 200, 4)
    assert len(lines) == 4
    assert lines[-1].endswith("…")
    assert all(font.face.getlength(line) <= 200 for line in lines)


class CountedFace:
    """A font's face that notes what it is asked to measure."""

    def __init__(self, face: Any) -> None:
        self._face = face
        self.measured: list[int] = []

    def getlength(self, text: str) -> float:
        self.measured.append(len(text))
        return self._face.getlength(text)


def counted_lines(text: str, font: Font) -> tuple[list[str], list[int]]:
    face = CountedFace(font.face)
    return wrapped(text, replace(font, face=face), 248, 5), face.measured


def test_one_word_of_a_hundred_thousand_letters_is_measured_from_its_front():
    """It was measured from its end, letter by letter: 500 letters took 7 s, and a run's report stage never ended."""
    lines, measured = counted_lines("a" * 100_000, plain_font(13))
    assert (len(lines), lines[-1][-1]) == (5, "…")
    assert len({len(line) for line in lines[:-1]}) == 1
    assert len(measured) < 150
    assert max(measured) < 200


def test_marks_that_take_no_width_do_not_make_a_line_without_end():
    lines, measured = counted_lines("e" + "\u0301" * 100_000, broad_font(13))
    assert len(lines) == 5
    assert len(measured) < 150
    assert max(map(len, lines)) <= max(measured) <= 1000


def test_a_letter_wider_than_the_line_leaves_no_empty_line_before_it():
    assert wrapped("W i", plain_font(13), 3, 5) == ["W", "i"]


def test_a_word_longer_than_a_line_is_cut() -> None:
    font = plain_font(13)
    lines = wrapped("x" * 100, font, 120, 20)
    assert "".join(lines) == "x" * 100
    assert all(font.face.getlength(line) <= 120 for line in lines)
