"""The source clips that shards are compared with: read once for all of them, each shard's own, where they lie now."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gex_pipeline import storage
from gex_pipeline.shards.checks import verify_shard
from gex_pipeline.shards.manifest import read_manifest
from gex_pipeline.shards.source_clips import SourceClips, sorted_clips
from gex_pipeline.shards.target import open_target
from gex_pipeline.shards.verify import shard_checks
from tests.report import outputs
from tests.shards import damage

IDS = [outputs.clip_id(number) for number in range(3)]


def add_snapshots(output, tables):
    """Publish snapshots that have these tables, by name, and nothing else."""
    manifest = read_manifest(str(output))
    assert manifest
    added = []
    for number, own in enumerate(tables, 1):
        paths = {f"tables/{name}-{number:06d}.parquet": rows for name, rows in own.items()}
        for path, rows in paths.items():
            pq.write_table(pa.Table.from_pylist(rows), output / path)
        added.append(replace(outputs.snapshot(number, {}, (), [], {}), tables=tuple(paths)))
    outputs.publish(output, replace(manifest, snapshots=(*manifest.snapshots, *added)))


def test_tables_of_clips_are_read_once_however_many_shards_are_looked_at(whole, monkeypatch):
    read = []
    copied = storage.local_copy
    monkeypatch.setattr(storage, "local_copy", lambda uri, *more: read.append(uri) or copied(uri, *more))
    target = open_target([str(whole)])
    with sorted_clips(target) as clips:
        checks = shard_checks(target, clips, is_deep=True)
        assert [verify_shard(check) for check in checks] == [[], [], []]
        assert all(len(pickle.dumps(item)) < 400 for item in clips)
    assert sum(uri.endswith("clips-000000.parquet") for uri in read) == 1


def test_a_shard_has_its_own_clips_at_their_newest_place(output):
    moved = [{"clip_id": IDS[0], "media_uri": uri, "media_offset_bytes": at} for uri, at in (("a", 1), ("b", 2))]
    again = {"clip_id": IDS[1], "start_s": 0.0, "end_s": 9.0, "media_uri": "late"}
    add_snapshots(output, [{"clips": [again], "media-moved": moved[:1]}, {"media-moved": moved[1:]}])
    target = open_target([str(output)])
    with sorted_clips(target) as clips:
        assert [item.carried().by_id() for item in clips] == [item.by_id() for item in clips]
        found = {shard.granularity: item.by_id() for shard, item in zip(target.shards, clips, strict=True)}
    for shard in target.shards:
        named = {
            segment["clip_id"] for row in pq.read_table(shard.receipt_uri).to_pylist() for segment in row["segments"]
        }
        assert set(found[shard.granularity]) == named
    places = {key: (row["media_uri"], row["media_offset_bytes"]) for key, row in found["LVLT"].items()}
    assert (places[IDS[0]], places[IDS[1]]) == (("b", 2), ("late", None))
    assert found["LVLT"][IDS[1]]["end_s"] == 9.0
    assert places[IDS[2]][0].endswith("clip2.mp4")


@pytest.mark.parametrize("rows_a_group", [1, 3, 7, 100])
def test_a_shard_s_clips_are_found_wherever_the_row_groups_end(tmp_path, rows_a_group):
    numbers = [0, 0, 0, 1, 3, 3, 3, 3, 3, 3, 3, 5]
    table = pa.table({"shard": numbers, "clip_id": [f"c{at}" for at in range(len(numbers))]})
    pq.write_table(table, tmp_path / "clips.parquet", row_group_size=rows_a_group)
    for shard in range(7):
        clips = SourceClips(str(tmp_path / "clips.parquet"), shard)
        expected = {f"c{at}" for at, number in enumerate(numbers) if number == shard}
        assert set(clips.by_id()) == set(clips.carried().by_id()) == expected


def test_a_receipt_damaged_inside_costs_its_own_clips_only(verify, output):
    receipt = output / "LVLT" / "LVLT-000000.parquet"
    content = bytearray(receipt.read_bytes())
    content[4:200] = bytes(196)
    receipt.write_bytes(content)
    done = verify(output, "--deep", "--granularity", "LVLT")
    assert {"receipt"} <= set(done.checks())
    assert "joint" not in verify(output, "--deep").checks()


def test_a_damaged_table_of_clips_is_told_and_everything_else_is_verified(verify, output):
    damage.flip(damage.tar(output, "IT"), 700)
    (output / "tables" / "clips-000000.parquet").write_bytes(b"PAR1 no table PAR1")
    done = verify(output, "--deep")
    assert {"sha256", "tables"} <= set(done.checks())
    assert "joint" not in done.checks()
    assert any("joints are not compared" in finding["found"] for finding in done.findings("tables"))
