"""Runs by a schedule: a real server, a real worker, a cluster of two real nodes, the project's own deployments."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.end_to_end.running import (
    NO_MODELS,
    counted_again,
    metadata_of,
    source_table,
    write_metadata,
    write_recipe,
)
from tests.end_to_end.scheduling import Site, deployments_with, site
from tests.waiting import wait_for

# Each sample a shard, so that both nodes have some in hand when one dies.
BODY = """
[video]
force_encode = true
preset = "ultrafast"
[shards]
max_samples = 1
[granularity.SVST]
[granularity.LVLT]
operation = "integrate"
from = "SVST"
[granularity.LVST]
operation = "compress_text"
from = "LVLT"
summarizer = { backend = "extractive" }
gates = {}
"""
EVERY_S = 6


@pytest.fixture(scope="module")
def at_work():
    with site() as made:
        yield made


def recipe_at(made: Site, folder: Path, corpus: Path, clips: Path | None = None) -> Path:
    ray = f'[ray]\naddress = "{made.ray_address}"\n'
    return write_recipe(folder, source_table(corpus, clips) + ray + NO_MODELS + BODY)


@pytest.fixture(scope="module")
def told(at_work, corpus, tmp_path_factory):
    """Two runs that the schedule started; between them the metadata grow, in the first a node dies."""
    folder = tmp_path_factory.mktemp("scheduled")
    rows = metadata_of(corpus)
    late = [row for row in rows if row["YoutubeID"] == "VFJ82b2k5x_"]
    early = [row for row in rows if row["YoutubeID"] in ("-whkHrSQl47", "lzm8v_D9W90")]
    clips = write_metadata(folder / "clips.jsonl", early)
    recipe = recipe_at(at_work, folder, corpus, clips)
    file = deployments_with(folder, "nightly", [{"interval": EVERY_S, "timezone": "UTC", "slug": "soon"}])
    done = at_work.prefect("deploy", "--prefect-file", str(file), "--name", "nightly", GEX_RECIPE=str(recipe))
    assert done.returncode == 0, done.stdout + done.stderr
    wait_for(at_work.second_node_at_work, 60, "a shard in the second node's hand")
    os.kill(at_work.raylets[1], signal.SIGKILL)
    output = folder / "output"
    wait_for((output / "dataset.json").exists, 60, "the first snapshot")
    first = counted_again(output)
    write_metadata(folder / "next.jsonl", [*early, *late]).replace(clips)
    wait_for(lambda: len(published(at_work)) == 2, 60, "the second snapshot")
    deployment = at_work.deployment("expand/nightly")
    for schedule in deployment["schedules"]:
        at_work.api(f"deployments/{deployment['id']}/schedules/{schedule['id']}", method="DELETE")
    return first, counted_again(output), published(at_work)


def published(made: Site) -> list[dict]:
    """The runs that ended well and published something."""
    return [run for run in made.runs("expand/nightly", "COMPLETED") if "balance" in made.artifacts(run["id"])]


def test_two_scheduled_runs_over_a_cluster_that_loses_a_node_lose_and_double_nothing(told):
    """`counted_again` has looked for every clip and every sample, after the first run and after the second."""
    first, second, _ = told
    assert [account["num_in"] - account["num_used"] for account in first.last["accounts"]] == [0, 0, 0]
    assert sorted(row["source_id"] for row in first.samples("LVLT")) == ["-whkHrSQl47", "lzm8v_D9W90"]
    assert len(second.manifest["snapshots"]) == 2
    for name in ("LVLT", "LVST"):
        keys = [row["key"] for row in second.samples(name)]
        assert len(set(keys)) == len(keys) == 3


def test_the_second_snapshot_holds_the_new_groups_only(told):
    first, second, _ = told
    assert second.manifest["snapshots"][0] == first.manifest["snapshots"][0]
    new = second.last["granularities"]["LVLT"]["shards"]
    assert [shard["num_samples"] for shard in new] == [1]
    assert (second.ingest["num_known"], second.ingest["num_used"]) == (12, 5)


def test_the_scheduler_started_both_and_their_artifacts_show_balance_and_report(told, at_work):
    _, second, runs = told
    for run in runs:
        assert run["auto_scheduled"]
        artifacts = at_work.artifacts(run["id"])
        rows = [line.strip("|").split("|") for line in artifacts["balance"].splitlines()[2:]]
        assert len(rows) == 3
        assert {row[-1].strip() for row in rows} == {"0"}
        assert str(second.folder / "report" / "report.html") in artifacts["report"]
    assert (second.folder / "report" / "report.html").stat().st_size > 10_000


def test_a_deployment_whose_variable_is_not_set_is_not_made(at_work):
    done = at_work.prefect("deploy", "--prefect-file", "flows/prefect.yaml", "--name", "weekly")
    assert done.returncode != 0
    assert "set GEX_OUTPUT, and deploy again" in " ".join((done.stdout + done.stderr).split())
    assert at_work.deployment("verify/weekly") is None


def test_a_shard_that_cannot_be_built_is_named_with_stage_reason_and_the_command_that_goes_on(
    at_work, corpus, tmp_path
):
    recipe = recipe_at(at_work, tmp_path, corpus)
    in_the_way = tmp_path / "output" / "LVLT" / "LVLT-000000.tar"
    in_the_way.mkdir(parents=True)
    (in_the_way / "file").touch()
    state = at_work.ended(at_work.run("expand/nightly", recipe=str(recipe)))
    assert state["type"] == "FAILED"
    message = state["message"]
    assert message.startswith("stage 'build LVLT' failed: 1 shards of LVLT were not built (3 were and stay); ")
    assert "shard 0: " in message
    assert "LVLT-000000.tar" in message
    assert message.endswith(f"To go on: gex run {recipe}")


def test_a_flow_whose_process_was_killed_ends_as_crashed(at_work, corpus, tmp_path):
    recipe = recipe_at(at_work, tmp_path, corpus)
    run = at_work.run("expand/nightly", recipe=str(recipe))
    state_file = tmp_path / "output" / "run.json"
    wait_for(state_file.exists, 60, "the run's begin")
    os.kill(json.loads(state_file.read_text())["pid"], signal.SIGKILL)
    state = at_work.ended(run, 20)
    assert state["type"] == "CRASHED"
    assert "-9" in state["message"]
