"""Disks that fill while a training goes on: it ends with one sentence, and goes on once there is room.

It ended in tracebacks of what it wrote figures with. A limit of file sizes, set while the training is at work, stands
for the disk; one test has a disk that is really full, where one can be made.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys

import pytest

from gex_pipeline.errors import GexError
from tests.end_to_end.test_storage_faults import may_mount
from tests.faults import full_training_disk
from tests.faults.watched_training import checkpoint_steps, end, let_go, paused, start, start_two
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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
RARE = {"checkpoints": {"every_steps": 1000}}
TOO_LARGE = r"the file is larger than a limit allows \(see ulimit -f\); raise it, or make shards smaller"
NO_SPACE = "no space is left on this disk; make room"
GO_ON = r"\. Run the same command again to go on"
LIMITED = """
import resource, sys
from gex_pipeline.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_numbered_output(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def undisturbed(dataset, tmp_path_factory):
    """The output of a training that nothing happened to."""
    output = tmp_path_factory.mktemp("undisturbed") / "training"
    train_here(tiny_recipe(dataset, output, LONGER))
    return output


@pytest.fixture
def output(tmp_path):
    return tmp_path / "training"


@pytest.fixture
def recipe(dataset, tmp_path, output):
    return write_recipe(tmp_path / "train.toml", tables_of(dataset, output, LONGER))


def limit(process: subprocess.Popen[str], num_bytes: int) -> None:
    """From now on no file of this process grows beyond these bytes."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY))


def last_line(said: str) -> str:
    assert "Traceback" not in said
    return said.splitlines()[-1]


def test_a_checkpoint_that_cannot_be_written_ends_the_training_which_goes_on_from_the_one_before(
    recipe, output, undisturbed
):
    process = start(recipe, pause_after=4)
    paused(recipe, process)
    limit(process, 20_000)  # less than the weights, more than the figures so far
    let_go(process.pid)
    (said,) = end(process, code=1)
    pattern = rf"process 0: storage failed for '{output}/checkpoints/step-000000006': {TOO_LARGE}{GO_ON}"
    assert re.fullmatch(pattern, last_line(said)), said
    assert checkpoint_steps(output) == [3]
    assert not (output / "run.lock").exists()
    assert [path.name for path in output.rglob(".*")] == []
    (said,) = end(start(recipe))
    assert f"going on from step 3 of {NUM_LONGER_STEPS}" in said
    assert largest_difference(weights_of(output), weights_of(undisturbed)) == 0
    assert [line["step"] for line in steps_of(output)] == list(range(NUM_LONGER_STEPS))


def test_figures_that_cannot_be_written_end_the_training_and_half_a_line_is_none(dataset, recipe, output, undisturbed):
    write_recipe(recipe, tables_of(dataset, output, LONGER, RARE))
    process = start(recipe, pause_after=2)
    paused(recipe, process)
    limit(process, (output / "log.jsonl").stat().st_size + 100)  # less than a line
    let_go(process.pid)
    (said,) = end(process, code=1)
    pattern = rf"process 0: storage failed for '{output}/log\.jsonl': {TOO_LARGE}{GO_ON}"
    assert re.fullmatch(pattern, last_line(said)), said
    assert "warning: curve.svg is not drawn: " in said
    assert not (output / "log.jsonl").read_bytes().endswith(b"\n")
    end(start(recipe))
    assert largest_difference(weights_of(output), weights_of(undisturbed)) == 0
    assert [line["step"] for line in steps_of(output)] == list(range(NUM_LONGER_STEPS))
    assert (output / "curve.svg").exists()


def test_both_processes_end_with_the_sentence_of_the_one_that_writes(recipe, output):
    processes = start_two(recipe, pause_after=4)
    paused(recipe, processes[0])
    limit(processes[0], 20_000)
    let_go(processes[0].pid)
    pattern = rf"storage failed for '{output}/checkpoints/step-000000006': {TOO_LARGE}{GO_ON}"
    for rank, said in enumerate(end(*processes, code=1)):
        assert re.fullmatch(rf"process {rank}: {pattern}", last_line(said)), said


def test_a_model_that_cannot_be_exported_is_a_sentence_and_leaves_no_model(dataset, output, tmp_path, undisturbed):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "export", str(undisturbed), "-o", str(tmp_path / "model")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1
    assert re.fullmatch(rf"gex: storage failed for '[^']*gex-model-[^']*': {TOO_LARGE}\n", done.stderr), done.stderr
    assert not (tmp_path / "model" / "config.json").exists()


@pytest.mark.parametrize("size", ["400k", "700k"])
def test_a_training_on_a_full_disk_goes_on_once_there_is_room(dataset, recipe, output, tmp_path, undisturbed, size):
    if not may_mount(tmp_path):
        pytest.skip("no disk can be made here that is full; the tests above have the same with a limit of file sizes")
    command = ["unshare", "-rm", sys.executable, full_training_disk.__file__, str(recipe), size]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    full, mended = json.loads(done.stdout)
    assert (full["code"], mended["code"]) == (1, 0), done.stdout
    assert re.search(rf"(^|\n)gex: storage failed for '{output}/[^']*': {NO_SPACE}{GO_ON}\n$", full["error"]), full
    assert not any(name.endswith(("run.lock", ".part")) or "/." in name for name in full["files"])
    assert "model/config.json" not in full["files"]
    assert "model/config.json" in mended["files"]
    assert mended["error"] == ""


def test_a_picture_that_cannot_be_drawn_is_a_warning(dataset, output):
    (output / "curve.svg").mkdir(parents=True)
    outcome, said = train_here(tiny_recipe(dataset, output, LONGER, {"optim": {"epochs": 1}}))
    assert outcome.model
    (warning,) = [line for line in said if line.startswith("warning")]
    assert warning.startswith(f"warning: curve.svg is not drawn: storage failed for '{output}/curve.svg': ")


def test_an_output_that_cannot_be_written_to_is_said_before_anything_is_read(output, tmp_path):
    output.write_text("a file")
    with pytest.raises(GexError, match=rf"^cannot write to '{output}': "):
        train_here(tiny_recipe(tmp_path / "nowhere", output, LONGER))
