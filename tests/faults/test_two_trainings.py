"""Two trainings in one output: one trains, the other ends before its first step; a restart is no second one.

Two had both ended well, each having removed the other's checkpoints.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gex_pipeline import run_lock, storage
from gex_pipeline.errors import GexError
from gex_pipeline.layout import Layout
from gex_pipeline.run_lock import HoldLostError, held, read_holder
from tests.end_to_end.object_store import ObjectStore
from tests.faults.watched_training import (
    after_step,
    checkpoint_steps,
    end,
    paused,
    paused_by,
    pausing,
    start,
    start_torchrun,
    start_two,
)
from tests.trainer.outputs import make_numbered_output
from tests.trainer.tiny_recipes import (
    LONGER,
    NUM_LONGER_STEPS,
    ROOT,
    steps_of,
    tables_of,
    tiny_recipe,
    train_here,
    weights_of,
    write_recipe,
)
from tests.waiting import wait_for
from trainer import launch
from trainer.export import TrainingOutput
from trainer.hold import holding
from trainer.processes import joined
from trainer.train import train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
ENDLESS = {"optim": {"epochs": 5000}}
RAY = ({"launch": {"num_processes": 2}}, {"checkpoints": {"every_steps": 2}})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_numbered_output(tmp_path_factory.mktemp("held"))


@pytest.fixture
def output(tmp_path):
    return tmp_path / "training"


@pytest.fixture
def recipe(dataset, tmp_path, output):
    return write_recipe(tmp_path / "train.toml", tables_of(dataset, output, LONGER))


@pytest.fixture
def endless(dataset, tmp_path, output):
    """The recipe of a training that goes on until it is told to stop."""
    return write_recipe(tmp_path / "endless.toml", tables_of(dataset, output, LONGER, ENDLESS))


def gex_train(recipe: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gex_pipeline.cli.main", "train", str(recipe)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@contextmanager
def ended_after(*processes: subprocess.Popen[str]):
    """No process outlives a test that fails."""
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def rewrite(output: Path, **changes: str) -> None:
    """Say something else in the lock, as one sign of life on another machine, this moment."""
    content = json.loads(storage.read_bytes(Layout(str(output)).run_lock))
    elsewhere = {"host": "elsewhere", "machine": "another boot", "renewed": datetime.now(UTC).isoformat()}
    storage.publish_bytes(json.dumps(content | elsewhere | changes).encode(), Layout(str(output)).run_lock)


def is_taken_over(output: Path) -> bool:
    """Whether the lock is another's; who held it may have been about to renew it when it was rewritten."""
    return read_holder(Layout(str(output))).token == "of another"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- a second training ------------------------------------------------------------------------------------------------


def test_a_second_training_ends_before_its_first_step_and_names_the_first_which_goes_on(endless, output):
    first = start(endless)
    with ended_after(first):
        after_step(output, 4, first)
        second = gex_train(endless)
        assert second.returncode == 1
        pattern = (
            rf"gex: {output} is held by process {first.pid} on [^\n]* Wait until that run ends, or stop it; [^\n]*\n"
        )
        assert re.fullmatch(pattern, second.stderr), second.stderr
        assert second.stdout == ""
        assert TrainingOutput(str(output)).kept()  # who reads is not asked
        first.send_signal(signal.SIGTERM)
        end(first, code=75)
    steps = [line["step"] for line in steps_of(output)]
    assert steps == list(range(len(steps)))
    assert checkpoint_steps(output)[-1] == len(steps)
    assert not (output / "run.lock").exists()


def test_all_processes_of_a_second_training_end(endless, recipe, output):
    first = start(endless)
    with ended_after(first):
        after_step(output, 0, first)
        second = start_two(recipe)
        with ended_after(*second):
            for rank, said in enumerate(end(*second, code=1)):
                assert f"process {rank}: {output} is held by process {first.pid} on " in said
                assert "Traceback" not in said
        assert first.poll() is None


def test_a_training_on_an_object_store_is_held_too(dataset, tmp_path, monkeypatch):
    store = ObjectStore()
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
    for name, value in (("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    uri = f"{store.make_bucket('trainings')}/training"
    made = tiny_recipe(dataset, uri, LONGER, {"optim": {"epochs": 1}})
    with (
        held(Layout(uri), "other"),
        pytest.raises(GexError, match=rf"^{uri} is held by process {os.getpid()} on "),
    ):
        train_here(made)
    assert storage.list_files(f"{uri}/**/*") == []
    train_here(made)
    assert storage.exists(f"{uri}/model/config.json")
    assert not storage.exists(f"{uri}/run.lock")
    store.close()


# --- a hold that is lost ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every_steps", [3, 100_000])
def test_a_training_whose_hold_was_taken_over_writes_no_checkpoint_and_no_picture_more(
    dataset, output, monkeypatch, every_steps
):
    """It finds that out where it would write one, or by itself long before that."""
    monkeypatch.setattr(run_lock, "_RENEW_S", 0.05 if every_steps > NUM_LONGER_STEPS else 1000.0)
    made = tiny_recipe(dataset, output, LONGER, ENDLESS, {"checkpoints": {"every_steps": every_steps}})
    before: dict[Path, bytes] = {}

    def say(line: str) -> None:
        found = re.match(r"step (\d+)/", line)
        if found and int(found[1]) >= 5 and not is_taken_over(output):
            rewrite(output, token="of another")
            before.update(contents(output))

    with joined({}) as processes, pytest.raises(HoldLostError, match=r"was ended by process \d+ on elsewhere since "):
        train(made, processes, say)
    after = contents(output)
    log = output / "log.jsonl"
    assert after.pop(log).startswith(before.pop(log))
    assert after == before
    assert checkpoint_steps(output) == ([3] if every_steps == 3 else [])
    assert is_taken_over(output)


def test_both_processes_end_when_the_hold_is_lost(endless, output):
    processes = start_two(endless)
    with ended_after(*processes):
        after_step(output, 4, processes[0])
        while processes[0].poll() is None:
            if not is_taken_over(output):
                rewrite(output, token="of another")
            time.sleep(0.05)
        for rank, said in enumerate(end(*processes, code=1)):
            assert f"process {rank}: the hold of this run on {output} was ended by " in said
            assert "Traceback" not in said
    assert not (output / "curve.svg").exists()


# --- a training that is started anew ----------------------------------------------------------------------------------


def test_processes_of_one_job_of_torchrun_take_the_hold_over_wherever_they_are_started_anew(tmp_path):
    """The process before may be on a machine that nobody hears from; another job waits for it."""
    layout, job = Layout(str(tmp_path)), {"TORCHELASTIC_RUN_ID": "job-7"}
    with joined(job) as first, holding(str(tmp_path), first):
        rewrite(tmp_path)
        for other in ({"TORCHELASTIC_RUN_ID": "job-8"}, {"TORCHELASTIC_RUN_ID": "none"}, {}):
            with joined(other) as second, pytest.raises(GexError, match="is held by process"):
                holding(str(tmp_path), second).__enter__()
        with joined(job) as anew, holding(str(tmp_path), anew) as hold:
            assert read_holder(layout).host != "elsewhere"
            hold.check()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("job", ["none", "job-7"])
def test_two_launches_by_hand_or_of_a_torchrun_without_an_id_are_not_the_same(job):
    with joined({"TORCHELASTIC_RUN_ID": job}) as first, joined({"TORCHELASTIC_RUN_ID": job}) as second:
        assert (first.launch == second.launch) is (job == "job-7")


def test_a_torchrun_that_starts_its_processes_anew_goes_on_with_the_hold(recipe, output):
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    # torch 2.13 lets processes that are started anew find the addresses of those before them in its own store
    own_store = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    process = start_torchrun(recipe, "--max-restarts", "1", *rendezvous, pause_after=4, **own_store)
    with ended_after(process):
        first = paused(recipe, process)
        assert first == read_holder(Layout(str(output))).pid
        os.kill(first, signal.SIGKILL)
        (said,) = end(process)
    assert "is held by" not in said
    assert [line["step"] for line in steps_of(output)] == list(range(NUM_LONGER_STEPS))
    assert weights_of(output)
    assert not (output / "run.lock").exists()


# --- under Ray Train --------------------------------------------------------------------------------------------------


def test_under_ray_train_a_second_training_waits_for_no_resources_and_writes_nothing(ray_local, dataset, output):
    with held(Layout(str(output)), "other"):
        with pytest.raises(GexError, match=rf"^{output} is held by process {os.getpid()} on ") as caught:
            launch.train_with_ray(tiny_recipe(dataset, output, LONGER, *RAY))
        assert not caught.value.transient
        assert [path.name for path in output.iterdir()] == ["run.lock"]


def test_of_two_trainings_under_ray_train_that_start_at_once_one_ends(ray_local, dataset, output, monkeypatch):
    """Nobody had the output when it was looked at."""
    monkeypatch.setattr(launch, "check_free", lambda _layout: None)
    with held(Layout(str(output)), "other"):
        with pytest.raises(GexError, match=rf"^{output} is held by process {os.getpid()} on ") as caught:
            launch.train_with_ray(tiny_recipe(dataset, output, LONGER, *RAY))
        assert not caught.value.transient
    assert not (output / "checkpoints").exists()


def test_ray_train_starts_the_first_process_anew_on_another_machine_and_goes_on(
    ray_local, dataset, output, tmp_path, monkeypatch
):
    """The one before it has left a lock whose machine nobody hears from."""
    killed: list[int] = []
    note = tmp_path / "paused"
    monkeypatch.setattr(launch, "_one_process", pausing(launch._one_process, 4, note))

    def kill() -> None:
        killed.append(wait_for(lambda: paused_by(note), 120))
        assert killed[0] == read_holder(Layout(str(output))).pid
        os.kill(killed[0], signal.SIGKILL)
        rewrite(output)

    killing = threading.Thread(target=kill)
    killing.start()
    outcome = launch.train_with_ray(tiny_recipe(dataset, output, LONGER, *RAY))
    killing.join()
    assert len(killed) == 1
    assert outcome.first_step == 4
    assert [line["step"] for line in steps_of(output)] == list(range(outcome.num_steps))
    assert not (output / "run.lock").exists()
