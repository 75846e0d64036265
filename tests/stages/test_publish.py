"""What `dataset.json` says of a granularity; whole publications are in tests/end_to_end."""

from __future__ import annotations

from gex_pipeline.run_state import open_run
from gex_pipeline.stages.publish import _media_extension
from tests.making_runs import LVLT, clip_row, recipe_of, write_jsonl

SHORT = {"operation": "compress_text", "summarizer": {"backend": "extractive"}}


def test_the_ending_of_media_that_are_passed_on_is_that_of_what_they_were_made_of(tmp_path):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row()])
    images = {"operation": "compress_video", "from": "LVLT"}
    nodes = {"LVLT": LVLT, "IT": images, "LVST": SHORT | {"from": "LVLT"}, "IST": SHORT | {"from": "IT"}}
    run = open_run(recipe_of(tmp_path, granularity={"SVST": {}, **nodes, "IXT": SHORT | {"from": "IST"}}))
    found = {name: _media_extension(run, run.recipe.graph.nodes[name]) for name in run.recipe.graph.nodes}
    assert found == {"SVST": "mp4", "LVLT": "mp4", "IT": "jpg", "LVST": "mp4", "IST": "jpg", "IXT": "jpg"}
