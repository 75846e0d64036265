"""Weights & Biases without a network: a run kept on this machine holds the figures."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.trainer.tiny_recipes import log_of, tiny_recipe, train_here

pytest.importorskip("wandb")
_BLOCK_BYTES = 32768


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def records_in(file: Path) -> list:
    """The records of a run's file: LevelDB's log after a header of seven bytes, each a message of wandb's."""
    from wandb.proto import wandb_internal_pb2

    content, at, found, parts = file.read_bytes(), 7, [], b""
    while at + 7 <= len(content):
        if _BLOCK_BYTES - at % _BLOCK_BYTES < 7:
            at += _BLOCK_BYTES - at % _BLOCK_BYTES
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return found


def figures_in(file: Path) -> dict[int, dict]:
    """What was logged, by step."""
    found: dict[int, dict] = {}
    for record in records_in(file):
        items = {(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item}
        if "_step" in items:
            found.setdefault(items["_step"], {}).update(items)
    return found


def test_a_run_kept_on_this_machine_holds_the_figures_and_the_recipe_of_a_training(offline, numbered_output, tmp_path):
    changes = {
        "data": {"granularities": {"IT": {}}},
        "optim": {"epochs": 1},
        "record": {"wandb_project": "gex-tests"},
    }
    output = tmp_path / "training"
    train_here(tiny_recipe(numbered_output, output, changes))
    (file,) = output.glob("wandb/offline-run-*/run-*.wandb")
    logged = figures_in(file)
    expected: dict[int, dict] = {}
    for line in log_of(output):
        expected.setdefault(line["step"], {}).update(line)
    assert len(expected) == 3
    for step, line in expected.items():
        figures = {key: value for key, value in line.items() if key != "step" and value is not None}
        assert {key: logged[step][key] for key in figures} == pytest.approx(figures)
    (run,) = [record.run for record in records_in(file) if record.HasField("run")]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert (run.project, run.display_name) == ("gex-tests", "tiny")
    assert config["data"]["batch_size"] == 4
    assert run.run_id == (output / "wandb-run").read_text().strip()


def test_a_training_that_goes_on_continues_its_run(offline, tmp_path):
    from trainer.record import WeightsAndBiases

    for step in (0, 1):
        run = WeightsAndBiases(tmp_path, "gex-tests", "tiny", {"seed": 0})
        run.write(step, {"loss/IT": 1.5, "unknown": None})
        run.close()
    files = list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert {file.stem for file in files} == {"run-" + (tmp_path / "wandb-run").read_text().strip()}
    deadline = time.monotonic() + 20  # wandb's own process may write the end after the run has been closed
    while len(logged := [figures for file in files for figures in figures_in(file).values()]) < 2:
        assert time.monotonic() < deadline, logged
        time.sleep(0.1)
    assert [figures["loss/IT"] for figures in logged] == [1.5, 1.5]
    assert not any("unknown" in figures for figures in logged)
