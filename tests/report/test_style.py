"""The colours of the report's sheet, which the pages of `gex shards browse` share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gex_pipeline.report import assessment_page, charts, shard_pictures, sheet

CSS = (Path(charts.__file__).parent / "style.css").read_text(encoding="utf-8")
TEXTS = ("ink", "soft", "faint", "good", "bad", "source", *(f"c{number}" for number in range(charts.NUM_COLOURS)))


def themes() -> dict[str, dict[str, str]]:
    """The variables of each theme."""
    found = re.findall(r":root \{([^}]*--paper[^}]*)\}", CSS)
    assert len(found) == 2
    return {
        name: dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
        for name, block in zip(("light", "dark"), found, strict=True)
    }


def contrast(first: str, second: str) -> float:
    """WCAG 2: the ratio of two colours' relative luminances."""
    lower, higher = sorted(map(luminance, (first, second)))
    return (higher + 0.05) / (lower + 0.05)


def luminance(colour: str) -> float:
    shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return sum(weight * share for weight, share in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("ground", ["paper", "card", "wash"])
def test_small_text_can_be_read(theme: str, ground: str) -> None:
    """WCAG AA asks for 4.5; faint text had 2.78 on the light wash, an orange name 2.85."""
    colours = themes()[theme]
    assert {
        name: contrast(colours[name], colours[ground])
        for name in TEXTS
        if contrast(colours[name], colours[ground]) < 4.5
    } == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_tags_can_be_read(theme: str) -> None:
    colours = themes()[theme]
    assert min(contrast(colours[name], colours[f"{name}-wash"]) for name in ("good", "bad")) >= 4.5


def test_the_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


def test_pictures_and_plots_have_the_colours_of_the_light_theme() -> None:
    light = set(themes()["light"].values())
    assert set(re.findall(r"#[0-9a-f]{6}", assessment_page._PLAIN_STYLE)) <= light
    drawn = (sheet._INK, sheet._SOFT, sheet._JOINT, sheet._BAND[1], shard_pictures._SOFT, shard_pictures._BAR)
    assert {"#{:02x}{:02x}{:02x}".format(*colour) for colour in drawn} <= light
