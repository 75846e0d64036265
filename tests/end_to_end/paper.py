"""The paper's recipe over a drawn corpus, with every score there is."""

from __future__ import annotations

from pathlib import Path

from tests.end_to_end.running import source_table


def paper_recipe(corpus: Path, clip_model: Path, clips: Path | None = None) -> str:
    return f"""
{source_table(corpus, clips)}
[shards]
max_samples = 2
[scores]
clip_model = "{clip_model}"
clip_videos = 2
[granularity.SVST]
pack = true
[granularity.LVLT]
operation = "integrate"
from = "SVST"
[granularity.LVST]
operation = "compress_text"
from = "LVLT"
summarizer = {{ backend = "extractive" }}
[granularity.IT]
operation = "compress_video"
from = "SVST"
"""
