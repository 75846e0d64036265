from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from gex_pipeline.errors import Reason, RejectedError
from gex_pipeline.media import frames
from gex_pipeline.media.decoding import skip_unless
from gex_pipeline.media.frames import frame_at, middle_frame_jpeg, sample_frames
from gex_pipeline.media.settings import VideoSettings
from tests.media.making_clips import Make, make_clip, number_of, read_number, run_real_ffmpeg

SETTINGS = VideoSettings()


def number_in_jpeg(jpeg: bytes) -> int:
    return read_number(np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")))


def turned(path: Path, *options: str) -> Path:
    target = path.with_suffix(".turned.mp4")
    run_real_ffmpeg(*options, "-i", path, "-c", "copy", target)
    return target


def test_the_middle_frame_is_the_one_shown_in_the_middle(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 2, Make(num_frames=21))
    jpeg, width_px, height_px = middle_frame_jpeg(path, SETTINGS)
    assert (width_px, height_px) == (96, 64)
    assert Image.open(io.BytesIO(jpeg)).size == (96, 64)
    assert number_in_jpeg(jpeg) == number_of(2, 10)


def test_the_middle_is_of_time_not_of_frames(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "v.mp4", 2, Make(num_frames=6, times_s=[0.0, 0.1, 0.2, 0.3, 0.4, 2.0]))
    assert number_in_jpeg(middle_frame_jpeg(path, SETTINGS)[0]) == number_of(2, 4)


def test_the_middle_of_a_cut_is_inside_of_the_cut(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 2, Make(num_frames=100))
    assert number_in_jpeg(middle_frame_jpeg(path, SETTINGS, (2.0, 3.0))[0]) == number_of(2, 62)
    assert number_in_jpeg(middle_frame_jpeg(path, SETTINGS, (1.0, 1.4))[0]) == number_of(2, 30)


def test_the_middle_of_a_cut_that_leads_over_the_end_is_that_of_what_is_there(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 2, Make(num_frames=100))
    assert number_in_jpeg(middle_frame_jpeg(path, SETTINGS, (3.0, 4.6))[0]) == number_of(2, 87)
    late = tmp_path / "late.ts"  # whose time does not begin at 0
    run_real_ffmpeg("-i", path, "-c", "copy", "-output_ts_offset", "30", late)
    assert number_in_jpeg(middle_frame_jpeg(late, SETTINGS, (3.0, 4.6))[0]) == number_of(2, 87)


def test_the_same_clip_gives_the_same_jpeg_and_quality_changes_it(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 2)
    first, second = (middle_frame_jpeg(path, SETTINGS)[0] for _ in range(2))
    assert first == second
    assert len(middle_frame_jpeg(path, VideoSettings(jpeg_quality=30))[0]) < len(first)


@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
@pytest.mark.parametrize("flip", [(), ("-display_hflip",), ("-display_vflip",)], ids=["plain", "hflip", "vflip"])
def test_pictures_are_upright_as_ffmpeg_shows_them(tmp_path: Path, quarter_turns: int, flip: tuple[str, ...]) -> None:
    """The ffmpeg program turns by itself; what it shows is what we have to show."""
    stored = make_clip(tmp_path / "a.mp4", 2, Make(num_frames=3))
    options = ["-display_rotation", str(90 * quarter_turns), *(word for name in flip for word in (name, "1"))]
    path = turned(stored, *(options if not flip else [*options[:2], flip[0]]))
    shown = tmp_path / "shown.png"
    run_real_ffmpeg("-i", path, "-frames:v", "1", shown)
    expected = np.asarray(Image.open(shown).convert("RGB")).astype(int)
    ours = frame_at(path, 0).astype(int)
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).mean() < 3


def test_samples_are_spread_over_time(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 2, Make(num_frames=100, options={"preset": "ultrafast", "g": "10", "bf": "2"}))
    frames = sample_frames(path, 4)
    assert frames.shape == (4, 64, 96, 3)
    assert frames.dtype == np.uint8
    assert [read_number(frame) for frame in frames] == [number_of(2, frame) for frame in (12, 37, 62, 87)]


@pytest.mark.parametrize("group", [1, 3, 12, 250])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_samples_are_the_same_with_and_without_seeking(tmp_path: Path, name: str, group: int) -> None:
    """Every frame once, in order, whatever the distance of key frames and the container's way of seeking."""
    path = make_clip(
        tmp_path / name, 2, Make(num_frames=60, options={"preset": "ultrafast", "g": str(group), "bf": "2"})
    )
    assert [read_number(frame) for frame in sample_frames(path, 60)] == [number_of(2, frame) for frame in range(60)]
    expected = [number_of(2, frame) for frame in (3, 10, 16, 23, 30, 36, 43, 50, 56)]
    assert [read_number(frame) for frame in sample_frames(path, 9)] == expected


def test_frames_that_nothing_needs_are_left_out_on_the_way_and_no_picture_changes(tmp_path: Path, monkeypatch) -> None:
    """Every frame up to the wanted one was decoded, at 720p half of them for nothing."""
    options = {"preset": "ultrafast", "crf": "12", "bf": "3", "g": "250", "b_strategy": "0"}
    path = make_clip(tmp_path / "a.mp4", 2, Make(num_frames=60, options=options))
    told: list[bool] = []

    def skip(is_wanted: bool, stream) -> None:
        told.append(is_wanted)
        skip_unless(is_wanted, stream)

    monkeypatch.setattr(frames, "skip_unless", skip)
    assert number_in_jpeg(middle_frame_jpeg(path, SETTINGS)[0]) == number_of(2, 30)
    assert (told.count(False), told.count(True) < 15) == (26, True)


def test_more_samples_than_frames_repeat_frames(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 2, Make(num_frames=2))
    assert [read_number(frame) & 255 for frame in sample_frames(path, 6)] == [0, 0, 0, 1, 1, 1]
    one = make_clip(tmp_path / "one.mp4", 2, Make(num_frames=1))
    assert [read_number(frame) & 255 for frame in sample_frames(one, 3)] == [0, 0, 0]


def test_samples_are_scaled_in_proportion_and_turned(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 2)
    assert sample_frames(path, 2, height_px=32).shape == (2, 32, 48, 3)
    assert sample_frames(turned(path, "-display_rotation", "90"), 2, height_px=48).shape == (2, 48, 32, 3)


def test_a_time_shows_its_frame_and_times_behind_the_end_the_last(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 2, Make(num_frames=20, fps=Fraction(30000, 1001)))
    shown = [read_number(frame_at(path, time_s)) & 255 for time_s in (0, 0.03, 0.034, 0.5, 0.66, 99)]
    assert shown == [0, 0, 1, 14, 19, 19]
    with pytest.raises(ValueError, match=r"time_s is -0\.1"):
        frame_at(path, -0.1)


def test_times_count_from_the_first_frame_of_a_late_track(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 2, Make(num_frames=20))
    late = tmp_path / "late.mp4"
    run_real_ffmpeg("-itsoffset", "2", "-i", path, "-c", "copy", late)
    assert read_number(frame_at(late, 0.4)) == number_of(2, 10)


def test_times_of_the_file_count_from_where_its_first_track_begins(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 2, Make(num_frames=50))
    for name, start in (("sound.mp4", ()), ("sound.ts", ("-output_ts_offset", "30"))):
        late = tmp_path / name
        run_real_ffmpeg(
            *("-itsoffset", "0.4", "-i", path, "-f", "lavfi", "-i", "sine=duration=3", "-map", "0:v", "-map", "1:a"),
            *("-c:v", "copy", "-c:a", "aac", *start, late),
        )
        shown = [read_number(frame_at(late, time_s, in_file_time=True)) for time_s in (0.0, 0.63, 0.95, 9.0)]
        assert shown == [number_of(2, frame) for frame in (0, 5, 13, 49)], name
        assert read_number(frame_at(late, 0.63)) == number_of(2, 15)


def test_what_cannot_be_shown_is_rejected_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(RejectedError) as missing:
        frame_at(tmp_path / "none.mp4", 0)
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(RejectedError) as no_video:
        sample_frames(text, 1)
    broken = make_clip(tmp_path / "a.mp4", 1)
    whole = broken.read_bytes()
    start = whole.index(b"mdat") + 4
    broken.write_bytes(whole[:start] + b"\xff" * (len(whole) - start))
    with pytest.raises(RejectedError) as damaged:
        middle_frame_jpeg(broken, SETTINGS)
    reasons = [caught.value.reason for caught in (missing, no_video, damaged)]
    assert reasons == [Reason.media_missing, Reason.not_a_video, Reason.undecodable]


def test_colours_are_those_of_the_picture(tmp_path: Path) -> None:
    for name, colour in (("red", (255, 0, 0)), ("lime", (0, 255, 0)), ("blue", (0, 0, 255)), ("white", (255,) * 3)):
        path = tmp_path / f"{name}.mp4"
        run_real_ffmpeg("-f", "lavfi", "-i", f"color={name}:size=64x48:duration=0.2", "-pix_fmt", "yuv420p", path)
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.name == "h264"
        assert np.abs(frame_at(path, 0).astype(int) - np.array(colour)).max() <= 6, name
