"""A real run with an ffmpeg that never ends for some clips: they are lost for that reason, in time, without a trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gex_pipeline.media.ffmpeg import ffmpeg_binary
from tests.end_to_end.planting import row_of
from tests.end_to_end.running import NO_MODELS, Output, counted_again, write_metadata, write_recipe
from tests.media.making_clips import Make, make_clip, numbers_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 8
CLIPS = {"one": 5, "all": 4, "none": 4}  # source -> clips; of "one" clip 2 hangs, of "all" every clip
BODY = f"""
[video]
timeout_s = {TIMEOUT_S}
force_encode = true
preset = "ultrafast"
[shards]
max_samples = 1
[ray]
num_cpus = 3
[granularity.SVST]
[granularity.LVLT]
operation = "integrate"
from = "SVST"
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, Output]:
    """`gex run` with the ffmpeg that hangs; the folder it worked in and what came out."""
    folder = tmp_path_factory.mktemp("hanging")
    hanging = folder / "hanging"
    hanging.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        f"*/one-2.mp4*|*/all-*) sleep 600 & echo $$ $! >> {folder}/pids; echo 'thinking' >&2; wait;;\n"
        f'*) exec {ffmpeg_binary()} "$@";;\n'
        "esac\n"
    )
    hanging.chmod(0o755)
    (folder / "clips").mkdir()
    rows = []
    for source, count in CLIPS.items():
        for number in range(count):
            path = make_clip(folder / f"clips/{source}-{number}.mp4", number, Make(num_frames=25))
            rows.append({**row_of(f"{source}-source", float(number), path.stem), "file": path.name})
    clips = write_metadata(folder / "clips.jsonl", rows)
    media = f'media = {{ kind = "column", column = "file", root = "{folder}/clips" }}'
    recipe = write_recipe(folder, f'[source]\nclips = "{clips}"\n{media}\n{NO_MODELS}{BODY}')
    done = subprocess.run(
        [sys.executable, "-m", "gex_pipeline.cli.main", "run", str(recipe)],
        env=os.environ | {"GEX_FFMPEG": str(hanging), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder, counted_again(folder / "output")


def test_the_clip_that_hangs_is_lost_and_its_group_goes_on_without_it(run):
    folder, output = run
    sample = output.by_source("LVLT")["one-source"]
    assert [segment["text"] for segment in sample["segments"]] == [f"one-{number}" for number in (0, 1, 3, 4)]
    video = folder / "one.mp4"
    video.write_bytes(output.members("LVLT")[sample["key"]]["mp4"])
    assert [number >> 8 for number in numbers_in(video)] == [clip for clip in (0, 1, 3, 4) for _ in range(25)]
    assert set(output.by_source("LVLT")) == {"one-source", "none-source"}


def test_what_hangs_ends_as_a_timeout_with_what_ffmpeg_said(run):
    _, output = run
    lost = {json.loads(row["row"])["text"]: (row["reason"], row["detail"]) for row in output.table("rejects")}
    assert {text: reason for text, (reason, _) in lost.items()} == {
        "one-2": "ffmpeg_timeout",
        **{f"all-{number}": "ffmpeg_timeout" for number in range(4)},
    }
    assert lost["one-2"][1] == f"ffmpeg was ended after {TIMEOUT_S / 2:g} s; it said: thinking"
    assert "pieces were encoded in 8 s (timeout_s = 8)" in lost["all-0"][1]


def test_no_ffmpeg_is_left_over(run):
    folder, _ = run
    pids = (folder / "pids").read_text().split()
    assert len(pids) >= 6  # one clip of one source, at least two of the other, and the child of each
    deadline_s = time.monotonic() + 30
    while any(is_running(pid) for pid in pids) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in pids)


def is_running(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state != "Z" and b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
