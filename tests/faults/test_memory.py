"""A shard of a source much longer than its worker's memory: built under a hard limit, at the peak of a short one.

The limit is the kernel's (RLIMIT_DATA: everything a process allocates and writes to), a little above what the worker
has when it has loaded all it needs; ffmpeg has one of its own. Where memory grew with the source, allocation fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from gex_pipeline.media.ffmpeg import ffmpeg_binary
from gex_pipeline.run_state import open_run
from tests.making_runs import clip_row, plan, recipe_of, write_jsonl
from tests.media.making_clips import Make, make_clip, run_real_ffmpeg

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA does not bind elsewhere"),
]
ROOT = Path(__file__).parents[2]
MIB = 1 << 20
HEAD_ROOM_MIB, FFMPEG_MIB = 24, 192
NUM_FRAMES, SIZE_PX = 12, (960, 640)
WORKER = """
import json, re, resource, sys
from pathlib import Path
from gex_pipeline.recipe import make_recipe
from gex_pipeline.shard_job import ShardJob, build_shard

def now_mib(name):
    return int(re.search(rf"{name}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024

said = json.loads(sys.argv[1])
short, long = (
    ShardJob(make_recipe(said["recipe"], base=plan["folder"]), "LVLT", plan["uri"], plan["digest"])
    for plan in said["plans"]
)
build_shard(short, 0)
before_mib = now_mib("VmHWM")
limit_bytes = (now_mib("VmData") + said["head_room_mib"]) << 20
resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
result = build_shard(long, 0)
print(json.dumps({"samples": result.num_samples, "lost": result.num_lost, "bytes": result.num_bytes,
                  "grown_mib": now_mib("VmHWM") - before_mib}))
"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Half a second of noise in 14 MB, whose first picture is a key frame and whose others are not."""
    noise = np.random.default_rng(5)
    make = Make(
        num_frames=NUM_FRAMES,
        size_px=SIZE_PX,
        turn=lambda picture: noise.integers(0, 255, picture.shape, np.uint8),
        options={"preset": "ultrafast", "qp": "2", "g": "99"},
    )
    path = make_clip(tmp_path_factory.mktemp("memory") / "noise.mp4", 1, make)
    assert path.stat().st_size > 13 * MIB
    return path


@pytest.fixture
def limited_ffmpeg(tmp_path, monkeypatch) -> None:
    """The real ffmpeg, with a limit of its own."""
    path = tmp_path / "limited"
    path.write_text(f'#!/bin/sh\nulimit -d {FFMPEG_MIB * 1024}\nexec {ffmpeg_binary()} "$@"\n')
    path.chmod(0o755)
    monkeypatch.setenv("GEX_FFMPEG", str(path))


def built(folder: Path, media: dict[str, Any], short: list[dict], long: list[dict], **video: Any) -> dict[str, Any]:
    """Plan two sources here; one process builds the short one freely and the long one under the limit."""
    recipe = {
        "name": "memory",
        "output": "output",
        "source": {"clips": "clips.jsonl", "media": media},
        "granularity": {"SVST": {}, "LVLT": {"operation": "integrate", "from": "SVST"}},
        "video": {"preset": "ultrafast", **video},
    }
    plans = []
    for name, rows in (("short", short), ("long", long)):
        write_jsonl(folder / name / "clips.jsonl", rows)
        job, shards = plan(open_run(recipe_of(folder / name, **{k: recipe[k] for k in _PARTS})), "LVLT")
        assert shards == [0]
        plans.append({"folder": str(folder / name), "uri": job.plan_uri, "digest": job.plan_digest})
    argument = json.dumps({"recipe": recipe, "plans": plans, "head_room_mib": HEAD_ROOM_MIB})
    done = subprocess.run(
        [sys.executable, "-c", WORKER, argument],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert (found["samples"], found["lost"]) == (1, 0), found
    (found["row"],) = pq.read_table(folder / "long/output/LVLT/LVLT-000000.parquet").to_pylist()
    print({name: value for name, value in found.items() if name != "row"})
    return found


_PARTS = ("source", "granularity", "video")


def rows_of(number: int, **more: Any) -> list[dict]:
    return [clip_row("v1", second, second + 0.48, **more) for second in range(number)]


def assert_flat(found: dict[str, Any], times: int = 10) -> None:
    assert found["bytes"] > times * HEAD_ROOM_MIB * MIB
    assert found["grown_mib"] < HEAD_ROOM_MIB


def test_a_copied_video_ten_times_the_workers_memory(tmp_path, clip):
    found = built(tmp_path, {"kind": "files", "uri": str(clip)}, rows_of(4), rows_of(20))
    assert found["row"]["made_by"] == "copy"
    assert found["row"]["duration_s"] == pytest.approx(20 * NUM_FRAMES / 25)
    assert_flat(found)


def test_clips_read_out_of_a_tar_are_never_in_memory(tmp_path, clip):
    with tarfile.open(tmp_path / "clips.tar", "w") as archive:
        archive.add(clip, "noise.mp4")
    media = {"kind": "tars", "uri": f"{tmp_path}/clips.tar"}
    assert_flat(built(tmp_path, media, rows_of(4, key="noise"), rows_of(20, key="noise")))


def test_cuts_of_a_source_video_ten_times_the_memory(tmp_path, clip, limited_ffmpeg):
    names = tmp_path / "names.txt"
    names.write_text("ffconcat version 1.0\n" + f"file {clip}\n" * 20)
    source = tmp_path / "v1.mp4"
    run_real_ffmpeg("-f", "concat", "-safe", "0", "-i", names, "-c", "copy", source)
    assert source.stat().st_size > 10 * HEAD_ROOM_MIB * MIB
    (tmp_path / "v0.mp4").hardlink_to(clip)
    short = [clip_row("v0", start, start + 0.08) for start in (0.0, 0.1, 0.2, 0.3)]
    long = [clip_row("v1", start, start + 0.4) for start in (0.0, 3.0, 6.0, 9.0)]
    media = {"kind": "videos", "uri": f"{tmp_path}/{{YoutubeID}}.mp4"}
    found = built(tmp_path, media, short, long, crf=40)
    assert found["row"]["duration_s"] == pytest.approx(1.6)
    assert found["grown_mib"] < HEAD_ROOM_MIB


def test_an_encoded_video_several_times_the_memory(tmp_path, clip, limited_ffmpeg):
    media = {"kind": "files", "uri": str(clip)}
    found = built(tmp_path, media, rows_of(4), rows_of(12), force_encode=True, crf=6)
    assert found["row"]["made_by"] == "encode"
    assert_flat(found, times=4)
