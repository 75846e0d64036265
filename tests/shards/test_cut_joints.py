"""Clips cut out of full videos whose sound begins before the picture, joined by a real run; then the pictures move."""

from __future__ import annotations

import pytest

from tests.making_runs import clip_row, recipe_of, run_here, write_jsonl
from tests.media.making_clips import Make, make_clip, run_real_ffmpeg
from tests.shards import damage

LATE_S = 0.5
FPS = 20  # a whole number of frames in LATE_S, and every frame is unlike the next one
SPANS_S = ((0.2, 1.0), (2.0, 4.0), (4.0, 4.8))  # the first one begins before the picture does
VIDEOS = {"kind": "videos", "uri": "videos/{YoutubeID}.mp4"}


@pytest.fixture
def made(tmp_path):
    """An output of one late video: joined with frames beside it, its middle frame, and those of its clips."""
    picture = make_clip(tmp_path / "picture.mp4", 1, Make(num_frames=100, fps=FPS))
    (tmp_path / "videos").mkdir()
    run_real_ffmpeg(
        *("-itsoffset", str(LATE_S), "-i", picture, "-f", "lavfi", "-i", "sine=duration=5.5", "-map", "0:v"),
        *("-map", "1:a", "-c:v", "copy", "-c:a", "aac", tmp_path / "videos/late.mp4"),
    )
    rows = [clip_row("late", str(start_s), str(end_s), f"from {start_s}") for start_s, end_s in SPANS_S]
    write_jsonl(tmp_path / "clips.jsonl", rows)
    beside = {"num": 12, "short_side_px": 64, "beside": True}
    granularity = {
        "SVST": {},
        "LVLT": {"operation": "integrate", "from": "SVST", "min_clips": 2, "frames": beside},
        "LVIT": {"operation": "compress_video", "from": "LVLT"},
        "IT": {"operation": "compress_video", "from": "SVST"},
    }
    run_here(recipe_of(tmp_path, {"media": VIDEOS}, granularity))
    return tmp_path


def test_cuts_of_a_video_whose_sound_begins_first_are_compared_where_they_were_cut(verify, made):
    """A cut counts from the file's start and was looked up from the first picture: sound shards were called wrong."""
    done = verify(made / "output", "--deep")
    assert (done.code, done.content["findings"]) == (0, [])


def test_pictures_that_are_moved_against_the_sound_are_found(verify, made):
    (made / "videos/late.mp4").write_bytes((made / "picture.mp4").read_bytes())
    assert verify(made / "output").code == 0
    done = verify(made / "output", "--deep")
    names = {finding["found"].partition(" frame of")[0].partition(" (")[0] for finding in done.findings("joint")}
    assert (done.code, done.checks().keys(), names) == (1, {"joint"}, {"first", "last", "sampled", "picture"})
    assert {finding["shard"] for finding in done.findings("joint")} == {
        str(damage.tar(made / "output", name).relative_to(made / "output")) for name in ("LVLT", "LVIT", "IT")
    }
