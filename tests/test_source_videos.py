"""Clips that are cut out of full source videos in an object store: what is fetched of them, and how often."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from gex_pipeline import storage
from gex_pipeline.run_state import open_run
from gex_pipeline.shard_job import build_shard
from tests.making_runs import clip_row, plan, recipe_of, write_jsonl
from tests.media.making_clips import Make, make_clip

NUM_CLIPS = 4


@pytest.fixture(scope="module")
def film(world, tmp_path_factory):
    """A recipe over a film of four seconds in a bucket, a clip a second, and of another one that is not there."""
    folder = tmp_path_factory.mktemp("film")
    bucket = world.make_bucket("films")
    path = make_clip(folder / "film.mp4", 3, Make(num_frames=100))
    storage.publish_file(path, f"{bucket}/film.mp4")
    rows = [clip_row(name, n, n + 1, f"part {n}") for name in ("film", "gone") for n in range(NUM_CLIPS)]
    write_jsonl(folder / "clips.jsonl", rows)
    source = {"media": {"kind": "videos", "uri": f"{bucket}/{{YoutubeID}}.mp4"}}
    lvlt = {"operation": "integrate", "from": "SVST", "min_clips": 2}
    granularity = {"SVST": {}, "LVLT": lvlt, "IT": {"operation": "compress_video", "from": "SVST"}}
    return recipe_of(folder, source, granularity), path.stat().st_size


def test_a_sample_fetches_a_film_once_for_all_its_clips(world, film):
    """Every clip used to have a copy of its own, all of them at once: 40 clips of 1 GB were 40 GB of scratch."""
    recipe, num_bytes = film
    job, (shard,) = plan(open_run(recipe), "LVLT")
    world.sent.clear()
    result = build_shard(job, shard)
    assert (result.num_samples, json.loads(result.lost)) == (1, {"media_missing": NUM_CLIPS})
    assert world.sent["/films/film.mp4"] == result.bytes_read == num_bytes
    (sample,) = pq.read_table(job.layout.receipt("LVLT", shard)).to_pylist()
    assert [segment["start_s"] for segment in sample["segments"]] == list(range(NUM_CLIPS))


def test_samples_of_a_clip_each_fetch_their_film_anew(world, film):
    """Samples of a shard are in the order of their keys, so that those of one film are seldom side by side."""
    recipe, num_bytes = film
    job, (shard,) = plan(open_run(recipe), "IT")
    world.sent.clear()
    result = build_shard(job, shard)
    assert result.num_samples == NUM_CLIPS
    assert world.sent["/films/film.mp4"] == result.bytes_read == NUM_CLIPS * num_bytes
