"""Clips over which a process really crashes: they are lost, and neither the shard nor its other samples are."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from gex_pipeline import ray_worker
from gex_pipeline.rehearsal import Rehearsal
from gex_pipeline.run_state import open_run
from gex_pipeline.shard_job import build_shard
from tests.making_runs import clip_row, plan, recipe_of, write_jsonl

NAMES = ("a-0", "a-1", "a-2", "a-3", "a-4", "b-0", "b-1", "b-2")


@pytest.fixture
def rehearsed(world, small_clips, tmp_path):
    """Builds the clips with some texts changed; the samples and the losses, by source and by clip."""

    def build(**texts: str):
        (tmp_path / "clips").symlink_to(small_clips)
        rows = [
            clip_row(name[0], int(name[2]), int(name[2]) + 0.48, texts.get(name[0] + name[2], name), file=f"{name}.mp4")
            for name in NAMES
        ]
        write_jsonl(tmp_path / "clips.jsonl", rows)
        lvlt = {"operation": "fragile", "from": "SVST", "min_clips": 2}
        source = {"media": {"kind": "column", "column": "file", "root": "clips"}}
        recipe = recipe_of(tmp_path, source, {"SVST": {}, "LVLT": lvlt})
        job, (shard,) = plan(open_run(recipe), "LVLT")
        with Rehearsal(job) as rehearsal:
            result = build_shard(job, shard, rehearsal.make)
        samples = pq.read_table(job.layout.receipt("LVLT", shard)).to_pylist()
        found = {row["source_id"]: [segment["text"] for segment in row["segments"]] for row in samples}
        losses = job.layout.losses("LVLT", shard)
        rows = pq.read_table(losses).to_pylist() if result.num_lost else []
        return found, {json.loads(row["row"])["text"]: (row["reason"], row["detail"]) for row in rows}

    return build


def test_a_clip_that_crashes_a_process_is_lost_and_its_sample_is_made_without_it(rehearsed):
    found, lost = rehearsed(a2="a crash")
    assert found == {"a": ["a-0", "a-1", "a-3", "a-4"], "b": ["b-0", "b-1", "b-2"]}
    assert lost == {"a crash": ("undecodable", "it crashed a process (SIGSEGV)")}


def test_clips_that_crash_a_process_only_together_are_all_lost_and_say_so(rehearsed):
    found, lost = rehearsed(b0="one of a pair", b2="the other of the pair")
    assert list(found) == ["a"]
    detail = "making its sample crashed a process (SIGSEGV)"
    assert lost == dict.fromkeys(["one of a pair", "b-1", "the other of the pair"], ("undecodable", detail))


def test_too_few_clips_that_are_left_over_are_excluded(rehearsed):
    found, lost = rehearsed(b0="a crash", b1="another crash")
    assert list(found) == ["a"]
    assert {text: reason for text, (reason, _) in lost.items()} == {
        "a crash": "undecodable",
        "another crash": "undecodable",
        "b-2": "too_few_clips",
    }


def test_a_process_that_was_killed_from_outside_blames_no_clip(rehearsed):
    found, lost = rehearsed(b1="killed for memory")
    assert found["b"] == ["b-0", "killed for memory", "b-2"]
    assert lost == {}


@pytest.mark.parametrize(("num_deaths", "is_rehearsed"), [(0, False), (1, False), (2, True), (3, True)])
def test_a_shard_is_rehearsed_from_the_second_death_of_a_worker_on(monkeypatch, num_deaths, is_rehearsed):
    """One death may be the machine's or a person's; what two died of would take the third as well."""

    class Watched:
        def __init__(self, job):
            self.make = "in a child"

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    made = []
    monkeypatch.setattr(ray_worker, "Rehearsal", Watched)
    monkeypatch.setattr(ray_worker, "_num_deaths", lambda: num_deaths)
    monkeypatch.setattr(ray_worker, "build_shard", lambda job, shard, *make: made.append((shard, *make)))
    ray_worker.Builder(None)._build(7)
    assert made == [(7, "in a child") if is_rehearsed else (7,)]
