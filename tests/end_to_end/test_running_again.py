"""A second run: nothing new, more metadata, late clips."""

from __future__ import annotations

import json
import os
from itertools import pairwise

import pytest

from gex_pipeline.recipe import load_recipe
from gex_pipeline.run_state import open_run
from tests.end_to_end.running import (
    NO_MODELS,
    expand_to,
    fingerprint,
    metadata_of,
    read_output,
    run_flow,
    source_table,
    write_metadata,
    write_recipe,
)

BODY = """
[granularity.SVST]
[granularity.LVLT]
operation = "integrate"
from = "SVST"
[granularity.LVST]
operation = "compress_text"
from = "LVLT"
summarizer = { backend = "extractive" }
gates = {}
[granularity.IT]
operation = "compress_video"
from = "SVST"
"""


def test_running_again_changes_no_file_and_no_time(paper_output):
    before = fingerprint(paper_output.folder)
    state = run_flow(paper_output.folder.parent / "recipe.toml", report=True)
    assert state.is_completed()
    assert state.result() is None
    assert fingerprint(paper_output.folder) == before


@pytest.fixture(scope="module")
def grown(running, corpus, tmp_path_factory):
    """Three runs over metadata that grow: the output and its files' fingerprint after each."""
    folder = tmp_path_factory.mktemp("grown")
    rows = metadata_of(corpus)
    eight = [row for row in rows if row["YoutubeID"] == "-whkHrSQl47"]
    four = [row for row in rows if row["YoutubeID"] == "lzm8v_D9W90"]
    five = [row for row in rows if row["YoutubeID"] == "VFJ82b2k5x_"]
    clips = folder / "clips.jsonl"
    recipe = write_recipe(folder, source_table(corpus, clips) + NO_MODELS + BODY)
    after = []
    for known in ([*eight[:4], *four], [*eight[:6], *four, *five], [*five, *eight, *four]):
        write_metadata(clips, known)
        after.append((expand_to(recipe), fingerprint(folder / "output")))
    return recipe, after


def test_grown_metadata_give_a_snapshot_with_the_new_groups_only(grown):
    _, [(first, _), (second, _), (third, _)] = grown
    assert [len(output.manifest["snapshots"]) for output, _ in grown[1]] == [1, 2, 3]
    for output, expected in ((first, [2, 2, 8]), (second, [1, 1, 7]), (third, [1, 1, 2])):
        totals = output.last["granularities"]
        assert [totals[name]["totals"]["samples"] for name in ("LVLT", "LVST", "IT")] == expected
    assert second.ingest["num_known"] == 8
    assert second.ingest["num_used"] == 7


def test_published_shards_are_never_touched_again(grown):
    _, after = grown
    for (earlier, before), (_, now) in pairwise(after):
        published = [
            path
            for name in earlier.granularities
            for shard in earlier.shards(name)
            for path in (shard["path"], shard["receipt"])
        ]
        assert len(published) >= 6
        assert {path: now[path] for path in published} == {path: before[path] for path in published}


def test_late_clips_of_a_known_source_wait_until_there_are_four(grown):
    _, [(first, _), (second, _), (third, _)] = grown
    assert second.account("LVLT")["excluded"] == {"too_few_clips": 2}
    of_eight = [row for row in third.samples("LVLT") if row["source_id"] == "-whkHrSQl47"]
    assert [len(row["parents"]) for row in of_eight] == [4, 4]
    early, late = sorted(of_eight, key=lambda row: row["segments"][0]["start_s"])
    assert early == next(row for row in first.samples("LVLT") if row["source_id"] == "-whkHrSQl47")
    assert max(s["end_s"] for s in early["segments"]) <= min(s["start_s"] for s in late["segments"])
    assert late["shard"] == 2


def test_sizes_count_the_shards_of_all_snapshots(grown):
    third = grown[1][-1][0]
    sizes = json.loads((third.folder / "LVLT/sizes.json").read_text())
    assert sizes == {"LVLT-000000.tar": 2, "LVLT-000001.tar": 1, "LVLT-000002.tar": 1}


def test_metadata_that_were_only_touched_give_no_snapshot(grown):
    recipe, after = grown
    before = after[-1][1]
    clips = recipe.parent / "clips.jsonl"
    os.utime(clips, (2e9, 2e9))
    state = run_flow(recipe)
    assert state.is_completed()
    assert state.result() is None
    now = fingerprint(recipe.parent / "output")
    assert {path: now[path] for path in before if path != "run.json"} == {
        path: entry for path, entry in before.items() if path != "run.json"
    }
    assert set(now) == set(before)  # the tables that said so are gone again
    assert len(read_output(recipe.parent / "output").manifest["snapshots"]) == 3
    assert open_run(load_recipe(recipe)).is_current  # the next run does not even look
