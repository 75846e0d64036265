"""Trainings that are killed, and told to stop: started again, they end as if nothing had happened.

What every process reads is written down by a wrapper around the loader, batch by batch.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.watched_training import checkpoint_steps, end, let_go, paused, start, start_torchrun, start_two
from tests.trainer.outputs import make_numbered_output
from tests.trainer.tiny_recipes import (
    LONGER,
    NUM_LONGER_STEPS,
    ROOT,
    largest_difference,
    steps_of,
    tables_of,
    tiny_recipe,
    train_here,
    weights_of,
    write_recipe,
)
from tests.waiting import state_of, wait_for
from trainer.run_data import open_data

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
CHANGES = {**LONGER, "optim": {**LONGER["optim"], "ema_decay": 0.9}}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_numbered_output(tmp_path_factory.mktemp("killed"))


@pytest.fixture(scope="module")
def undisturbed(dataset, tmp_path_factory):
    """The output of a training that nothing happened to."""
    output = tmp_path_factory.mktemp("undisturbed") / "training"
    outcome, _ = train_here(tiny_recipe(dataset, output, CHANGES))
    assert outcome.num_steps == NUM_LONGER_STEPS
    return output


@pytest.fixture
def recipe(dataset, tmp_path):
    return write_recipe(tmp_path / "train.toml", tables_of(dataset, tmp_path / "training", CHANGES))


def in_session(session: int) -> list[int]:
    """The processes of a session that live."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            letter, _parent, _group, its_session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and letter != "Z":
                found.append(int(stat.parent.name))
    return found


def noted(recipe: Path, notes: str, rank: int = 0) -> dict[int, tuple[str, list[str]]]:
    """What a process read, by step."""
    lines = Path(f"{recipe.parent / notes}{rank}").read_text().splitlines()
    return {step: (granularity, keys) for step, granularity, keys in map(json.loads, lines)}


@pytest.mark.parametrize("step", [1, 25])
def test_a_killed_training_that_is_started_again_ends_with_the_weights_of_one_that_was_not(recipe, undisturbed, step):
    """Once before the first checkpoint, once between two."""
    output = recipe.parent / "training"
    process = start(recipe, pause_after=step)
    paused(recipe, process)
    process.kill()
    process.communicate()
    assert steps_of(output)[-1]["step"] == step
    last = max(checkpoint_steps(output), default=0)
    assert last == (step + 1) // 3 * 3
    (said,) = end(start(recipe))
    assert (f"going on from step {last} of {NUM_LONGER_STEPS}" in said) is bool(last)
    assert largest_difference(weights_of(output), weights_of(undisturbed)) == 0
    losses = [[[v for k, v in line.items() if "loss" in k] for line in steps_of(one)] for one in (output, undisturbed)]
    assert losses[0] == losses[1]
    assert [path.name for path in output.rglob(".*")] == []


def test_going_on_with_two_processes_neither_loses_nor_doubles_a_sample(recipe, dataset, undisturbed):
    output = recipe.parent / "training"
    process = start(recipe, "first", pause_after=9)
    paused(recipe, process)
    process.kill()
    process.communicate()
    last = max(checkpoint_steps(output))
    assert last == 9
    end(*start_two(recipe, "later"))
    first, *later = noted(recipe, "first"), noted(recipe, "later", 0), noted(recipe, "later", 1)
    assert sorted(later[0]) == sorted(later[1]) == list(range(last, NUM_LONGER_STEPS))
    seen: dict[tuple[int, str], Counter[str]] = {}
    with open_data(tiny_recipe(dataset, output, CHANGES).data) as data:
        order = data.order
        for step in range(NUM_LONGER_STEPS):
            parts = [first[step]] if step < last else [part[step] for part in later]
            place = order.place_of(step)
            keys = [key for granularity, part in parts for key in part if granularity == place.granularity]
            numbers = order.batch_of(step)
            assert keys == [data.training.sample(place.granularity, int(number)).key for number in numbers]
            seen.setdefault((place.epoch, place.granularity), Counter()).update(keys)
    assert len(seen) == 12
    for counts in seen.values():
        assert set(counts.values()) == {1}
        assert counts.total() == 16
    # a sum over two processes rounds in another order; a batch that is missing is 1e-3 away
    assert largest_difference(weights_of(output), weights_of(undisturbed)) < 1e-4


def test_a_training_that_is_told_to_stop_writes_a_checkpoint_after_its_step_and_goes_on_from_there(
    recipe, dataset, undisturbed
):
    """The signal goes to the whole session, as Ctrl-C sends it; a data worker is among them."""
    output = recipe.parent / "training"
    rare = ({"checkpoints": {"every_steps": 1000}}, {"data": {"num_workers": 1}})
    tables = tables_of(dataset, output, CHANGES, *rare)
    write_recipe(recipe, tables)
    process = start(recipe, pause_after=4)
    paused(recipe, process)
    os.killpg(process.pid, signal.SIGINT)
    let_go(process.pid)
    (said,) = end(process, code=130)
    assert "stopped, with a checkpoint; run the same command again to go on" in said
    (step,) = checkpoint_steps(output)
    assert step == steps_of(output)[-1]["step"] + 1
    assert 5 <= step <= 6
    assert not (output / "model").exists()
    (said,) = end(start(recipe))
    assert f"going on from step {step} of {NUM_LONGER_STEPS}" in said
    assert largest_difference(weights_of(output), weights_of(undisturbed)) == 0


def test_sigterm_to_all_processes_of_a_training_leaves_a_checkpoint_and_no_process(recipe, dataset):
    """Torchrun, systemd and GNU timeout send it so. It had ended the data workers, and the process they come from, and
    for want of a batch the training ended without a checkpoint.
    """
    output = recipe.parent / "training"
    rare = ({"checkpoints": {"every_steps": 1000}}, {"data": {"num_workers": 2}})
    write_recipe(recipe, tables_of(dataset, output, CHANGES, *rare))
    process = start(recipe, pause_after=4)
    paused(recipe, process)
    assert len(in_session(process.pid)) >= 4
    os.killpg(process.pid, signal.SIGTERM)
    let_go(process.pid)
    (said,) = end(process, code=75)
    assert "stopped, with a checkpoint; run the same command again to go on" in said
    assert checkpoint_steps(output) == [steps_of(output)[-1]["step"] + 1]
    wait_for(lambda: not in_session(process.pid), 30)


def test_one_of_two_processes_is_told_to_stop_and_both_do_at_the_same_step(recipe, tmp_path):
    """The index of samples that they share is there once meanwhile, and gone when both have ended."""
    output, scratch = recipe.parent / "training", tmp_path / "scratch"
    scratch.mkdir()
    processes = start_two(recipe, pause_after=4, TMPDIR=str(scratch))
    paused(recipe, processes[0])
    first, second = scratch.glob("gex-catalog-*/IT.arrow")
    assert first.samefile(second)
    processes[1].send_signal(signal.SIGTERM)
    let_go(processes[0].pid)
    said = end(*processes, code=75)
    assert list(scratch.glob("gex-*")) == []
    assert "stopped, with a checkpoint" in said[0]
    assert max(checkpoint_steps(output)) == steps_of(output)[-1]["step"] + 1


def test_when_one_process_dies_the_other_ends_and_leaves_what_can_be_gone_on_from(recipe):
    output = recipe.parent / "training"
    processes = start_two(recipe, pause_after=4)
    paused(recipe, processes[0])
    processes[1].kill()
    let_go(processes[0].pid)
    said = processes[0].communicate(timeout=60)[1]
    assert processes[0].returncode != 0, said
    processes[1].communicate()
    assert checkpoint_steps(output) == [3]
    assert state_of(processes[0].pid) in ("", "Z")


def test_a_torchrun_that_is_told_to_stop_leaves_a_checkpoint_and_ends_with_a_code_that_is_not_0(recipe, dataset):
    output = recipe.parent / "training"
    endless = ({"checkpoints": {"every_steps": 100_000}}, {"data": {"num_workers": 1}}, {"optim": {"epochs": 5000}})
    write_recipe(recipe, tables_of(dataset, output, CHANGES, *endless))
    process = start_torchrun(recipe, "--standalone", "--shutdown-timeout", "100", pause_after=4)
    first = paused(recipe, process)
    process.terminate()
    let_go(first)
    (said,) = end(process, code=1)
    assert said.count("stopped, with a checkpoint; run the same command again to go on") == 1
    assert checkpoint_steps(output) == [steps_of(output)[-1]["step"] + 1]


def test_torchrun_trains_to_the_end_with_fewer_shards_than_data_workers_and_says_its_sentences_once(recipe):
    """Three shards, and two processes with two data workers each: nobody waits for a shard of its own."""
    short = {"optim": {"epochs": 1}, "data": {"num_workers": 2, "granularities": {"IT": {}}}}
    small = make_numbered_output(recipe.parent / "small", 12)
    assert len(list((small / "IT").glob("*.tar"))) == 3
    write_recipe(recipe, tables_of(small, recipe.parent / "out", short))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run(
        [*command, "-m", "trainer.train", str(recipe)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("; the model is at ") == 1
    assert done.stderr.count("step 1/") == 1
    assert [line["step"] for line in steps_of(recipe.parent / "out")] == [0, 1]
    assert weights_of(recipe.parent / "out")
