"""What publishing counts, lists and asks of storage; whole publications are in tests/end_to_end."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyarrow.parquet as pq
import pytest

from gex_pipeline import storage
from gex_pipeline.errors import BalanceError
from gex_pipeline.receipts import read_receipt, write_table
from gex_pipeline.run_state import begin, end_without_snapshot, open_run
from gex_pipeline.shard_job import build_shard
from gex_pipeline.stages import build, prepare, publish
from gex_pipeline.stages.publish import _drop_empty_shards, _first, _media_extension
from gex_pipeline.tables import Database
from tests.making_runs import LVLT, clip_row, recipe_of, write_jsonl

SHORT = {"operation": "compress_text", "summarizer": {"backend": "extractive"}}


def test_the_ending_of_media_that_are_passed_on_is_that_of_what_they_were_made_of(tmp_path):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row()])
    images = {"operation": "compress_video", "from": "LVLT"}
    nodes = {"LVLT": LVLT, "IT": images, "LVST": SHORT | {"from": "LVLT"}, "IST": SHORT | {"from": "IT"}}
    run = open_run(recipe_of(tmp_path, granularity={"SVST": {}, **nodes, "IXT": SHORT | {"from": "IST"}}))
    found = {name: _media_extension(run, run.recipe.graph.nodes[name]) for name in run.recipe.graph.nodes}
    assert found == {"SVST": "mp4", "LVLT": "mp4", "IT": "jpg", "LVST": "mp4", "IST": "jpg", "IXT": "jpg"}


def test_parents_in_no_account_are_counted_and_only_the_first_is_fetched():
    with Database(threads=1) as database:
        for name in ("build_losses", "summary_losses", "excluded"):
            database.execute(f"CREATE TABLE {name} (id VARCHAR)")
        database.execute("CREATE TABLE receipts AS SELECT ['clip-3'] AS parents")
        database.execute("CREATE TABLE parents AS SELECT 'clip-' || range AS id FROM range(8)")
        assert _first(database, "account_nowhere") == [{"id": "clip-0", "num": 7}]
        database.execute("DELETE FROM parents WHERE id <> 'clip-3'")
        assert _first(database, "account_nowhere") == []


def built(folder: Path, small_clips: Path, output: str, monkeypatch: pytest.MonkeyPatch):
    """A run with two shards of LVLT whose clips are there and one whose clips are gone, up to publishing."""
    shutil.copytree(small_clips, folder / "clips")
    names = [f"{source}-{number}" for source in "abc" for number in range(2)]
    rows = [clip_row(name[0], name[2], int(name[2]) + 0.48, f"clip {name}", file=f"{name}.mp4") for name in names]
    write_jsonl(folder / "clips.jsonl", rows)
    media = {"media": {"kind": "column", "column": "file", "root": "clips"}}
    recipe = recipe_of(folder, media, output=output, shards={"max_samples": 1})
    run = begin(open_run(recipe))
    prepare.ingest_clips(run)
    monkeypatch.setattr(build, "run_shards", lambda job, shards, *_: [build_shard(job, shard) for shard in shards][:0])
    assert build.build_shards(run, run.recipe.graph.nodes["LVLT"]) == 3
    return run


def of(requests, *parts):
    """The methods of the requests whose path and query hold these parts."""
    return sorted(method for method, path in requests if all(part in path for part in parts))


def test_what_lies_in_a_store_is_asked_for_by_listings_and_each_receipt_is_read_once_a_stage(
    world, small_clips, tmp_path, monkeypatch
):
    run = built(tmp_path, small_clips, f"{world.make_bucket('few-requests')}/out", monkeypatch)
    receipts = [f"/LVLT/LVLT-{number:06d}.parquet" for number in range(3)]
    first = len(world.proxy.requests)
    assert build.build_shards(run, run.recipe.graph.nodes["LVLT"]) == 0
    asked = world.proxy.requests[first:]
    assert [of(asked, f"/out{receipt}") for receipt in receipts] == [["GET", "HEAD"]] * 3
    assert of(asked, ".tar") == []

    checkpoints = [run.layout.part("summaries-LVLT", 0, f"p{number}") for number in range(3)]
    for checkpoint in checkpoints:
        storage.publish_bytes(b"", checkpoint)
    (losses,) = storage.list_files(f"{run.layout.output_uri}/tables/losses/*")
    first = len(world.proxy.requests)
    entry = publish.publish(run).granularities["LVLT"]
    asked = world.proxy.requests[first:]
    assert [of(asked, f"/out{receipt}") for receipt in receipts] == [["GET", "HEAD"]] * 3
    assert of(asked, ".tar") == []
    assert ["out/"] not in [parse_qs(urlsplit(path).query).get("prefix") for _, path in asked]  # all there is
    assert (len(entry.shards), entry.totals["shards"], entry.totals["samples"]) == (2, 2, 2)
    assert not any(map(storage.exists, [*checkpoints, losses.uri]))


def test_what_a_run_without_a_snapshot_has_made_is_removed(small_clips, tmp_path, monkeypatch):
    run = built(tmp_path, small_clips, "output", monkeypatch)
    receipts = [run.layout.receipt("LVLT", number) for number in range(3)]
    (losses,) = storage.list_files(f"{run.layout.output_uri}/tables/losses/*")
    removed = []
    monkeypatch.setattr(storage, "remove", lambda uri: removed.append(uri) or Path(uri).unlink())
    _drop_empty_shards(run)
    assert removed[-1] == losses.uri  # without its losses, and with its receipt, a shard would not be built again
    assert sorted(removed[:-1]) == receipts
    end_without_snapshot(run)
    assert not [path for path in Path(run.layout.output_uri, "tables").rglob("*") if path.is_file()]


@pytest.mark.parametrize("damage", ["receipt missing", "receipt torn", "receipt of another run", "tar shorter"])
def test_a_planned_shard_that_is_not_built_is_not_published(small_clips, tmp_path, monkeypatch, damage):
    run = built(tmp_path, small_clips, "output", monkeypatch)
    receipt, tar = Path(run.layout.receipt("LVLT", 1)), Path(run.layout.tar("LVLT", 1))
    if damage == "receipt missing":
        receipt.unlink()
    elif damage == "receipt torn":
        receipt.write_bytes(receipt.read_bytes()[:-9])
    elif damage == "receipt of another run":
        metadata = asdict(replace(read_receipt(str(receipt)), plan_digest="another"))
        write_table(str(receipt), pq.read_table(receipt, partitioning=None), metadata)
    else:
        tar.write_bytes(tar.read_bytes()[:-512])
    with pytest.raises(BalanceError, match="LVLT shard 1 is planned and not built; run the same command again"):
        publish.publish(run)
    assert not Path(run.layout.manifest).exists()
    assert build.build_shards(run, run.recipe.graph.nodes["LVLT"]) == 1
    assert publish.publish(run).granularities["LVLT"].totals["samples"] == 2
