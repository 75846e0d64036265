from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from gex_pipeline.report.assessment_page import quality_chart
from tests.report.page import Page


def candidate(name: str, mean: float, seconds: float) -> dict[str, Any]:
    score = {"mean": mean, "interval": [mean - 0.01, mean + 0.01]}
    return {"name": name, "seconds_a_task": seconds, "scores": {"rougeL": score}}


def test_equal_steps_of_a_score_are_equally_high() -> None:
    """From 0.08 to 0.48 the axis of a score became logarithmic, and nothing said so."""
    means = (0.08, 0.18, 0.28, 0.38, 0.48)
    content = {"candidates": [candidate(str(mean), mean, 0.2) for mean in means]}
    page = Page(quality_chart(content, "rougeL"))
    heights = [float(circle["cy"]) for circle in page.of("circle")]
    steps = [below - above for below, above in pairwise(heights)]
    assert steps == pytest.approx([steps[0]] * 4, abs=0.02)
    assert steps[0] > 40


def test_only_seconds_are_logarithmic_and_the_plot_says_so() -> None:
    content = {"candidates": [candidate("a", 0.3, 0.01), candidate("b", 0.4, 2.0)]}
    page = Page(quality_chart(content, "rougeL"))
    assert "seconds a task, logarithmic" in page.text
    assert page.texts[:3] == ["0.30", "0.35", "0.40"]
