"""Grouping without metadata, and an operation that came with somebody else's package."""

from __future__ import annotations

from gex_pipeline import registry
from tests.end_to_end.running import NO_MODELS, expand_to, source_table, write_recipe

BODY = """
[granularity.SVST]
[granularity.RANDOM]
operation = "integrate"
from = "SVST"
by = "random"
min_clips = 4
[granularity.LOUD]
operation = "shout"
from = "SVST"
marks = 3
"""


def test_random_groups_and_a_third_party_edge_in_one_flow(running, corpus, tmp_path):
    registry._known.cache_clear()  # the package came onto the path after this process had looked
    try:
        output = expand_to(write_recipe(tmp_path, "seed = 5\n" + source_table(corpus) + NO_MODELS + BODY))
    finally:
        registry._known.cache_clear()
    samples = output.samples("RANDOM")
    assert [len(row["parents"]) for row in samples] == [4] * 6
    assert output.account("RANDOM")["excluded"] == {"too_few_clips": 2}
    assert any(len({segment["source_id"] for segment in row["segments"]}) > 1 for row in samples)
    texts = {row["clip_id"]: row["text"] for row in output.table("clips")}
    for row in samples:
        assert row["source_id"] == row["key"]
        assert row["text"] == " ".join(f"{texts[clip]}." for clip in row["parents"])
    loud = output.samples("LOUD")
    assert len(loud) == 26
    assert all(row["text"] == texts[row["parents"][0]].upper() + "!!!" for row in loud)
    assert output.last["granularities"]["LOUD"]["operation"] == "shout"
