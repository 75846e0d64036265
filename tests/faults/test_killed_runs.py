"""Processes of real runs are killed; `benchmarks/kill_test.py` does it at a hundred random moments, to more kinds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.kill_test import clear, end, place, start
from benchmarks.process_table import processes
from benchmarks.same_output import compare, listed
from gex_pipeline.errors import Reason, RejectedError
from gex_pipeline.media.ffmpeg import run_ffmpeg
from gex_pipeline.run_state import begin, open_run
from gex_pipeline.shard_job import build_shard
from gex_pipeline.stages import build
from tests.end_to_end.running import sums
from tests.making_runs import clip_row, plan, recipe_of, write_jsonl
from tests.waiting import state_of, wait_for

ROOT = Path(__file__).parents[2]


@pytest.fixture
def where():
    with place(num_sources=3) as made:
        yield made


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_worker_that_outlives_its_run_does_not_touch_the_shards_of_the_next_one(where):
    """A worker is stopped, its driver killed, the metadata grows, and the worker wakes after the next run has ended.

    Raylet and GCS go with the driver at once. The stopped worker mostly does not: it then holds a shard of a number
    that the new plan has too, with other samples in it.
    """
    recipe = where.recipe("outlived")
    rows = (where.folder / "corpus" / "clips.jsonl").read_text(encoding="utf-8").splitlines()
    metadata, output = recipe.parent / "clips.jsonl", recipe.parent / "output"
    metadata.write_text("\n".join(rows[4:]) + "\n", encoding="utf-8")
    recipe.write_text(recipe.read_text().replace(f"{where.folder}/corpus/clips.jsonl", str(metadata)))
    process = start(where, recipe)

    def ours(*names: str) -> list[int]:
        living = [one for one in processes() if one.session == process.pid]
        return [one.pid for one in living if one.program.startswith(names)]

    try:
        worker = wait_for(lambda: ours("ray::Map"), 200)[0]
        assert ours("raylet")
        os.kill(worker, signal.SIGSTOP)
        process.kill()
        process.wait()
        wait_for(lambda: not ours("raylet", "gcs_server"))
        assert not (output / "dataset.json").exists()
        metadata.write_text("\n".join(rows) + "\n", encoding="utf-8")
        assert end(start(where, recipe)) == 0
        before = sums(output)
        assert before.keys() == {path for _, path in listed(output)}
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGCONT)
        wait_for(lambda: state_of(worker) in ("", "Z"), 60)
        assert sums(output) == before
    finally:  # idle agents and Prefect's server are left
        for pid in ours(""):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


OUTLIVING = """
import os, signal, sys
from pathlib import Path
from gex_pipeline import shard_job
from gex_pipeline.errors import GexError
from gex_pipeline.run_state import begin, open_run
from tests.faults.test_killed_runs import job_of, recipe

run = begin(open_run(recipe(Path(sys.argv[1]))))
make = shard_job.make_sample

def make_and_stop(*arguments):
    made = make(*arguments)
    os.kill(os.getpid(), signal.SIGSTOP)
    return made

shard_job.make_sample = make_and_stop
try:
    shard_job.build_shard(job_of(run), 0)
except GexError as error:
    print(error)
"""


def recipe(folder: Path):
    media = {"media": {"kind": "column", "column": "file", "root": "clips"}}
    lvlt = {"operation": "integrate", "from": "SVST", "min_clips": 2}
    return recipe_of(folder, media, {"SVST": {}, "LVLT": lvlt})


def job_of(run):
    """The job as the build stage makes it."""
    job, _ = plan(run, "LVLT")
    return replace(job, run_id=run.run_id)


@pytest.mark.parametrize("grows", [False, True])
def test_a_shard_that_was_begun_for_another_plan_is_not_published(tmp_path, small_clips, grows):
    """The process stops between making the last sample and publishing, at the worst moment there is.

    Over the same inputs it goes on: its bytes are those that are there. Over others it has to refuse.
    """
    shutil.copytree(small_clips, tmp_path / "clips")
    rows = [clip_row("a", n, n + 0.48, f"clip {n}", file=f"a-{n}.mp4") for n in range(3)]
    write_jsonl(tmp_path / "clips.jsonl", rows)
    command = [sys.executable, "-c", OUTLIVING, str(tmp_path)]
    old = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: state_of(old.pid) == "T")
    if grows:
        more = [clip_row("b", n, n + 0.48, f"clip {n}", file=f"b-{n}.mp4") for n in range(3)]
        write_jsonl(tmp_path / "clips.jsonl", rows + more)
    build_shard(job_of(begin(open_run(recipe(tmp_path)))), 0)
    output = tmp_path / "output"
    before, receipt = sums(output), (output / "LVLT/LVLT-000000.parquet").read_bytes()

    os.kill(old.pid, signal.SIGCONT)
    said, _ = old.communicate(timeout=30)

    assert old.returncode == 0
    assert ("is over" in said and "nothing is written" in said) is grows, said
    assert len(before) == 1
    assert sums(output) == before
    assert ((output / "LVLT/LVLT-000000.parquet").read_bytes() == receipt) or not grows
    assert not list(output.rglob("*.part"))


def test_the_build_stage_names_its_run_to_the_workers(tmp_path, small_clips, monkeypatch):
    shutil.copytree(small_clips, tmp_path / "clips")
    rows = [clip_row("a", n, n + 0.48, f"clip {n}", file=f"a-{n}.mp4") for n in range(3)]
    write_jsonl(tmp_path / "clips.jsonl", rows)
    run = begin(open_run(recipe(tmp_path)))
    plan(run, "LVLT")
    jobs = []
    monkeypatch.setattr(build, "run_shards", lambda job, *_: jobs.append(job) or [])
    build.build_shards(run, run.recipe.graph.nodes["LVLT"])
    assert [job.run_id for job in jobs] == [run.run_id]


KILLED_FFMPEG = """#!{python}
import os, signal, sys
from pathlib import Path
runs = Path({runs!r})
runs.write_text(runs.read_text() + "x" if runs.exists() else "x")
if len(runs.read_text()) <= {deaths}:
    os.kill(os.getpid(), signal.SIGKILL)
os.execv({ffmpeg!r}, [{ffmpeg!r}, *sys.argv[1:]])
"""


@pytest.mark.parametrize("deaths", [2, 3])
def test_a_killed_ffmpeg_is_no_fault_of_the_clip_until_the_third_time(tmp_path, small_clips, monkeypatch, deaths):
    """A sample was once rejected for good because something had killed its ffmpeg."""
    import ffmpeg

    from gex_pipeline.media.ffmpeg import ffmpeg_binary

    runs, program, target = tmp_path / "runs", tmp_path / "ffmpeg", tmp_path / "out.mp4"
    program.write_text(
        KILLED_FFMPEG.format(python=sys.executable, runs=str(runs), deaths=deaths, ffmpeg=ffmpeg_binary())
    )
    program.chmod(0o755)
    monkeypatch.setenv("GEX_FFMPEG", str(program))
    stream = ffmpeg.output(ffmpeg.input(str(small_clips / "a-0.mp4")), str(target), vcodec="copy")
    if deaths < 3:
        run_ffmpeg(stream, 30)
        assert target.stat().st_size > 1000
    else:
        with pytest.raises(RejectedError, match="ffmpeg ended with -9") as caught:
            run_ffmpeg(stream, 30)
        assert caught.value.reason == Reason.ffmpeg_failed
    assert len(runs.read_text()) == 3


LOSES_ITS_NODE = """
import os, signal, subprocess, sys, time
from gex_pipeline import ray_node
from gex_pipeline.stopping import sigterm_as_interrupt
how = sys.argv[2]
if how == "hangs":
    ray_node._IN_ORDER_S = 0.3
other = subprocess.Popen(["sleep", "60"])
with sigterm_as_interrupt() as told:
    try:
        with ray_node.watched():
            raylet = subprocess.Popen([sys.argv[1], "60"])
            print(other.pid, flush=True)
            time.sleep(0.5)
            try:
                if how != "lives":
                    raylet.terminate()
                    time.sleep(0.5)
                if how in ("is told", "hangs"):  # later than its raylet, from whom it is told from one that died
                    os.kill(os.getpid(), signal.SIGTERM)
                if how != "lives":
                    time.sleep(20)
            finally:
                time.sleep(20 if how == "hangs" else 1.5)
    except KeyboardInterrupt:
        assert told.to_stop
raylet.kill()  # as ray.shutdown does, after the watch is over
time.sleep(0.5)
other.kill()
print("ended by itself")
"""


def lose_its_node(folder: Path, how: str) -> tuple[subprocess.CompletedProcess[str], int]:
    """What came of it, and the number of another child."""
    raylet = folder / "raylet"
    shutil.copyfile(shutil.which("sleep"), raylet)
    raylet.chmod(0o755)
    command = [sys.executable, "-c", LOSES_ITS_NODE, str(raylet), how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=15, check=False)
    return done, int(done.stdout.split()[0])


def test_a_run_whose_node_dies_ends_at_once_with_the_code_for_now_and_takes_its_children_with_it(tmp_path):
    """Ray ended such a run with code 1 and no sentence, and Prefect's server lived on."""
    done, child = lose_its_node(tmp_path, "dies")
    assert done.returncode == 75
    assert "the Ray node of this run has died" in done.stderr
    assert "Run the same command again to go on" in done.stderr
    wait_for(lambda: state_of(child) in ("", "Z"), 5)  # it is killed, and on a busy machine not gone at once


@pytest.mark.parametrize("how", ["lives", "is told"])
def test_a_run_whose_node_lives_or_ends_by_the_signal_that_the_run_is_told_by_ends_in_order(tmp_path, how):
    """SIGTERM to all processes, as systemd sends it, was a node that had died, say for a lack of memory."""
    done, _ = lose_its_node(tmp_path, how)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("ended by itself\n")


def test_a_run_that_hangs_after_it_was_told_to_stop_and_its_node_has_ended_ends_with_the_sentence_of_the_stop(tmp_path):
    done, child = lose_its_node(tmp_path, "hangs")
    assert done.returncode == 75
    assert done.stderr == "\ngex: told to stop by SIGTERM; run the same command again to go on\n"
    wait_for(lambda: state_of(child) in ("", "Z"), 5)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_run_that_is_told_to_stop_ends_in_order_and_goes_on_when_it_is_run_again(where):
    """While Ray started, SIGTERM hung the run for ever, with its lock; later it ended with codes of Ray's own."""
    recipe_file = where.recipe("stopped")
    process = start(where, recipe_file)
    log = recipe_file.parent / "log"
    wait_for(lambda: "ingest" in log.read_text() or process.poll() is not None, 60)
    process.send_signal(signal.SIGTERM)
    assert end(process) == 75
    assert log.read_text().splitlines()[-1] == "gex: told to stop by SIGTERM; run the same command again to go on"
    assert not (recipe_file.parent / "output" / "run.lock").exists()
    assert clear(where, [process.pid]) == []
    again = start(where, recipe_file)
    assert end(again) == 0
    assert sums(recipe_file.parent / "output")


@pytest.fixture
def not_ignored():
    """Ctrl-C, in what is started here too, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("during", "number", "code", "words"),
    [
        ("SVST plan", signal.SIGINT, 130, "stopped"),
        ("SVST plan", signal.SIGTERM, 75, "told to stop by SIGTERM"),
        ("ingest", signal.SIGHUP, 75, "told to stop by SIG"),
    ],
)
def test_a_signal_to_all_processes_of_a_run_ends_it_in_order(where, not_ignored, during, number, code, words):
    """A terminal sends Ctrl-C so, and systemd SIGTERM. It ended Prefect's server as well, for which the run asked for
    three and a half minutes, to end with 75 and a sentence about that server; and SIGTERM was taken for a dead node.
    """
    recipe_file = where.recipe("all")
    log = recipe_file.parent / "log"
    process = start(where, recipe_file)
    wait_for(lambda: during in log.read_text() or process.poll() is not None, 100)
    for _ in range(2):  # an impatient person, or GNU timeout
        os.killpg(process.pid, number)
        time.sleep(0.5)
    assert process.wait(60) == code, log.read_text()
    assert log.read_text().splitlines()[-1].startswith(f"gex: {words}")
    assert log.read_text().endswith("; run the same command again to go on\n")
    assert not (recipe_file.parent / "output" / "run.lock").exists()
    assert clear(where, [process.pid]) == []


def test_the_comparison_sees_a_lost_a_doubled_and_a_changed_sample(quiet):
    where, reference, _ = quiet
    copy = where.folder / "copy"
    shutil.copytree(reference, copy)
    assert compare(copy, reference).is_none
    first, second = sorted(copy.glob("SVST/*.tar"))[:2]
    shutil.copyfile(first, second)
    found = compare(copy, reference)
    assert found.lost > 0
    assert found.duplicated > 0
    assert found.tars == (str(second.relative_to(copy)),)
    shutil.copyfile(reference / second.relative_to(copy), second)
    content = bytearray(first.read_bytes())
    content[1000] ^= 1  # in the bytes of the first video
    first.write_bytes(content)
    assert replace(compare(copy, reference), tars=()).differing == 1
    (copy / "SVST" / ".x.tar.0badcafe.part").write_bytes(b"half")
    assert compare(copy, reference).leftovers == ("SVST/.x.tar.0badcafe.part",)
    manifest = json.loads((copy / "dataset.json").read_text())
    manifest["snapshots"][0]["granularities"]["SVST"]["shards"].pop()
    (copy / "dataset.json").write_text(json.dumps(manifest))
    assert compare(copy, reference).lost > 0
    (copy / "dataset.json").unlink()
    assert compare(copy, reference).lost > 0
