"""What every stage does besides its work, without a server."""

from __future__ import annotations

import json

import pytest

from flows.stages import _may_pass, failed, stage
from gex_pipeline import run_log
from gex_pipeline.errors import BalanceError, GexError, TransientError


@pytest.fixture
def log_to(monkeypatch):
    """Names the file of the log; afterwards nothing is logged."""
    yield lambda path: monkeypatch.setenv(run_log.VARIABLE, str(path))
    monkeypatch.delenv(run_log.VARIABLE)
    run_log.install()


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
