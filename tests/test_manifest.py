from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.shards.manifest import Account, GranularityEntry, Manifest, ShardEntry, Snapshot, read_manifest


def shard(number: int) -> ShardEntry:
    name = f"LVLT/LVLT-{number:06d}"
    return ShardEntry(f"{name}.tar", f"{name}.parquet", 10 + number, 1000, "ab" * 32)


def snapshot(number: int, **granularities) -> Snapshot:
    return Snapshot(
        snapshot=number,
        created="2026-01-01T00:00:00+00:00",
        recipe_hash="0123456789abcdef",
        recipe={"name": "ü", "granularity": {"SVST": {}}},
        inputs=({"uri": "a.csv", "num_bytes": 5, "modified_s": 1767225600.1234567},),
        granularities=granularities,
        accounts=(Account("ingest", "SVST", "rows", 10, 5, {"filtered_by_where": 2}, {"duplicate_clip": 1}, 2),),
        tables=("tables/clips-000000.parquet",),
        software={"python": "3.11"},
    )


def entry(*shards: ShardEntry) -> GranularityEntry:
    return GranularityEntry("integrate", "SVST", "mp4", shards, {"samples": 1})


TWO = Manifest(
    "t", (snapshot(0, LVLT=entry(shard(0), shard(1))), snapshot(1, LVLT=entry(shard(2)), IT=entry(shard(7))))
)


def test_a_manifest_is_read_as_it_was_written(tmp_path):
    storage.publish_bytes(TWO.to_json(), f"{tmp_path}/dataset.json")
    assert read_manifest(str(tmp_path)) == TWO
    assert read_manifest(str(tmp_path)).snapshots[0].inputs == TWO.snapshots[0].inputs


def test_where_nothing_is_published_there_is_no_manifest(tmp_path):
    assert read_manifest(str(tmp_path)) is None
    assert read_manifest(f"{tmp_path}/none") is None


def test_readers_take_the_shards_of_all_snapshots_up_to_theirs():
    assert [one.path for one in TWO.shards("LVLT")] == [shard(number).path for number in range(3)]
    assert TWO.shards("LVLT", snapshot=0) == [shard(0), shard(1)]
    assert TWO.shards("IT", snapshot=0) == []
    assert TWO.shards("IT") == [shard(7)]
    assert TWO.shards("none") == []
    assert TWO.granularity_names() == ("LVLT", "IT")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a data set's manifest"),
        (b"{", "not a data set's manifest"),
        (b"[]", "not a data set's manifest"),
        (b"null", "not a data set's manifest"),
        (b"5", "not a data set's manifest"),
        (b"\xff", "not a data set's manifest"),
        (b"{}", "not a data set's manifest: .*format_version"),
        (b'{"format_version": 99, "name": "x", "snapshots": []}', "format version 99; this version reads 1"),
        (b'{"format_version": 1, "name": "x", "snapshots": [5]}', "not a data set's manifest"),
        (b'{"format_version": 1, "name": "x", "snapshots": [{"snapshot": 0}]}', "not a data set's manifest"),
    ],
)
def test_what_is_no_manifest_is_refused_by_name(tmp_path, content, message):
    (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(GexError, match=f"{tmp_path}/dataset.json.*{message}"):
        read_manifest(str(tmp_path))


def test_a_field_of_another_version_is_refused(tmp_path):
    content = json.loads(TWO.to_json())
    content["snapshots"][0]["more"] = 1
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(GexError, match=r"more"):
        read_manifest(str(tmp_path))


def test_an_account_balances_only_when_everything_is_somewhere():
    account = TWO.snapshots[0].accounts[0]
    assert account.difference == 0
    assert replace(account, num_in=11).difference == 1
    assert replace(account, rejected={}).difference == 1
    assert replace(account, num_known=3).difference == -1
