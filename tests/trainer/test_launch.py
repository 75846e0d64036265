"""Trainings under Ray Train: two processes on the session's Ray, one of them killed, one that cannot go on."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from ray.train import WorkerGroupError

from benchmarks.process_table import processes
from gex_pipeline.errors import GexError, TransientError
from tests.faults.watched_training import let_go, paused_by, pausing
from tests.trainer.tiny_recipes import largest_difference, log_of, steps_of, tiny_recipe, train_here, weights_of
from trainer import launch
from trainer.launch import _Board, train_with_ray
from trainer.run_settings import LaunchSettings
from trainer.train import Outcome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
CHANGES = {
    "data": {"granularities": {"LVST": {"num_frames": 1}, "IT": {}}},
    "checkpoints": {"every_steps": 2},
    "launch": {"num_processes": 2},
}
LONG = {"optim": {"epochs": 5}}
ALONE = {"launch": {"num_processes": 1}}  # where others change nothing: each process takes seconds to start


def training_processes() -> list[int]:
    """Ray Train's processes of this session's Ray, whatever else runs on the machine."""
    all_of_them = {one.pid: one for one in processes()}

    def is_ours(pid: int) -> bool:
        while pid in all_of_them and pid != os.getpid():
            pid = all_of_them[pid].parent
        return pid == os.getpid()

    return [pid for pid, one in all_of_them.items() if "RayTrainWorker" in one.program and is_ours(pid)]


@contextmanager
def killing(note: Path, step: int, number: signal.Signals = signal.SIGKILL) -> Iterator[list[int]]:
    """Kill one of the training's processes once a step has left its figures; gives the signals that were sent.

    Another signal than SIGKILL is sent to the process that has started the training, which is this one.
    """
    sent: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            if first := paused_by(note):
                os.kill(training_processes()[-1] if number == signal.SIGKILL else os.getpid(), number)
                sent.append(number)
                with suppress(ProcessLookupError):
                    let_go(first)
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(launch, "_one_process", pausing(launch._one_process, step, note))
            yield sent
    finally:
        over.set()
        thread.join()


class Survived(NamedTuple):
    outcome: Outcome
    output: Path
    killed: list[int]
    said: list[str]


@pytest.fixture(scope="module")
def survived(ray_local, numbered_output, tmp_path_factory):
    """A training of which a process was killed, on a machine with GPUs that it is not to take."""
    folder = tmp_path_factory.mktemp("survived")
    output, said = folder / "training", []
    with killing(folder / "paused", 5) as killed, pytest.MonkeyPatch.context() as patch:
        one_process = launch._one_process

        def beside_gpus(config):
            import torch

            torch.cuda.is_available, torch.cuda.device_count = (lambda: True), (lambda: 8)
            one_process(config)

        patch.setattr(launch, "_one_process", beside_gpus)
        outcome = train_with_ray(tiny_recipe(numbered_output, output, CHANGES, LONG), said.append)
    return Survived(outcome, output, killed, said)


def test_a_training_goes_on_from_its_last_checkpoint_when_a_process_of_it_is_killed(
    survived, numbered_output, tmp_path
):
    outcome, output, killed, said = survived
    quiet = tmp_path / "quiet"
    train_here(tiny_recipe(numbered_output, quiet, CHANGES, LONG, ALONE))
    assert killed == [signal.SIGKILL]
    assert outcome.first_step in (4, 6)  # after the sixth step its checkpoint may be there
    assert f"going on from step {outcome.first_step} of {outcome.num_steps}" in said
    assert outcome.exit_code == 0
    assert outcome.model == f"{output}/model"
    assert [line["step"] for line in steps_of(output)] == list(range(outcome.num_steps))
    # thirty steps; a sum over two processes rounds in another order
    assert largest_difference(weights_of(output), weights_of(quiet)) < 1e-4
    assert log_of(output)[-1]["held_out/IT/num_samples"] >= 3
    assert any("step 1/" in line for line in said)
    assert any("IT held out" in line for line in said)


def test_processes_without_a_gpu_of_their_own_train_on_the_cpu_though_they_see_one(survived):
    """Ray leaves all GPUs of a node to see where it assigned none, and training had taken them."""
    assert survived.outcome.model
    assert survived.said.count("gpus_a_process = 0: training on the CPU though this node has GPUs") == 2  # starts


def test_processes_that_are_lost_too_often_end_it_with_a_sentence_that_says_what_to_do(
    ray_local, numbered_output, tmp_path
):
    changes = {"launch": {"max_restarts": 0}, "data": {"held_out_share": 0}}
    with (
        killing(tmp_path / "paused", 3) as killed,
        pytest.raises(TransientError, match=r"lost its processes more than 0 times .*run the same command again"),
    ):
        train_with_ray(tiny_recipe(numbered_output, tmp_path / "training", CHANGES, LONG, ALONE, changes))
    assert killed


def test_what_cannot_pass_ends_it_at_once_with_the_sentence_of_the_process(ray_local, numbered_output, tmp_path):
    """A batch of three is found not to fit when the processes are there; they are started a second time at most."""
    recipe = tiny_recipe(numbered_output, tmp_path / "training", CHANGES, {"data": {"batch_size": 3}})
    said: list[str] = []
    with pytest.raises(GexError, match=r"batch size 3 cannot be divided among 2 ranks") as caught:
        train_with_ray(recipe, said.append)
    assert not caught.value.transient
    assert "Traceback" not in str(caught.value)
    # with max_restarts = 3, four times if it were tried again
    assert len([line for line in said if line.startswith("IT: 18 samples")]) <= 1, said


def test_the_first_word_on_how_training_ended_counts():
    """What other processes say follows from it: of a lost neighbour, say."""
    board = _Board()
    for answer in ({"failure": "the batch does not fit", "transient": False}, {"failure": "a peer is gone"}):
        asyncio.run(board.settle(answer))
    assert asyncio.run(board.answer()) == {"failure": "the batch does not fit", "transient": False}


@pytest.mark.parametrize(("number", "code", "changes"), [(signal.SIGTERM, 75, {}), (signal.SIGINT, 130, ALONE)])
@pytest.mark.usefixtures("ray_local")
def test_a_training_that_is_told_to_stop_writes_a_checkpoint_and_ends(numbered_output, tmp_path, number, code, changes):
    """The signal comes to the process that waits for Ray; the steps are taken in threads of others."""
    output = tmp_path / "training"
    endless = {"checkpoints": {"every_steps": 100_000}, "optim": {"epochs": 5000}}
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    said: list[str] = []
    with killing(tmp_path / "paused", 3, number) as sent:
        outcome = train_with_ray(tiny_recipe(numbered_output, output, CHANGES, endless, changes), said.append)
    assert (outcome.stopped_by, outcome.exit_code, outcome.model) == (number.name, code, "")
    assert sent == [number]
    last = steps_of(output)[-1]["step"] + 1
    assert 4 <= last < outcome.num_steps
    assert [path.name for path in (output / "checkpoints").glob("step-*")] == [f"step-{last:09d}"]
    assert f"{number.name}: stopping after this step, with a checkpoint; once more ends it at once" in said
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before


def test_more_processes_than_gpus_on_a_node_end_it_at_once_with_a_sentence(
    ray_local, numbered_output, tmp_path, monkeypatch
):
    """What a process had found before it met the others was taken for a process that was lost."""
    one_process = launch._one_process

    def beside_one_gpu(config):
        import torch

        torch.cuda.is_available, torch.cuda.device_count = (lambda: True), (lambda: 1)
        config["recipe"]["launch"]["gpus_a_process"] = 1  # that Ray has none here is not what this is about
        one_process(config)

    monkeypatch.setattr(launch, "_one_process", beside_one_gpu)
    changes = {"launch": {"max_restarts": 0}}  # a second start would only say the same
    with pytest.raises(GexError, match=r"2 processes are started on a machine with 1 GPUs") as caught:
        train_with_ray(tiny_recipe(numbered_output, tmp_path / "training", CHANGES, changes))
    assert not caught.value.transient


def test_processes_for_which_ray_has_no_room_end_it_at_once_with_a_sentence(ray_local, numbered_output, tmp_path):
    """Ray Train waits for a GPU that never comes, and says nothing."""
    recipe = tiny_recipe(numbered_output, tmp_path / "training", CHANGES, {"launch": {"gpus_a_process": 1}})
    with pytest.raises(
        GexError, match=r"^Ray has room for 0 of 2 processes with 1 CPUs and 1 GPUs each, which "
    ) as caught:
        train_with_ray(recipe)
    assert not caught.value.transient
    assert not (tmp_path / "training").exists()


def nodes_of(*looks: list[dict[str, float]]):
    """What `ray.nodes` says at each look; at all later ones what it said at the last."""
    left = list(looks)

    def nodes() -> list[dict]:
        resources = left.pop(0) if len(left) > 1 else left[0]
        return [{"Alive": True, "Resources": one} for one in resources] + [{"Alive": False, "Resources": {"GPU": 8.0}}]

    return nodes


@pytest.mark.parametrize(
    ("settings", "looks", "told"),
    [
        ({"address": "auto"}, ([{"CPU": 4, "GPU": 2}, {"CPU": 1, "GPU": 4}],), []),
        ({"address": "auto"}, ([], [{"CPU": 8, "GPU": 1}], [{"CPU": 8, "GPU": 3}]), [0]),
        ({"address": "auto", "autoscaling": True}, ([],), []),
    ],
)
def test_nodes_of_a_cluster_are_waited_for_and_counted_one_by_one(monkeypatch, settings, looks, told):
    monkeypatch.setattr("ray.nodes", nodes_of(*looks))
    monkeypatch.setattr(launch, "_LOOK_S", 0.0)
    asked = LaunchSettings(num_processes=3, gpus_a_process=1, **settings)
    said: list[str] = []
    launch._check_room(asked, launch._resources(asked), said.append)
    assert said == [f"Ray has room for {num} of 3 processes; waiting for nodes" for num in told]


def test_nodes_of_a_cluster_are_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr("ray.nodes", nodes_of([{"CPU": 1.0, "GPU": 8.0}]))
    monkeypatch.setattr(launch, "_COMING_S", 0.0)
    asked = LaunchSettings(num_processes=2, address="auto", gpus_a_process=1)
    with pytest.raises(GexError, match=r"room for 1 of 2 processes with 1 CPUs and 1 GPUs each.* autoscaling = true"):
        launch._check_room(asked, launch._resources(asked), print)


@pytest.mark.parametrize(("autoscaling", "gone"), [(False, [False, True, False, True]), (True, [False] * 4)])
def test_nodes_that_are_lost_in_training_are_told_and_given_up_after_a_time(monkeypatch, autoscaling, gone):
    """Ray Train waits for them for ever and says nothing."""
    both, one = [{"CPU": 1.0}, {"CPU": 1.0}], [{"CPU": 1.0}]
    monkeypatch.setattr("ray.nodes", nodes_of(both, one, both, one))
    monkeypatch.setattr(launch, "_GONE_S", -1.0)
    asked = LaunchSettings(num_processes=2, address="auto", autoscaling=autoscaling)
    said: list[str] = []
    room = launch._Room(asked, launch._resources(asked), said.append)
    assert [room.is_gone() for _ in gone] == gone
    assert said == ["Ray has room for 1 of 2 processes; waiting for nodes"] * 2


def test_what_processes_ended_with_is_in_the_sentence_without_the_advice_that_follows_it():
    """Of a CUDA error there was Ray's heading over it, and nothing else."""
    advice = "CUDA kernel errors might be asynchronously reported.\nCompile with `TORCH_USE_CUDA_DSA`."
    mine, theirs = RuntimeError(f"CUDA error: device-side assert\n{advice}"), RuntimeError("Connection closed by peer")
    error = WorkerGroupError("[Rank 0 Error Snippet]: ...", {0: mine, 1: theirs, 2: theirs, 3: OSError("late")})
    assert (
        launch._cause(error) == "RuntimeError: CUDA error: device-side assert; RuntimeError: Connection closed by peer"
    )
    assert launch._cause(GexError("Ray is gone\nTraceback")) == "GexError: Ray is gone"


def test_an_error_of_a_process_that_may_pass_is_in_the_sentence_at_the_end(
    ray_local, numbered_output, tmp_path, monkeypatch
):
    one_process = launch._one_process

    def on_a_broken_gpu(config):
        from trainer import steps

        def backward(*_):
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with more of it")

        steps.Contrastive.backward = backward
        one_process(config)

    monkeypatch.setattr(launch, "_one_process", on_a_broken_gpu)
    changes = {"launch": {"max_restarts": 0}, "data": {"granularities": {"IT": {}}}}
    with pytest.raises(TransientError) as caught:
        train_with_ray(tiny_recipe(numbered_output, tmp_path / "training", CHANGES, ALONE, changes))
    assert str(caught.value) == (
        "training lost its processes more than 0 times (RuntimeError: CUDA error: an illegal memory access was "
        "encountered); run the same command again to go on from the last checkpoint"
    )
