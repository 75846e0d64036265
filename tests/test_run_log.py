from __future__ import annotations

import json
import logging

import pytest

from gex_pipeline import run_log
from gex_pipeline.errors import GexError


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv(run_log.VARIABLE, str(tmp_path / "log"))
    run_log.install()
    yield tmp_path / "log"
    monkeypatch.delenv(run_log.VARIABLE)
    run_log.install()


def test_every_line_says_run_stage_granularity_and_shard(file):
    run_log.write("shard built", run="r1", stage="build", granularity="LVLT", shard=3, num_bytes=7)
    run_log.write("two\nlines: ü", level=logging.ERROR)
    first, second = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "info",
        "message": "shard built",
        "run": "r1",
        "stage": "build",
        "granularity": "LVLT",
        "shard": 3,
        "num_bytes": 7,
    }
    assert (second["level"], second["message"], second["shard"]) == ("error", "two\nlines: ü", None)


def test_another_file_takes_the_place_of_the_first_and_lines_are_written_once(file, monkeypatch):
    run_log.install()
    run_log.write("here")
    monkeypatch.setenv(run_log.VARIABLE, f"{file}2")
    run_log.install()
    run_log.write("there")
    assert [json.loads(path.read_text())["message"] for path in (file, file.with_name("log2"))] == ["here", "there"]


def test_a_file_that_cannot_be_written_is_named_with_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv(run_log.VARIABLE, str(tmp_path / "gone" / "log"))
    with pytest.raises(GexError, match=r"GEX_LOG_JSON names '.*/gone/log', which cannot be written: No such file"):
        run_log.install()
    monkeypatch.setenv(run_log.VARIABLE, str(tmp_path))
    with pytest.raises(GexError, match="cannot be written: Is a directory"):
        run_log.install()
    monkeypatch.delenv(run_log.VARIABLE)
    run_log.install()


def test_without_the_variable_nothing_is_written(monkeypatch, capfd):
    monkeypatch.delenv(run_log.VARIABLE, raising=False)
    run_log.install()
    run_log.write("nobody listens", level=logging.ERROR)
    assert capfd.readouterr() == ("", "")
