from __future__ import annotations

import pytest

from gex_pipeline.report import wording


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "\u2013"), (0, "0"), (9.42, "9.42"), (78.24, "78.2"), (0.0123, "0.0123"), (-0.5, "\u22120.5")],
)
def test_numbers_have_about_three_digits(value: float | None, text: str) -> None:
    assert wording.number(value) == text


def test_large_numbers_have_spaces() -> None:
    assert wording.number(1234567.8) == "1\u202f234\u202f568"
    assert wording.count(4500000) == "4\u202f500\u202f000"


@pytest.mark.parametrize(("value", "text"), [(12.0, "12 s"), (90.0, "1.5 min"), (5400.0, "1.5 h")])
def test_durations_have_the_unit_that_reads_best(value: float, text: str) -> None:
    assert wording.duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0:00"), (3.25, "0:03.3"), (62.54, "1:02.5"), (59.96, "1:00"), (3723.0, "1:02:03")]
)
def test_positions_read_like_a_players(value: float, text: str) -> None:
    assert wording.position(value) == text


def test_sizes_are_decimal() -> None:
    assert [wording.size(value) for value in (999, 1500, 2_000_000)] == ["999 B", "1.5 kB", "2 MB"]


def test_a_moment_is_a_date() -> None:
    assert wording.moment("2024-03-01T10:20:30+00:00") == "1 March 2024, 10:20 UTC"
    assert wording.moment("yesterday") == "yesterday"


def test_a_cell_of_a_markdown_table_stays_in_its_place() -> None:
    table = wording.markdown_table(("name", "n"), [("a | b\nc", 3), ("", None)], numbers=(1,))
    assert table.splitlines() == ["| name | n |", "| --- | ---: |", r"| a \| b c | 3 |", "|  | None |"]
