from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.planning import view_parents
from gex_pipeline.receipts import LOSS_SCHEMA, write_table
from gex_pipeline.rejects import find_retried, standing_rejects
from gex_pipeline.retry import Retry
from gex_pipeline.run_state import begin, find_recipe, open_run
from gex_pipeline.shards.manifest import GranularityEntry, Manifest, Snapshot
from gex_pipeline.tables import Database
from tests.making_runs import LVLT, clip_row, plan, recipe_of, write_jsonl

RETRIED = pa.schema([(name, pa.string()) for name in ("granularity", "id", "reason")])


def loss(clip, reason, granularity="LVLT", state="rejected", stage="build"):
    row = dict.fromkeys(LOSS_SCHEMA.names, "")
    return row | {"granularity": granularity, "stage": stage, "state": state, "reason": reason, "id": clip}


@pytest.fixture
def recipe(tmp_path):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row(start=str(n), end=str(n + 1)) for n in range(3)])
    return recipe_of(tmp_path)


def publish(recipe, rejects, retried=()):
    """A snapshot that says no more than which clips it rejected, and which it had tried again."""
    run = open_run(recipe)
    tables = {"rejects": pa.Table.from_pylist(list(rejects), LOSS_SCHEMA)}
    if retried:
        rows = [{"granularity": "LVLT", "id": clip, "reason": ""} for clip in retried]
        tables["retried"] = pa.Table.from_pylist(rows, RETRIED)
    for name, table in tables.items():
        write_table(run.layout.table(name, run.snapshot), table, {})
    names = tuple(f"tables/{name}-{run.snapshot:06d}.parquet" for name in tables)
    snapshot = Snapshot(run.snapshot, "", recipe.hash, {}, run.inputs, {}, (), names, {})
    manifest = Manifest(recipe.name, (*run.manifest.snapshots, snapshot))
    storage.publish_bytes(manifest.to_json(), run.layout.manifest)


def standing(recipe):
    return [(row["granularity"], row["reason"], row["num"]) for row in standing_rejects(open_run(recipe))]


def chosen(recipe, *reasons, granularities=()):
    with Database(threads=1) as database:
        find_retried(database, open_run(recipe, Retry(reasons, granularities)))
        return [row["id"] for row in database.query("SELECT id FROM retried_now ORDER BY granularity, id")]


def retire_sample(recipe, key):
    """The last snapshot as if it had been retired with one sample of LVLT."""
    manifest = open_run(recipe).manifest
    last = manifest.snapshots[-1]
    uri = f"tables/retired-LVLT-{last.snapshot:06d}.parquet"
    rows = pa.table({"shard": [0], "key": [key], "parents": [["a", "b"]]})
    write_table(storage.join(recipe.output_uri, uri), rows, {})
    last = replace(
        last,
        tables=(*last.tables, uri),
        retired="2026-05-04T03:02:01+00:00",
        granularities={"LVLT": GranularityEntry("integrate", "SVST", "mp4", (), {}, last_shard=0)},
    )
    storage.publish_bytes(
        Manifest(recipe.name, (*manifest.snapshots[:-1], last)).to_json(), f"{recipe.output_uri}/dataset.json"
    )


def test_what_came_of_a_retired_sample_stands_rejected_no_more_and_is_not_tried_again(recipe):
    publish(recipe, [loss("long", "gate_failed", "LVST", stage="summarise"), loss("other", "gate_failed", "LVST")])
    assert standing(recipe) == [("LVST", "gate_failed", 1), ("LVST", "gate_failed", 1)]
    retire_sample(recipe, "long")
    assert standing(recipe) == [("LVST", "gate_failed", 1)]
    assert chosen(recipe, "gate_failed") == ["other"]


def test_a_clip_rejected_in_a_snapshot_that_was_retired_can_be_tried_again(recipe):
    publish(recipe, [loss("clip", "media_missing")])
    retire_sample(recipe, "long")
    assert chosen(recipe, "media_missing") == ["clip"]


def test_a_reject_stands_until_a_snapshot_tried_it_again(recipe):
    publish(recipe, [loss("a", "media_missing"), loss("b", "media_empty")])
    assert standing(recipe) == [("LVLT", "media_empty", 1), ("LVLT", "media_missing", 1)]
    publish(recipe, [], retried=["a"])
    assert standing(recipe) == [("LVLT", "media_empty", 1)]


def test_what_a_retry_rejects_again_stands_for_its_new_reason_only(recipe):
    publish(recipe, [loss("a", "media_missing")])
    publish(recipe, [loss("a", "media_truncated")], retried=["a"])
    publish(recipe, [])
    assert standing(recipe) == [("LVLT", "media_truncated", 1)]
    assert chosen(recipe, "media_missing") == []
    assert chosen(recipe, "media_truncated") == ["a"]


def test_what_a_rule_excluded_and_what_ingest_rejected_is_no_standing_reject(recipe):
    publish(recipe, [loss("a", "too_few_clips", state="excluded"), loss("b", "missing_caption", stage="ingest")])
    assert standing(recipe) == []


def test_reasons_and_granularities_choose(recipe):
    rows = [loss("a", "media_missing"), loss("a", "media_missing", "IT"), loss("b", "gate_failed", "IT")]
    publish(recipe, rows)
    assert chosen(recipe, "media_missing", "gate_failed") == ["a", "b", "a"]
    assert chosen(recipe, "media_missing", granularities=("LVLT",)) == ["a"]
    assert chosen(recipe, "duration_mismatch") == []


def test_a_plan_has_a_rejected_clip_again_only_in_a_run_that_retries_it(recipe):
    run = begin(open_run(recipe))
    plan(run, "LVLT")
    with Database(threads=1) as database:
        database.view_parquet("clips", [run.layout.table("clips", 0)])
        clip = sorted(row["clip_id"] for row in database.query("SELECT clip_id FROM clips"))[0]
        publish(recipe, [loss(clip, "media_missing")])
        node = recipe.graph.nodes["LVLT"]
        for retry, expected in ((None, 2), (Retry(("media_missing",)), 3), (Retry(("media_empty",)), 2)):
            view_parents(database, open_run(recipe, retry), node)
            assert database.count("parents") == expected


def test_a_retry_of_one_granularity_leaves_the_clip_rejected_in_another(recipe, tmp_path):
    both = recipe_of(
        tmp_path, granularity={"SVST": {}, "LVLT": LVLT, "IT": {"operation": "compress_video", "from": "SVST"}}
    )
    run = begin(open_run(both))
    plan(run, "LVLT")
    with Database(threads=1) as database:
        database.view_parquet("clips", [run.layout.table("clips", 0)])
        clip = sorted(row["clip_id"] for row in database.query("SELECT clip_id FROM clips"))[0]
        publish(both, [loss(clip, "media_missing"), loss(clip, "media_missing", "IT")])
        retrying = open_run(both, Retry(("media_missing",), ("LVLT",)))
        for granularity, expected in (("LVLT", 3), ("IT", 2)):
            view_parents(database, retrying, both.graph.nodes[granularity])
            assert database.count("parents") == expected


def test_a_run_that_retries_is_never_current_and_is_another_run(recipe):
    publish(recipe, [])
    plain, again = open_run(recipe), open_run(recipe, Retry(("media_missing",)))
    assert plain.is_current
    assert not again.is_current
    assert plain.run_id != again.run_id
    assert open_run(recipe, Retry(("media_missing",))).run_id == again.run_id


def test_the_recipe_of_an_output_is_found_where_a_run_was_begun_and_nowhere_else(recipe, tmp_path):
    with pytest.raises(GexError, match="holds no data set, and no run was begun there"):
        find_recipe(str(tmp_path))
    begin(open_run(recipe))
    found = find_recipe(recipe.output_uri)
    assert (found.hash, found.output_uri) == (recipe.hash, recipe.output_uri)
    assert found.locate("clips.jsonl") == recipe.locate("clips.jsonl")
