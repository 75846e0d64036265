"""Figures of a training whose output is on an object store: what is there when its process dies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import ExitStack

import pytest
import torch

from gex_pipeline import storage
from tests.end_to_end.object_store import ObjectStore
from tests.trainer.tiny_recipes import ROOT, tables_of, tiny_recipe, train_here, write_recipe
from trainer.processes import Processes
from trainer.record import WANDB_RUN
from trainer.sinks import LOG, open_record

ALONE = Processes(0, 1, torch.device("cpu"))
KILLED_WITH_ITS_SECOND_CHECKPOINT_THERE = """
import os, signal, sys
from trainer import checkpoint, train

save = checkpoint.Checkpoints.save

def save_and_die(self, state, progress):
    save(self, state, progress)
    if progress.step == 6:
        os.kill(os.getpid(), signal.SIGKILL)

checkpoint.Checkpoints.save = save_and_die
train.main(sys.argv[1:])
"""


@pytest.fixture
def bucket(monkeypatch):
    store = ObjectStore()
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
    for name, value in (("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    yield store.make_bucket("figures")
    store.close()


def ignore(_line: str) -> None:
    """Nobody listens."""


def lines_at(uri: str) -> list[dict]:
    return [json.loads(line) for line in storage.read_bytes(f"{uri}/{LOG}").splitlines()]


@pytest.mark.slow
def test_a_training_on_an_object_store_that_is_killed_and_goes_on_has_the_line_of_every_step_once(
    bucket, numbered_output, tmp_path
):
    """Figures came there when a training ended: what a killed one had written before its checkpoint was lost."""
    output = f"{bucket}/training"
    changes = ({"data": {"held_out_share": 0, "granularities": {"IT": {}}}}, {"checkpoints": {"every_steps": 3}})
    recipe = write_recipe(tmp_path / "train.toml", tables_of(numbered_output, output, *changes))
    command = [sys.executable, "-c", KILLED_WITH_ITS_SECOND_CHECKPOINT_THERE, str(recipe)]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    before = lines_at(output)
    assert [line["step"] for line in before] == [0, 1, 2, 3, 4, 5]
    outcome, _ = train_here(tiny_recipe(numbered_output, output, *changes))
    assert (outcome.first_step, outcome.num_steps) == (6, 8)
    after = lines_at(output)
    assert [line["step"] for line in after] == list(range(8))
    assert after[:6] == before


def test_what_was_kept_is_taken_up_again_and_lines_of_steps_that_are_taken_again_are_cut_off(bucket, tmp_path):
    recipe = tiny_recipe(tmp_path, f"{bucket}/run")
    with ExitStack() as never_left:  # before the test is over: its process is as good as dead
        record = never_left.enter_context(open_record(recipe, ALONE, range(0, 9), ignore))
        for step in range(4):
            record.write(step, {"loss/IT": 1.0})
        assert not storage.exists(f"{bucket}/run/{LOG}")
        record.keep()
        record.write(4, {"loss/IT": 1.0})
        assert [line["step"] for line in lines_at(f"{bucket}/run")] == [0, 1, 2, 3]
        with open_record(recipe, ALONE, range(2, 9), ignore) as record:
            record.write(2, {"loss/IT": 2.0})
            record.keep()
            assert [(line["step"], line["loss/IT"]) for line in lines_at(f"{bucket}/run")] == [(0, 1), (1, 1), (2, 2)]


def test_points_of_tensorboard_are_kept_too(bucket, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = tiny_recipe(tmp_path, f"{bucket}/run", {"record": {"tensorboard": True}})
    with ExitStack() as never_left:
        for first, loss in ((0, 1.0), (2, 2.0)):
            record = never_left.enter_context(open_record(recipe, ALONE, range(first, 9), ignore))
            for step in range(first, first + 3):
                record.write(step, {"loss/IT": loss})
            record.keep()
        for file in storage.list_files(f"{bucket}/run/tensorboard/*"):
            (tmp_path / storage.name_of(file.uri)).write_bytes(storage.read_bytes(file.uri))
        events = EventAccumulator(str(tmp_path))
        events.Reload()
        points = [(event.step, event.value) for event in events.Scalars("loss/IT")]
        assert points == [(0, 1), (1, 1), (2, 2), (3, 2), (4, 2)]


def test_the_run_at_weights_and_biases_is_named_and_its_files_which_still_grow_are_left_alone(
    bucket, tmp_path, monkeypatch
):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    recipe = tiny_recipe(tmp_path, f"{bucket}/run", {"record": {"wandb_project": "gex-tests"}})
    with open_record(recipe, ALONE, range(0, 9), ignore) as record:
        record.write(0, {"loss/IT": 1.0})
        record.keep()
        name = storage.read_bytes(f"{bucket}/run/{WANDB_RUN}")
        assert len(name.strip()) == 16
        assert storage.list_files(f"{bucket}/run/wandb/*/*") == []
    assert storage.read_bytes(f"{bucket}/run/{WANDB_RUN}") == name
    assert storage.list_files(f"{bucket}/run/wandb/*/*.wandb")


def test_a_local_output_is_kept_as_it_is_written(tmp_path):
    recipe = tiny_recipe(tmp_path, tmp_path / "run")
    with open_record(recipe, ALONE, range(0, 9), ignore) as record:
        record.write(0, {"loss/IT": 1.0})
        file = tmp_path / "run" / LOG
        before = file.stat()
        record.keep()
        assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
        assert [path.name for path in (tmp_path / "run").iterdir()] == [LOG]
