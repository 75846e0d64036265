from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from gex_pipeline.report import paper
from gex_pipeline.report.assessment_page import quality_chart, render
from tests.report.page import Page


def candidate(name: str, mean: float, seconds: float) -> dict[str, Any]:
    score = {"mean": mean, "interval": [mean - 0.01, mean + 0.01]}
    return {"name": name, "seconds_a_task": seconds, "scores": {"rougeL": score}}


TABLE_7 = """
Longchat 7b      0.43 0.20 0.34 0.90 2.45
OpenLlama 7b     0.48 0.24 0.39 0.89 1.03
OpenLlama 13b    0.38 0.18 0.31 0.90 2.19
Fastchat t5 3b   0.48 0.25 0.40 0.91 2.97
Dolly-v2-7b      0.36 0.15 0.28 0.89 4.93
Internlm 7b      0.32 0.13 0.26 0.87 3.36
RWKV-4 7b        0.28 0.11 0.23 0.88 1.04
Vicuna 7b        0.46 0.23 0.37 0.91 1.91
Vicuna 13b       0.48 0.24 0.39 0.92 2.19
Vicuna 33b       0.50 0.27 0.42 0.92 7.38
"""
"""As it stands in the paper."""


def test_the_papers_table_is_whole_and_says_of_what_its_tasks_are() -> None:
    """Three of its ten rows stood there as "the paper's"."""
    content = {
        "name": "n",
        "candidates": [],
        "failed": {},
        "num_tasks": 0,
        "recommendation": {"candidate": None, "why": "w", "rule": "r", "compared": {}},
    }
    page = Page(render(content, []))
    rows = [line.split() for line in TABLE_7.strip().splitlines()]
    start = page.texts.index("Longchat-7b")
    shown = page.texts[start:]
    for name, *values in [("-".join(row[:-5]), *row[-5:]) for row in rows]:
        at = next(number for number, text in enumerate(shown) if text.startswith(name))
        assert shown[at : at + 7] == [shown[at], "paper, table 7", *values]
    assert page.text.count("paper, table 7") == len(rows) == 10
    assert "drawn from LSMDC's validation set" in page.text
    scores = [float(row[-2]) for row in rows]
    assert f"BERTScore-F1 of {min(scores):.2f} to {max(scores):.2f} (table 7)" in paper.BERTSCORE_NOTE


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
