"""A recipe that changes over a published output: refused until somebody says so, then only what is new is made."""

from __future__ import annotations

import pytest

from gex_pipeline.errors import RecipeChangedError
from tests.end_to_end.running import (
    error_of,
    expand_to,
    fingerprint,
    metadata_of,
    run_flow,
    source_table,
    write_metadata,
    write_recipe,
)

LVLT = '[granularity.SVST]\n[granularity.LVLT]\noperation = "integrate"\nfrom = "SVST"\nmin_clips = {}\n'
IT = '[granularity.IT]\noperation = "compress_video"\nfrom = "SVST"\n'


@pytest.fixture(scope="module")
def changed(running, corpus, tmp_path_factory):
    """Two snapshots: one of LVLT with at least four clips, then with at least two, and IT beside it."""
    folder = tmp_path_factory.mktemp("changed")
    rows = metadata_of(corpus)
    eight = [row for row in rows if row["YoutubeID"] == "-whkHrSQl47"]
    clips = write_metadata(folder / "clips.jsonl", [*eight[:5], *rows_of_two(rows)])
    recipe = write_recipe(folder, source_table(corpus, clips) + LVLT.format(4))
    first = expand_to(recipe)
    before = fingerprint(folder / "output")
    write_recipe(folder, source_table(corpus, clips) + LVLT.format(2) + IT)
    refused = run_flow(recipe)
    untouched = fingerprint(folder / "output")
    second = expand_to(recipe, accept_changes=True)
    return folder, recipe, first, before, (refused, untouched), second


def rows_of_two(rows):
    """The source of the corpus with two clips."""
    by_source = {}
    for row in rows:
        by_source.setdefault(row["YoutubeID"], []).append(row)
    return next(found for found in by_source.values() if len(found) == 2)


def test_a_changed_recipe_is_refused_before_anything_is_written(changed):
    _, _, _, before, (refused, untouched), _ = changed
    error = error_of(refused)
    assert isinstance(error, RecipeChangedError)
    assert "granularity.LVLT.min_clips was 4, is 2; granularity.IT was not there, is {" in str(error)
    assert untouched == before


def test_an_accepted_change_makes_what_is_new_under_it_and_leaves_the_rest(changed):
    folder, _, first, before, _, second = changed
    assert [len(first.samples("LVLT")), len(second.samples("LVLT"))] == [1, 2]
    assert [len(row["parents"]) for row in sorted(second.samples("LVLT"), key=lambda row: row["shard"])] == [5, 2]
    assert len(second.samples("IT")) == 7  # also of the clips of the first snapshot
    now = fingerprint(folder / "output")
    kept = [path for shard in first.shards("LVLT") for path in (shard["path"], shard["receipt"])]
    assert {path: now[path] for path in kept} == {path: before[path] for path in kept}
    hashes = [entry["recipe_hash"] for entry in second.manifest["snapshots"]]
    assert len(set(hashes)) == 2


def test_the_next_run_with_the_new_recipe_needs_no_word(changed):
    state = run_flow(changed[1])
    assert state.is_completed()
    assert state.result() is None


def test_a_damaged_shard_is_built_again_with_the_recipe_of_its_own_snapshot(changed):
    folder, recipe, first, *_ = changed
    tar = folder / "output" / first.shards("LVLT")[0]["path"]
    published = tar.read_bytes()
    tar.unlink()
    assert run_flow(recipe).is_completed()
    assert tar.read_bytes() == published
