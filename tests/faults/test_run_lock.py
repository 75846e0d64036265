"""Who may write to an output: leases of real processes, living, killed and silent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gex_pipeline import run_lock, storage
from gex_pipeline.cli.main import main
from gex_pipeline.errors import GexError
from gex_pipeline.layout import Layout
from gex_pipeline.run_lock import check_free, held, read_holder

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from gex_pipeline.layout import Layout
from gex_pipeline.run_lock import held
with held(Layout(sys.argv[1]), "other"):
    print("held", flush=True)
    sys.stdin.readline()
"""
RACE = """
import sys
from gex_pipeline.errors import GexError
from gex_pipeline.layout import Layout
from gex_pipeline.run_lock import held
print("ready", flush=True)
sys.stdin.readline()
try:
    with held(Layout(sys.argv[1]), "race"):
        print("won", flush=True)
        sys.stdin.readline()
except GexError as error:
    print("lost", error, flush=True)
"""


def process(program: str, folder: Path) -> subprocess.Popen[str]:
    started = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    started.stdout.readline()
    return started


@pytest.fixture
def other(tmp_path):
    """Another process that holds the output."""
    started = process(HOLD, tmp_path)
    yield started
    started.kill()
    started.communicate()


def rewrite(layout: Layout, **changes) -> None:
    content = json.loads(storage.read_bytes(layout.run_lock)) | changes
    storage.publish_bytes(json.dumps(content).encode(), layout.run_lock)


def test_a_second_run_is_told_who_holds_the_output_and_since_when(other, tmp_path):
    layout = Layout(str(tmp_path))
    holder = read_holder(layout)
    for attempt in (lambda: held(layout, "mine").__enter__(), lambda: check_free(layout)):
        with pytest.raises(GexError, match=rf"is held by process {other.pid} on ") as caught:
            attempt()
        assert f" since {holder.since} " in str(caught.value)
        assert "Wait until that run ends, or stop it" in str(caught.value)
    assert read_holder(layout) == holder


def test_gex_run_ends_with_1_and_the_holder_before_it_starts_anything(tmp_path):
    (tmp_path / "clips.jsonl").write_text('{"YoutubeID": "a"}\n')
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'name = "x"\noutput = "output"\n[source]\nclips = "clips.jsonl"\n'
        'media = { kind = "files", uri = "{YoutubeID}.mp4" }\n[granularity.SVST]\npack = true\n'
    )
    started = process(HOLD, tmp_path / "output")
    command = [sys.executable, "-m", "gex_pipeline.cli.main", "run", str(recipe)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    started.kill()
    started.communicate()
    assert done.returncode == 1
    assert f"is held by process {started.pid} on" in done.stderr
    assert "start Prefect" not in done.stdout + done.stderr
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["run.lock"]


def test_the_status_says_who_holds_the_output_and_who_left_it(other, tmp_path):
    storage.publish_bytes(b'{"snapshot": 0, "stage": "nothing new"}', Layout(str(tmp_path)).run_state)
    command = [sys.executable, "-m", "gex_pipeline.cli.main", "status", str(tmp_path)]

    def status(*more: str) -> str:
        done = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout

    assert f"held by  process {other.pid} on" in status()
    other.kill()
    other.wait()
    assert f"left by  process {other.pid} on" in status()
    holder = json.loads(status("--json"))["holder"]
    assert (holder["pid"], holder["has_ended"]) == (other.pid, True)


def test_a_run_that_ends_gives_the_output_back(other, tmp_path):
    other.communicate("\n")
    assert list(tmp_path.iterdir()) == []
    with held(Layout(str(tmp_path)), "mine"):
        assert read_holder(Layout(str(tmp_path))).pid == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_holder_that_was_killed_is_taken_over_at_once_even_before_its_parent_has_noticed(other, tmp_path):
    layout = Layout(str(tmp_path))
    os.kill(other.pid, signal.SIGKILL)
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the process table
    with held(layout, "mine") as lease:
        assert read_holder(layout).run_id == "mine"
        lease.check()


def test_a_process_that_got_the_number_of_a_dead_holder_is_not_taken_for_it(other, tmp_path):
    layout = Layout(str(tmp_path))
    rewrite(layout, started="1")
    assert read_holder(layout).has_ended
    with held(layout, "mine"):
        pass


@pytest.mark.parametrize(("silent_s", "ended"), [(60, False), (121, True)])
def test_a_holder_on_another_machine_is_believed_until_it_has_been_silent_for_two_minutes(
    other, tmp_path, silent_s, ended
):
    layout = Layout(str(tmp_path))
    renewed = (datetime.now(UTC) - timedelta(seconds=silent_s)).isoformat()
    rewrite(layout, host="elsewhere", machine="another boot", pid=1, renewed=renewed)
    assert read_holder(layout).has_ended is ended
    if not ended:
        with pytest.raises(GexError, match=r"is held by process 1 on elsewhere"):
            check_free(layout)


@pytest.mark.parametrize(("ahead_s", "is_told"), [(60, False), (86400, True)])
def test_a_holder_whose_last_sign_of_life_is_yet_to_come_is_said_to_have_another_clock(
    other, tmp_path, capsys, ahead_s, is_told
):
    """Where it was dead, the two minutes that were promised were a day and two minutes."""
    layout = Layout(str(tmp_path))
    renewed = (datetime.now(UTC) + timedelta(seconds=ahead_s + 30)).isoformat()
    rewrite(layout, host="elsewhere", machine="another boot", pid=1, renewed=renewed)
    told = []
    for attempt in (lambda: held(layout, "mine").__enter__(), lambda: check_free(layout)):
        with pytest.raises(GexError, match=r"is held by process 1 on elsewhere since ") as caught:
            attempt()
        told.append(str(caught.value))
    for message in told:
        assert ("its clock or the one here is wrong by at least 1 day, 0:00:" in message) is is_told
        assert (f"if process 1 on elsewhere is dead, remove {layout.run_lock}" in message) is is_told
        assert ("at the latest two minutes after" in message) is not is_told
    storage.publish_bytes(b'{"snapshot": 0, "stage": "begun", "recipe": {"granularity": {}}}', layout.run_state)
    assert main(["status", str(tmp_path)]) == 0
    assert ("is wrong by at least 1 day" in capsys.readouterr().out) is is_told


def test_the_same_process_number_in_another_container_says_nothing_about_the_holder(other, tmp_path):
    layout = Layout(str(tmp_path))
    rewrite(layout, machine="same host name, other processes", pid=2**22 + 1)
    assert not read_holder(layout).has_ended


def test_a_run_that_lost_its_hold_is_told_before_it_publishes_and_leaves_the_new_holder_alone(tmp_path):
    layout = Layout(str(tmp_path))
    with held(layout, "slept") as lease:
        lease.check()
        rewrite(layout, token="of another", host="elsewhere")
        with pytest.raises(GexError, match=r"was ended by process \d+ on elsewhere since .*It publishes nothing more"):
            lease.check()
    assert read_holder(layout).token == "of another"
    storage.remove(layout.run_lock)


def test_a_lease_is_renewed_while_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "_RENEW_S", 0.05)
    layout = Layout(str(tmp_path))
    with held(layout, "mine"):
        token = read_holder(layout).token
        rewrite(layout, renewed="2000-01-01T00:00:00+00:00")
        for _ in range(100):
            if read_holder(layout).renewed > "2001":
                break
            run_lock.time.sleep(0.05)
        assert not read_holder(layout).has_ended
        assert read_holder(layout).token == token


def test_a_lock_that_is_no_lease_blocks_for_two_minutes_only(tmp_path):
    layout = Layout(str(tmp_path))
    lock = tmp_path / "run.lock"
    lock.write_bytes(b"")
    with pytest.raises(GexError, match=r"began to write run\.lock a moment ago"), held(layout, "mine"):
        pass
    os.utime(lock, (1, 1))
    with held(layout, "mine"):
        assert read_holder(layout).run_id == "mine"


def test_what_a_killed_holder_had_begun_to_write_goes_with_the_next_one(tmp_path):
    begun = tmp_path / ".run.lock.0123abcd.part"
    begun.write_bytes(b"{")
    with held(Layout(str(tmp_path)), "mine"):
        assert begun.exists()  # another may be looking at the lock of one that has ended
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_left", [False, True])
def test_of_four_runs_that_start_at_once_one_goes_on(tmp_path, is_left):
    if is_left:  # all four find the same dead holder
        dead = process(HOLD, tmp_path)
        dead.kill()
        dead.communicate()
    racers = [process(RACE, tmp_path) for _ in range(4)]
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    ends = sorted(racer.stdout.readline() for racer in racers)  # who won goes on holding it
    for racer in racers:
        racer.communicate(timeout=30)
    assert [line.split()[0] for line in ends] == ["lost", "lost", "lost", "won"]
    assert list(tmp_path.iterdir()) == []
