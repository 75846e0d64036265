"""Ray's workers that die over a clip, and those that would never start."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gex_pipeline import ray_jobs, storage
from gex_pipeline.errors import GexError, StuckError, TransientError
from gex_pipeline.ray_jobs import ScorerPool, run_shards
from gex_pipeline.receipts import read_receipt
from gex_pipeline.recipe import RaySettings
from gex_pipeline.run_state import begin, open_run
from gex_pipeline.summarize.settings import SummarizerSettings
from gex_pipeline.validate.settings import ScorerSettings
from tests.making_runs import clip_row, plan, recipe_of, write_jsonl

MEDIA = {"media": {"kind": "column", "column": "file", "root": "clips"}}
ROOT = Path(__file__).parents[2]
WITHOUT_MEMORY = """
import pickle, sys
from pathlib import Path
from gex_pipeline import ray_jobs
from gex_pipeline.errors import TransientError
from gex_pipeline.recipe import RaySettings

ray_jobs._ENVIRONMENT["RAY_task_oom_retries"] = "0"  # so that it takes less long
job, shards = pickle.loads(Path(sys.argv[1]).read_bytes())
with ray_jobs.ray_session(RaySettings(num_cpus=1)):
    try:
        ray_jobs.run_shards(job, shards, RaySettings(), print)
    except TransientError as error:
        print("ENDED", type(error).__name__, error)
"""
FRAGILE = {"SVST": {}, "LVLT": {"operation": "fragile", "from": "SVST", "min_clips": 2}}


def planned(folder, small_clips, text):
    """A shard a source; one clip of the first source has this text."""
    (folder / "clips").symlink_to(small_clips)
    names = ("a-0", "a-1", "a-2", "b-0", "b-1", "b-2")
    rows = [clip_row(name[0], int(name[2]), int(name[2]) + 0.48, name, file=f"{name}.mp4") for name in names]
    rows[1]["Caption"] = text
    write_jsonl(folder / "clips.jsonl", rows)
    return plan(begin(open_run(recipe_of(folder, MEDIA, FRAGILE, shards={"max_samples": 1}))), "LVLT")


def test_a_clip_that_kills_its_worker_every_time_is_lost_and_its_shard_is_built(ray_local, small_clips, tmp_path):
    """It used to end the run with 75, every time, and to name neither shard nor clip."""
    job, shards = planned(tmp_path, small_clips, "a crash")
    built = []
    assert run_shards(job, shards, RaySettings(), built.append) == []
    assert [row["num_samples"] for row in built] == [1, 1]
    assert sorted(row["lost"] for row in built) == ['{"undecodable": 1}', "{}"]
    (lost,) = [row for shard in shards for row in read_losses(job, shard)]
    assert (json.loads(lost["row"])["text"], lost["state"], lost["reason"]) == ("a crash", "rejected", "undecodable")


def read_losses(job, shard):
    path = job.layout.losses("LVLT", shard)
    return pq.read_table(path).to_pylist() if storage.exists(path) else []


def test_a_worker_that_dies_for_no_clip_s_fault_ends_the_job_and_what_is_missing_is_named(
    ray_local, small_clips, tmp_path
):
    job, shards = planned(tmp_path, small_clips, "a worker dies")
    built = []
    with pytest.raises(TransientError, match=r"of LVLT broke off .* of 2 shards are missing, the first \d") as error:
        run_shards(job, shards, RaySettings(), built.append)
    (missing,) = [shard for shard in shards if read_receipt(job.layout.receipt("LVLT", shard)) is None]
    assert str(missing) in str(error.value).partition("the first ")[2].partition(";")[0]


def test_a_shard_for_which_there_is_too_little_memory_ends_the_job_and_the_remedy_is_named(small_clips, tmp_path):
    """Ray kills its worker and tries again for ever, whatever it was told of workers that die."""
    (tmp_path / "clips").symlink_to(small_clips)
    write_jsonl(tmp_path / "clips.jsonl", [clip_row("a", 0, 0.48, file="a-0.mp4")])
    job = plan(begin(open_run(recipe_of(tmp_path, MEDIA, {"SVST": {"pack": True}}))), "SVST")
    (tmp_path / "job").write_bytes(pickle.dumps(job))
    assert 0 < int(ray_jobs._ENVIRONMENT["RAY_task_oom_retries"]) <= 10
    with tempfile.TemporaryDirectory(prefix="gex-oom-", ignore_cleanup_errors=True) as folder:
        memory = {"RAY_memory_usage_threshold": "0.0001", "RAY_memory_monitor_refresh_ms": "100"}
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_MEMORY, str(tmp_path / "job")],
            env={**os.environ, **memory, "RAY_task_oom_retry_delay_base_ms": "10", "TMPDIR": folder},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    (ended,) = [line for line in done.stdout.splitlines() if line.startswith("ENDED")]
    assert ended.startswith(
        "ENDED TransientError the Ray job of SVST broke off (1 worker(s) were killed due to the node"
    )
    assert "; 1 of 1 shards are missing, the first 0; finished shards stay." in ended
    assert ended.endswith("[ray] memory_a_shard_bytes and max_shards give it more memory")


def test_a_job_that_finishes_no_shard_for_long_is_not_tried_again_by_the_same_run(
    ray_local, small_clips, tmp_path, monkeypatch
):
    """The stage was, three times, and each waited for as long again."""
    monkeypatch.setattr(ray_jobs, "_STUCK_S", 1e-6)
    job, shards = planned(tmp_path, small_clips, "a dog runs")
    with pytest.raises(
        StuckError, match=r"of LVLT finished no shard for .* hours; 2 of 2 shards are missing, the first"
    ):
        run_shards(job, shards, RaySettings(), print)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scorer_gpus": 1}, "room for 0 of 1 scoring workers with 0.5 CPUs and 1 GPUs each"),
        ({"scorers": 9}, "room for 8 of 9 scoring workers with 0.5 CPUs and 0 GPUs each"),
    ],
)
def test_scoring_workers_that_would_never_start_are_refused_by_the_names_of_their_settings(ray_local, settings, words):
    """Their first score used to be waited for without end, and without a word."""
    with pytest.raises(GexError, match=rf"{words}, which \[ray\] scorers and scorer_gpus ask for"):
        ScorerPool(ScorerSettings(), RaySettings(**settings))


@pytest.mark.parametrize(
    ("settings", "engine", "words"),
    [
        ({"scorer_gpus": 0.25}, {}, r"has 2 GPUs; one vLLM engine takes 2 .* the scoring workers 0\.25 beside it"),
        ({}, {"pipeline_parallel_size": 2}, "has 2 GPUs; one vLLM engine takes 4 "),
    ],
)
def test_an_engine_that_finds_no_gpu_beside_the_scoring_workers_is_refused(
    ray_local, monkeypatch, settings, engine, words
):
    """It used to be waited for, for `engine_timeout_s`."""
    two_gpus = {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}}
    monkeypatch.setattr("ray.nodes", lambda: [two_gpus])
    summarizer = SummarizerSettings(backend="vllm", model="m", engine={"tensor_parallel_size": 2, **engine})
    with pytest.raises(GexError, match=words):
        ScorerPool(ScorerSettings(), RaySettings(**settings), summarizer.engine_gpus)
    ray_jobs._check_scorers(RaySettings(scorer_gpus=0.25, autoscaling=True), summarizer.engine_gpus)
    ray_jobs._check_scorers(RaySettings(scorer_gpus=0.25), 1)
    assert SummarizerSettings(backend="extractive").engine_gpus == 0


@pytest.mark.parametrize(
    ("scorers", "nodes", "words"),
    [
        (
            4,
            [{"CPU": 2.0}],
            r"has 2 CPUs; one vLLM engine and the stages around it take 1\.3 and 4 scoring workers 2;",
        ),
        (None, [{"CPU": 1.0}], r"has 1 CPUs; .* take 1\.3 and 1 scoring workers 0\.5; .*\[ray\] num_cpus"),
        (12, [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 3.0}], r"has 7 CPUs; .* and 12 scoring workers 6;"),
    ],
)
def test_scoring_workers_that_leave_an_engine_no_cpu_are_refused(monkeypatch, scorers, nodes, words):
    """They took every CPU, and the engine was waited for, for `engine_timeout_s`."""
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])
    monkeypatch.setattr("ray.cluster_resources", lambda: nodes[0])
    asked = RaySettings(scorers=scorers)
    with pytest.raises(GexError, match=words):
        ray_jobs._check_scorers(asked, 1)
    ray_jobs._check_scorers(asked)  # summaries come from a server
    ray_jobs._check_scorers(asked.model_copy(update={"autoscaling": True}), 1)
    nodes.append({"CPU": 2.0})
    ray_jobs._check_scorers(asked, 1)


def test_on_a_cluster_that_adds_nodes_scoring_workers_are_waited_for(ray_local):
    asked = RaySettings(scorer_gpus=1)
    with pytest.raises(GexError, match="room for 0 of 1"):
        ray_jobs._check_scorers(asked)
    ray_jobs._check_scorers(asked.model_copy(update={"autoscaling": True}))
    ray_jobs._check_scorers(RaySettings(scorers=8))
