"""The tables of docs/scaling.md: every product and sum in them follows from the figures that stand beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gex_pipeline.media.settings import FrameSettings

GUIDE = Path(__file__).parents[1] / "docs" / "scaling.md"
FACTORS = {"k": 1e3, "M": 1e6, "G": 1e9, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
GROWTH = 23  # what 230 M clips are of 10 M
SMALL, LARGE = "320x180", "1280x720"
ALL = "all of these"


def number(cell: str) -> float:
    """What a cell begins with: "4.5 M clips", "385 kB", "1,300 core-h"."""
    found = re.match(r"([\d,.]+) ?(\w*)", cell)
    assert found, cell
    return float(found[1].replace(",", "")) * FACTORS.get(found[2], 1)


def table(heading: str) -> dict[str, dict[str, str]]:
    """The rows of the first table under a heading, by their first cell."""
    lines = GUIDE.read_text(encoding="utf-8").split(f"## {heading}\n", 1)[1].split("\n")
    first = next(index for index, line in enumerate(lines) if line.startswith("|"))
    end = next(index for index, line in enumerate(lines) if index > first and not line.startswith("|"))
    columns, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[first:end]]
    return {row[0]: dict(zip(columns, row, strict=True)) for row in rows}


def check(cell: str, value: float) -> None:
    """The cell says this value, rounded to two digits."""
    assert number(cell) == pytest.approx(float(f"{value:.1e}")), (cell, value)


CORES, TRAINING, BYTES, MONEY = map(table, ("Cores", "GPUs", "Bytes", "Money"))


def test_core_hours_are_what_is_counted_over_its_rate_and_add_up():
    for size in (SMALL, LARGE):
        total_h = 0.0
        for name, row in CORES.items():
            hours = total_h if name == ALL else number(row["how many"]) / number(row[f"rate, {size}"]) / 3600
            total_h += hours
            check(row[f"10 M, {size}"], hours)
            if size == LARGE:
                check(row[f"230 M, {size}"], GROWTH * hours)
    frames = {"frame shards, SVST, 16 of 10 s": 160e6, "frame shards, LVLT, 32 of 45 s": 32e6}
    assert {name: number(CORES[name]["how many"]) for name in frames} == frames


def test_training_takes_what_its_operations_and_frames_say():
    for row in TRAINING.values():
        hours = number(row["how many"]) / number(row["rate"]) / 3600
        check(row["10 M"], hours)
        check(row["230 M"], GROWTH * hours)
    counted, in_pieces = (number(row["how many"]) for row in list(TRAINING.values())[1:3])
    assert in_pieces == pytest.approx(counted * 4 / 3, rel=0.02)  # GradCache: a forward pass more to three


def test_bytes_are_those_of_the_planner_and_multiply():
    for name, num in (("SVST", 16), ("LVLT", 32)):
        for size, short_side_px in ((SMALL, 180), (LARGE, 224)):
            planned = FrameSettings(num=num, short_side_px=short_side_px).estimated_bytes
            cell = BYTES[f"frame shards, {num} of {name}"][f"each, {size}"]
            assert number(cell) == pytest.approx(planned, rel=0.01)
    for row in BYTES.values():
        for size in (SMALL, LARGE):
            check(row[f"10 M, {size}"], number(row["how many"]) * number(row[f"each, {size}"]))
        check(row[f"230 M, {LARGE}"], GROWTH * number(row["how many"]) * number(row[f"each, {LARGE}"]))


def test_money_is_what_the_other_tables_say_times_its_price():
    for row in MONEY.values():
        price = number(row["USD"]) / FACTORS.get(row["USD"].rsplit(" ", 1)[-1], 1)
        for size in (SMALL, LARGE):
            check(row[f"10 M, {size}"], price * number(row[f"how many, {size}"]))
        check(row[f"230 M, {LARGE}"], GROWTH * price * number(row[f"how many, {LARGE}"]))
    for size in (SMALL, LARGE):
        bought = [number(row[f"how many, {size}"]) for row in MONEY.values()]
        hours = [CORES[name][f"10 M, {size}"] for name in (ALL, "LVLT, where clips must be encoded, besides")]
        frames = [number(row[f"10 M, {size}"]) for name, row in BYTES.items() if name.startswith("frame shards")]
        clips = number(BYTES["source clips"][f"10 M, {size}"])
        assert bought[:2] == [number(cell) for cell in hours]
        assert bought[-4:-2] == [pytest.approx(sum(frames), rel=0.02), clips]
