"""Rows of a run's timeline, with real tables; that a run writes them is in end_to_end/test_paper_recipe.py."""

from __future__ import annotations

import time

import pyarrow.parquet as pq
import pytest

from gex_pipeline import storage, timeline
from gex_pipeline.errors import GexError
from gex_pipeline.run_state import begin, open_run, read_state
from tests.making_runs import clip_row, recipe_of, write_jsonl

SHARD = {"shard": 4, "host": "far", "started_s": 50.0, "seconds": 2.0, "cpu_s": 1.5, "num_samples": 7, "num_bytes": 900}


@pytest.fixture
def run(tmp_path):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row()])
    return begin(open_run(recipe_of(tmp_path)))


def published(run) -> list[dict]:
    timeline.publish_timeline(run)
    return pq.read_table(run.layout.table("timeline", run.snapshot)).to_pylist()


def parts(run) -> list[str]:
    return [file.uri for file in storage.list_files(run.layout.part_glob("timeline", run.snapshot))]


def test_a_stage_and_its_shards_are_rows_with_what_each_spent(run):
    before_s = time.time()
    with timeline.stage(run, "build", "SVST"):
        assert read_state(run.layout)["stage"] == "SVST build"
        timeline.add_shard({**SHARD, "bytes_read": 600, "lost": "{}"})
        timeline.add_cpu(40.0)
        time.sleep(0.05)
    shard, stage = published(run)
    assert shard == {
        "stage": "build",
        "granularity": "SVST",
        **{name: value for name, value in SHARD.items() if name != "num_bytes"},
        "held_cpu_s": None,
        "held_gpu_s": None,
        "bytes_read": 600,
        "bytes_written": 900,
        "is_complete": True,
    }
    assert (stage["stage"], stage["granularity"], stage["shard"], stage["is_complete"]) == ("build", "SVST", None, True)
    assert before_s <= stage["started_s"] <= time.time()
    assert 0.05 <= stage["seconds"] < 5
    assert 40 <= stage["cpu_s"] < 45
    assert stage["num_samples"] is None


def test_a_stage_that_failed_says_so_and_its_second_try_is_another_row(run):
    with pytest.raises(GexError), timeline.stage(run, "plan", "SVST"):
        raise GexError("no")
    with timeline.stage(run, "plan", "SVST"):
        pass
    assert [row["is_complete"] for row in published(run)] == [False, True]


def test_publishing_is_in_the_table_that_it_publishes_and_leaves_no_part_behind(run):
    with timeline.stage(run, timeline.PUBLISH):
        timeline.publish_timeline(run)
        for uri in parts(run):
            storage.remove(uri)
    (row,) = pq.read_table(run.layout.table("timeline", 0)).to_pylist()
    assert (row["stage"], row["is_complete"]) == ("publish", True)
    assert parts(run) == []


def test_many_shards_are_written_before_the_stage_ends(run, monkeypatch):
    monkeypatch.setattr(timeline, "_PART_ROWS", 2)
    with timeline.stage(run, "build", "SVST"):
        for shard in range(5):
            timeline.add_shard({**SHARD, "shard": shard})
        assert len(parts(run)) == 2  # a process that dies now loses one row
    assert sorted(row["shard"] for row in published(run) if row["shard"] is not None) == [0, 1, 2, 3, 4]


def test_a_part_that_cannot_be_written_ends_nothing_and_is_written_later(run, tmp_path):
    with timeline.stage(run, "build", "SVST"):
        place = tmp_path / "output/tables/parts"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("in the way")
        with timeline.stage(run, "build", "SVST"):
            timeline.add_shard(SHARD)
        assert place.read_text() == "in the way"
        timeline.add_shard({**SHARD, "shard": 5})
        place.unlink()
    assert [row["shard"] for row in published(run)] == [5, None]


def test_rows_that_could_not_be_written_wait_for_the_next_part(run, tmp_path, monkeypatch):
    monkeypatch.setattr(timeline, "_PART_ROWS", 1)
    with timeline.stage(run, "build", "SVST"):
        place = tmp_path / "output/tables/parts"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("in the way")
        timeline.add_shard(SHARD)
        place.unlink()
        timeline.add_shard({**SHARD, "shard": 5})
        assert len(parts(run)) == 1
    assert [row["shard"] for row in published(run)] == [4, 5, None]


def test_other_inputs_begin_another_timeline(run, tmp_path):
    with timeline.stage(run, "ingest"):
        pass
    assert len(parts(run)) == 1
    write_jsonl(tmp_path / "clips.jsonl", [clip_row(), clip_row("v2")])
    begin(open_run(recipe_of(tmp_path)))
    assert parts(run) == []


def test_without_a_stage_nothing_is_counted_and_no_table_is_made(run):
    timeline.add_shard(SHARD)
    timeline.add_cpu(1.0)
    timeline.publish_timeline(run)
    assert not storage.exists(run.layout.table("timeline", 0))


@pytest.mark.parametrize(("seconds", "num_parts"), [((0.0, 0.0), 3), ((1000.0, 1000.0), 0)])
def test_shards_are_written_when_some_time_has_gone_since_the_last_were(run, monkeypatch, seconds, num_parts):
    monkeypatch.setattr(timeline, "_PART_SECONDS", seconds)
    with timeline.stage(run, "build", "SVST"):
        for shard in range(3):
            timeline.add_shard({**SHARD, "shard": shard})
        assert len(parts(run)) == num_parts
    assert len(published(run)) == 4
