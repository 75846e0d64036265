"""What every stage does besides its work, without a server."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from prefect import Task
from prefect.exceptions import FailedRun
from prefect.states import Failed
from prefect.utilities.engine import collect_task_run_inputs_sync, resolve_inputs_sync

from flows.stages import _may_pass, failed, failure_of, stage
from gex_pipeline import run_log
from gex_pipeline.errors import BalanceError, GexError, StuckError, TransientError
from gex_pipeline.shards.manifest import Manifest


@pytest.fixture
def log_to(monkeypatch):
    """Names the file of the log; afterwards nothing is logged."""
    yield lambda path: monkeypatch.setenv(run_log.VARIABLE, str(path))
    monkeypatch.delenv(run_log.VARIABLE)
    run_log.install()


def test_the_error_of_a_flow_is_known_also_when_the_server_answers_without_its_data():
    """Its database was locked for a moment, and a run whose accounts did not balance ended with 1 instead of 3."""
    error = BalanceError("the accounts do not add up.")
    state = failed(error, "gex", "run", "x")
    assert failure_of(state) is error
    assert failure_of(Failed(message=state.message)) is error
    assert isinstance(failure_of(Failed(message="killed")), FailedRun)


def test_a_stage_logs_its_begin_and_end(log_to, tmp_path):
    log_to(tmp_path / "log")
    assert stage("double")(lambda number: 2 * number).fn(4) == 8
    lines = [json.loads(line) for line in (tmp_path / "log").read_text(encoding="utf-8").splitlines()]
    assert [(line["message"], line["stage"]) for line in lines] == [("begin", "double"), ("end", "double")]


def test_a_log_that_cannot_be_written_fails_the_stage_with_its_name_before_any_work(log_to, tmp_path):
    """It ended a run with the traceback of a FileNotFoundError."""
    log_to(tmp_path / "gone" / "log")
    done = []
    with pytest.raises(GexError, match="GEX_LOG_JSON names") as caught:
        stage("prepare")(done.append).fn(1)
    assert done == []
    assert failed(caught.value, "gex", "run").message.startswith("stage 'prepare' failed: GEX_LOG_JSON names ")


def test_only_an_error_that_says_it_may_pass_is_tried_again():
    errors = (TransientError("busy"), GexError("no"), BalanceError("lost"), OSError("of a defect"))
    assert [_may_pass(None, None, failed(error, "gex")) for error in errors] == [True, False, False, False]


def test_what_is_stuck_ends_the_run_for_now_and_is_not_tried_again_in_it():
    """Three more half hours were waited for the GPU of an engine that hung and kept it."""
    error = StuckError("gave no answer for 1800 s")
    assert error.transient
    assert not _may_pass(None, None, failed(error, "gex"))


def test_prefect_looks_into_no_argument_of_a_stage(monkeypatch):
    """It walked through every published shard of a run, twice a stage: five seconds of a hundred thousand shards."""
    manifest = Manifest("m", (Watched(),))
    handed = []
    monkeypatch.setattr(Task, "__call__", lambda _, *args, **kwargs: handed.extend([*args, *kwargs.values()]))
    stage("plan")(lambda run, node: None)(manifest, node=manifest)
    for value in handed:
        collect_task_run_inputs_sync(value)
        assert resolve_inputs_sync({"run": value}) == {"run": manifest}
    assert len(handed) == 2
    with pytest.raises(AssertionError, match="looked into"):
        collect_task_run_inputs_sync(manifest)


@dataclass(frozen=True, eq=False)
class Watched:
    """A snapshot that says when somebody reads it."""

    number: int = 0

    def __getattribute__(self, name):
        if name == "number":
            raise AssertionError("looked into")
        return super().__getattribute__(name)
