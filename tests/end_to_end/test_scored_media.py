"""Summaries of samples that are no videos, and of those that cannot be read, where a CLIP model is named."""

from __future__ import annotations

from tests.end_to_end.running import expand_to, rows_of, source_table, write_recipe

IMAGES = """
[scores]
sentence_model = false
bertscore_model = false
clip_model = "{clip_model}"
clip_videos = 0
[granularity.SVST]
[granularity.LVLT]
operation = "integrate"
from = "SVST"
[granularity.IMAGE]
operation = "compress_video"
from = "LVLT"
[granularity.IMAGE_ST]
operation = "compress_text"
from = "IMAGE"
gates = {{ clip_video_long_text = {{ min = -1.0 }} }}
summarizer = {{ backend = "extractive" }}
"""


def test_summaries_of_images_are_scored_and_gated_by_their_images(running, corpus, clip_model, tmp_path):
    """The scoring worker took a picture for a video; the run stopped there, and so did every one after it."""
    recipe = write_recipe(tmp_path, source_table(corpus) + IMAGES.format(clip_model=clip_model))
    made = expand_to(recipe)
    samples = made.samples("IMAGE_ST")
    assert {row["media_extension"] for row in samples} == {"jpg"}
    scored = rows_of(made.folder / "tables/scores-IMAGE_ST-000000.parquet")
    with_video = [row["key"] for row in scored if row["score"] == "clip_video_long_text"]
    assert sorted(with_video) == [row["key"] for row in samples], "with a gate on it, whatever clip_videos says"
    assert len(samples) == len(made.samples("IMAGE")) == 4
