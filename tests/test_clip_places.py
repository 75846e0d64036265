"""Clips whose media, or whose rows, say another place than when they came: what is not published yet goes by it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gex_pipeline import ingest
from gex_pipeline.cli.main import main
from gex_pipeline.planning import view_clips
from gex_pipeline.run_state import open_run
from gex_pipeline.tables import Database
from tests.making_runs import clip_row, recipe_of, run_here, write_jsonl
from tests.media.making_clips import Make, make_clip

CLIP_S = 0.48
GRANULARITY = {
    "SVST": {},
    "LVLT": {"operation": "integrate", "from": "SVST", "min_clips": 2},
    "IT": {"operation": "compress_video", "from": "SVST"},
}


def row(source, number, folder="", **more):
    name = f"{folder}{source}-{number}.mp4"
    return clip_row(source, number, number + CLIP_S, f"{source} {number}", file=name, **more)


def media(kind, place):
    return {
        "files": {"kind": "files", "uri": f"{place}/{{YoutubeID}}-{{Start_timestamp}}.mp4"},
        "column": {"kind": "column", "column": "file", "root": place},
        "videos": {"kind": "videos", "uri": f"{place}/{{YoutubeID}}.mp4"},
    }[kind]


def fill(folder, clips):
    """The clips, and two films that they could be cut out of."""
    shutil.copytree(clips, folder)
    for number, name in enumerate("ab"):
        make_clip(folder / f"{name}.mp4", number, Make(num_frames=60))


def run(folder, rows, source):
    """Publish what these rows bring; the snapshot."""
    write_jsonl(folder / "clips.jsonl", rows)
    return run_here(recipe_of(folder, {"media": source}, GRANULARITY))


def table(folder, name, snapshot):
    path = folder / f"output/tables/{name}-{snapshot:06d}.parquet"
    return pq.read_table(path).to_pylist() if path.exists() else None


def samples(folder, granularity="LVLT"):
    """The texts of all samples."""
    receipts = sorted((folder / "output" / granularity).glob("*.parquet"))
    return [sample["text"] for receipt in receipts for sample in pq.read_table(receipt).to_pylist()]


def lost(folder, snapshot):
    return [(found["reason"], found["detail"]) for found in table(folder, "rejects", snapshot)]


@pytest.mark.parametrize("kind", ["files", "column", "videos"])
def test_a_clip_that_waits_is_taken_from_where_the_recipe_says_it_is_now(tmp_path, small_clips, kind):
    """It was looked for where it was first seen, for ever."""
    fill(tmp_path / "first", small_clips)
    run(tmp_path, [row("a", 0)], media(kind, "first"))
    tar = (tmp_path / "output/IT/IT-000000.tar").read_bytes()
    (tmp_path / "first").rename(tmp_path / "then")
    run(tmp_path, [row("a", 0), row("a", 1)], media(kind, "then"))
    assert samples(tmp_path) == ["a 0. a 1."]
    assert lost(tmp_path, 1) == []
    (waiting,) = table(tmp_path, "clips", 0)
    assert table(tmp_path, "media-moved", 1) == [
        {
            "clip_id": waiting["clip_id"],
            "media_uri": waiting["media_uri"].replace("/first/", "/then/"),
            "media_offset_bytes": None,
            "media_size_bytes": None,
            "media_stamp": None,
        }
    ]
    assert samples(tmp_path, "IT") == ["a 0", "a 1"]  # the clip that moved was in one already
    assert (tmp_path / "output/IT/IT-000000.tar").read_bytes() == tar


def test_a_collection_that_was_moved_with_recipe_and_output_goes_on_and_is_verified(tmp_path, small_clips, capsys):
    old, new = tmp_path / "old", tmp_path / "new"
    fill(old / "clips", small_clips)
    run(old, [row("a", 0), row("a", 1), row("b", 0)], media("files", "clips"))
    old.rename(new)
    run(new, [row("a", 0), row("a", 1), row("b", 0), row("b", 1)], media("files", "clips"))
    assert samples(new) == ["a 0. a 1.", "b 0. b 1."]
    assert len(table(new, "media-moved", 1)) == 3
    assert main(["shards", "verify", str(new / "output"), "--deep", "--jobs", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == []  # nor a note of a clip that is no longer there


def ingested(folder, source):
    """What ingest says and takes, over an output that another recipe made."""
    with Database(threads=1) as database:
        found = ingest.ingest(database, open_run(recipe_of(folder, source, GRANULARITY), accept_changes=True))
        return found, database.query("SELECT * FROM clips_new")


def test_clips_that_moved_are_no_news_alone_and_are_told(tmp_path, small_clips):
    fill(tmp_path / "first", small_clips)
    run(tmp_path, [row("a", 0), row("b", 0)], media("files", "first"))
    (tmp_path / "first").rename(tmp_path / "then")
    found, clips = ingested(tmp_path, {"media": media("files", "then")})
    assert (clips, found.account.num_known) == ([], 2)
    assert found.notes == ("2 known clips lie elsewhere now; what is not made of them yet is made from there",)
    assert run(tmp_path, [row("a", 0), row("b", 0)], media("files", "then")) is None
    assert table(tmp_path, "media-moved", 1) is None
    run(tmp_path, [row("a", 0), row("a", 1), row("b", 0)], media("files", "then"))
    assert samples(tmp_path) == ["a 0. a 1."]


def test_where_nothing_moved_nothing_is_written_of_it(tmp_path, small_clips):
    """Of two rows of a clip the one counts that it was taken from, wherever the other says that it is."""
    fill(tmp_path / "clips", small_clips)
    rows = [row("a", 0), row("a", 0, "z/"), row("b", 0)]
    run(tmp_path, rows, media("column", "clips"))
    rows[2] = {**rows[2], "Caption": "another caption", "note": "a new column"}
    run(tmp_path, [*reversed(rows), row("a", 1)], media("column", "clips"))
    assert samples(tmp_path) == ["a 0. a 1."]
    assert table(tmp_path, "media-moved", 1) is None


def test_the_newest_place_counts_also_when_it_is_the_first_one_again(tmp_path, small_clips):
    fill(tmp_path / "here", small_clips)
    fill(tmp_path / "there", small_clips)
    run(tmp_path, [row("a", 0)], media("files", "here"))
    run(tmp_path, [row("a", 0), row("b", 0)], media("files", "there"))
    shutil.rmtree(tmp_path / "there")
    run(tmp_path, [row("a", 0), row("b", 0), row("b", 1)], media("files", "here"))
    assert samples(tmp_path) == ["b 0. b 1."]
    assert [len(table(tmp_path, "media-moved", number)) for number in (1, 2)] == [1, 2]
    run(tmp_path, [row(name, number) for name in "ab" for number in (0, 1)], media("files", "here"))
    assert samples(tmp_path) == ["b 0. b 1.", "a 0. a 1."]
    assert table(tmp_path, "media-moved", 3) is None


def test_a_row_that_is_rejected_now_and_one_that_is_gone_move_nothing(tmp_path, small_clips):
    fill(tmp_path / "clips", small_clips)
    rows = [row("a", 0), row("b", 0), row("b", 1)]
    run(tmp_path, rows[:2], media("column", "clips"))
    run(tmp_path, [{**rows[0], "file": "../a-0.mp4"}, rows[2]], media("column", "clips"))
    assert samples(tmp_path) == ["b 0. b 1."]
    assert table(tmp_path, "media-moved", 1) is None


def test_a_plan_that_is_only_looked_at_has_the_places_of_now(tmp_path, small_clips):
    fill(tmp_path / "first", small_clips)
    run(tmp_path, [row("a", 0)], media("files", "first"))
    write_jsonl(tmp_path / "clips.jsonl", [row("a", 0), row("a", 1)])
    recipe = recipe_of(tmp_path, {"media": media("files", "then")}, GRANULARITY)
    with Database(threads=1) as database:
        now = open_run(recipe, accept_changes=True)
        ingest.ingest(database, now)
        view_clips(database, now)
        places = database.query("SELECT media_uri FROM clips ORDER BY start_s")
    assert [Path(place["media_uri"]).relative_to(tmp_path) for place in places] == [
        Path("then/a-0.mp4"),
        Path("then/a-1.mp4"),
    ]


def test_a_clip_that_is_not_there_is_told_with_the_folder_it_was_looked_for_in(tmp_path, small_clips):
    fill(tmp_path / "clips", small_clips)
    run(tmp_path, [row("a", 0), row("a", 1), row("a", 2, "wrong/")], media("column", "clips"))
    assert samples(tmp_path) == ["a 0. a 1."]
    assert lost(tmp_path, 0) == [("media_missing", f"'{tmp_path}/clips/wrong/a-2.mp4' does not exist")] * 2
