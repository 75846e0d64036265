from __future__ import annotations

import time
from pathlib import Path

import ffmpeg
import imageio_ffmpeg
import pytest

from gex_pipeline.errors import GexError, Reason, RejectedError
from gex_pipeline.media.ffmpeg import ffmpeg_binary, ffmpeg_version, run_ffmpeg
from tests.media.making_clips import make_clip


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def graph(output: Path):
    return ffmpeg.output(ffmpeg.input("in.mp4"), str(output))


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_system_binary_is_taken_before_the_packaged_one(tmp_path: Path, monkeypatch) -> None:
    system = script(tmp_path / "ffmpeg", "exit 0")
    monkeypatch.delenv("GEX_FFMPEG", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ffmpeg_binary() == str(system)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert ffmpeg_binary() == imageio_ffmpeg.get_ffmpeg_exe()


def test_the_environment_chooses_the_binary(tmp_path: Path, monkeypatch) -> None:
    mine = script(tmp_path / "mine", "exit 0")
    monkeypatch.setenv("GEX_FFMPEG", str(mine))
    assert ffmpeg_binary() == str(mine)
    monkeypatch.setenv("GEX_FFMPEG", str(tmp_path / "gone"))
    with pytest.raises(GexError, match="not a program; correct it or unset it"):
        ffmpeg_binary()


def test_the_version_is_that_of_the_binary_that_runs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GEX_FFMPEG", imageio_ffmpeg.get_ffmpeg_exe())
    assert ffmpeg_version() == imageio_ffmpeg.get_ffmpeg_version()
    monkeypatch.setenv("GEX_FFMPEG", str(script(tmp_path / "mine", "echo 'ffmpeg version 9.1-mine Copyright'")))
    assert ffmpeg_version() == "9.1-mine"
    monkeypatch.setenv("GEX_FFMPEG", str(script(tmp_path / "other", "echo hello")))
    assert ffmpeg_version() == ""
    monkeypatch.setenv("GEX_FFMPEG", str(tmp_path / "gone"))
    assert ffmpeg_version() == ""


def test_a_hanging_ffmpeg_is_ended_with_its_children_at_the_limit(tmp_path: Path, monkeypatch) -> None:
    pids = tmp_path / "pids"
    hanging = script(tmp_path / "hanging", f"sleep 60 & echo $! $$ > {pids}; echo 'still thinking' >&2; wait")
    monkeypatch.setenv("GEX_FFMPEG", str(hanging))
    began_s = time.monotonic()
    with pytest.raises(RejectedError, match=r"ended after 0\.5 s; it said: still thinking") as caught:
        run_ffmpeg(graph(tmp_path / "out.mp4"), 0.5)
    assert caught.value.reason is Reason.ffmpeg_timeout
    assert time.monotonic() - began_s < 30
    deadline_s = time.monotonic() + 30
    while any(is_running(int(pid)) for pid in pids.read_text().split()) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not any(is_running(int(pid)) for pid in pids.read_text().split())


def test_a_failure_carries_the_end_of_what_ffmpeg_said(tmp_path: Path, monkeypatch) -> None:
    talkative = script(
        tmp_path / "talkative", "i=0; while [ $i -lt 3000 ]; do echo line $i >&2; i=$((i+1)); done; exit 7"
    )
    monkeypatch.setenv("GEX_FFMPEG", str(talkative))
    with pytest.raises(RejectedError) as caught:
        run_ffmpeg(graph(tmp_path / "out.mp4"), 30)
    assert caught.value.reason is Reason.ffmpeg_failed
    assert caught.value.detail.endswith("line 2999")
    assert "line 2\n" not in caught.value.detail


def test_the_real_ffmpeg_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="No such file or directory"):
        run_ffmpeg(ffmpeg.output(ffmpeg.input(str(tmp_path / "none.mp4")), str(tmp_path / "out.mp4")), 30)


def test_a_full_disk_is_not_the_clips_fault(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full to write to")
    clip = make_clip(tmp_path / "a.mp4", 1)
    full = ffmpeg.output(ffmpeg.input(str(clip)), "/dev/full", format="mpegts", vcodec="copy")
    with pytest.raises(OSError, match="No space left"):
        run_ffmpeg(full, 30)


def test_ffmpeg_does_not_wait_for_the_terminal(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", 1)
    (tmp_path / "out.mp4").touch()  # ffmpeg would ask whether to overwrite it
    run_ffmpeg(ffmpeg.output(ffmpeg.input(str(clip)), str(tmp_path / "out.mp4"), vcodec="copy"), 30)
    assert (tmp_path / "out.mp4").stat().st_size > 0
