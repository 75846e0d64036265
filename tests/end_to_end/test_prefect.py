"""What Prefect shows and does: names, states, artifacts, parameters, retries."""

from __future__ import annotations

import contextvars
import statistics
import threading
import time

import pytest
from pydantic import ValidationError

from gex_pipeline.errors import GexError, RecipeError
from tests.end_to_end.late_server import LateChatServer
from tests.end_to_end.running import counted_again, error_of, rows_of, run_flow, source_table, write_recipe


@pytest.fixture
def client(running):
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        yield client


def task_runs(client, state):
    """The flow run's tasks; the server hears of them by events, a moment after the flow has ended."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    seen: list[str] = []
    for _ in range(60):
        found = client.read_task_runs(flow_run_filter=chosen)
        before, seen = seen, sorted(run.name for run in found)
        if found and seen == before and all(run.state and run.state.is_final() and run.start_time for run in found):
            break
        time.sleep(0.5)
    return {run.name.split("-")[0]: run for run in sorted(found, key=lambda run: run.start_time)}


@pytest.fixture(scope="module")
def whole_run(running, corpus, tmp_path_factory):
    """A small run with a report and the state it ended in."""
    folder = tmp_path_factory.mktemp("seen")
    body = source_table(corpus) + (
        '[granularity.SVST]\n[granularity.LVLT]\noperation = "integrate"\nfrom = "SVST"\n'
        '[granularity.LVST]\noperation = "compress_text"\nfrom = "LVLT"\nsummarizer = { backend = "extractive" }\n'
        "gates = {}\n[scores]\nsentence_model = false\nbertscore_model = false\n"
    )
    return folder, run_flow(write_recipe(folder, body), report=True)


def test_every_stage_is_a_task_that_says_its_granularity(client, whole_run):
    _, state = whole_run
    assert state.is_completed()
    assert state.result() == 0
    runs = task_runs(client, state)
    assert list(runs) == [
        "look",
        "find damaged shards",
        "check tools",
        "ingest",
        "plan LVLT",
        "build LVLT",
        "summarise LVST",
        "plan LVST",
        "build LVST",
        "publish",
        "report",
    ]
    assert {run.state.type.value for run in runs.values()} == {"COMPLETED"}
    assert {run.run_count for run in runs.values()} == {1}


def test_the_balance_the_scores_and_the_report_are_artifacts(client, whole_run):
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    folder, state = whole_run
    found = client.read_artifacts(
        artifact_filter=ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id])
        )
    )  # fmt: skip
    artifacts = {artifact.key: artifact.data for artifact in found}
    assert set(artifacts) == {"balance", "report", "scores"}
    assert str(folder / "output/report/report.html") in artifacts["report"]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in artifacts["balance"].splitlines()]
    assert rows[0] == ["stage", "granularity", "in", "used", "known", "excluded", "rejected", "difference"]
    assert ["integrate", "LVLT", "26 clips", "24", "0", "2 too_few_clips", "0", "0"] in rows
    assert [row[-1] for row in rows[2:]] == ["0"] * (len(rows) - 2)
    told = [[cell.strip() for cell in line.strip("|").split("|")] for line in artifacts["scores"].splitlines()[2:]]
    values: dict[str, list[float]] = {}
    for row in rows_of(folder / "output/tables/scores-LVST-000000.parquet"):
        if row["state"] == "accepted":
            values.setdefault(row["score"], []).append(row["value"])
    assert told == [
        ["LVST", score, str(len(of)), f"{statistics.fmean(of):.3f}", f"{statistics.pstdev(of):.3f}"]
        for score, of in sorted(values.items())
    ]
    assert values


def test_the_run_is_on_the_server_that_the_environment_names(client, whole_run):
    run = client.read_flow_run(whole_run[1].state_details.flow_run_id)
    assert run.state.type.value == "COMPLETED"
    assert run.parameters["parameters"]["recipe"] == str(whole_run[0] / "recipe.toml")


def test_parameters_that_are_no_parameters_are_refused(running, tmp_path):
    from prefect.exceptions import ParameterTypeError

    from flows.expand import ExpandParameters, expand

    with pytest.raises(ValidationError, match="recipes"):
        ExpandParameters(recipes=tmp_path / "recipe.toml")
    with pytest.raises(ParameterTypeError, match="Extra inputs are not permitted"):
        expand({"recipe": str(tmp_path / "recipe.toml"), "overwrite": True})
    with pytest.raises(RecipeError, match="does not exist"):
        expand({"recipe": str(tmp_path / "recipe.toml")})


def test_an_error_that_may_pass_is_tried_again(client, corpus, tmp_path):
    """Nobody answers at the summariser's address until its task has failed; the second try finds the server."""
    server = LateChatServer()
    body = source_table(corpus) + (
        '[granularity.SVST]\n[granularity.LVLT]\noperation = "integrate"\nfrom = "SVST"\n'
        '[granularity.LVST]\noperation = "compress_text"\nfrom = "LVLT"\ngates = {}\n'
        f'summarizer = {{ backend = "http", model = "m", url = "{server.url}", api_key_env = "", max_retries = 0, '
        "accept_max_words = 60 }\n[scores]\nsentence_model = false\nbertscore_model = false\n"
    )
    opener = threading.Thread(target=contextvars.copy_context().run, args=(open_after_a_failure, server))
    opener.start()
    state = run_flow(write_recipe(tmp_path, body))
    opener.join()
    server.close()
    assert state.is_completed(), state.result(raise_on_failure=False)
    counts = {name: run.run_count for name, run in task_runs(client, state).items()}
    assert counts.pop("summarise LVST") == 2
    assert set(counts.values()) == {1}
    assert len(counted_again(tmp_path / "output").samples("LVST")) == 4


def open_after_a_failure(server):
    """Open the server when a task of the run waits for another try."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterState, TaskRunFilterStateName

    waiting = TaskRunFilter(state=TaskRunFilterState(type=None, name=TaskRunFilterStateName(any_=["AwaitingRetry"])))
    with get_client(sync_client=True) as client:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not client.read_task_runs(task_run_filter=waiting):
            time.sleep(0.1)
    server.open_again()


def test_an_error_that_stays_is_not_tried_again(client, corpus, tmp_path, monkeypatch):
    monkeypatch.delenv("SUMMARY_KEY", raising=False)
    body = source_table(corpus) + (
        '[granularity.SVST]\n[granularity.LVLT]\noperation = "integrate"\nfrom = "SVST"\n'
        '[granularity.LVST]\noperation = "compress_text"\nfrom = "LVLT"\n'
        'summarizer = { backend = "http", model = "m", url = "http://127.0.0.1:9/v1", api_key_env = "SUMMARY_KEY" }\n'
    )
    state = run_flow(write_recipe(tmp_path, body))
    error = error_of(state)
    assert isinstance(error, GexError)
    assert "environment variable SUMMARY_KEY is not set" in str(error)
    runs = task_runs(client, state)
    assert {name: (run.state.type.value, run.run_count) for name, run in runs.items()} == {
        "look": ("COMPLETED", 1),
        "find damaged shards": ("COMPLETED", 1),
        "check tools": ("FAILED", 1),
    }
    assert not (tmp_path / "output").exists()
