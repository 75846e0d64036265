from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from gex_pipeline.errors import Reason, RejectedError
from gex_pipeline.media.join import Joined, Piece, Probed, join_pieces, probe_pieces
from gex_pipeline.media.settings import VideoSettings
from tests.media.making_clips import Make, make_clip, number_of, numbers_in, pitch_hz, run_real_ffmpeg, sound_in

SETTINGS = VideoSettings(preset="ultrafast", crf=12)


def probed(paths: Sequence[Path], settings: VideoSettings = SETTINGS) -> list[Probed]:
    results = probe_pieces([Piece(path, None, None) for path in paths], settings)
    assert all(isinstance(result, Probed) for result in results), results
    return results


def join(paths: Sequence[Path], output: Path, settings: VideoSettings = SETTINGS) -> Joined:
    return join_pieces(probed(paths, settings), output, settings)


def whole(clip: int, num_frames: int = 12) -> list[int]:
    return [number_of(clip, frame) for frame in range(num_frames)]


def num_frames(joined: Joined) -> list[int]:
    """How many frames each segment has, by its seconds: all of them are shown equally long."""
    numbers = [segment.duration_s * joined.fps for segment in joined.segments]
    assert numbers == pytest.approx([round(number) for number in numbers])
    return [round(number) for number in numbers]


def has_sound(joined: Joined) -> bool:
    with av.open(str(joined.path)) as container:
        return bool(container.streams.audio)


def assert_segments(joined: Joined, clips: Sequence[int], last_frames: Sequence[int]) -> None:
    """First and last frame of each segment come from its clip, and the segments fill the video."""
    numbers = numbers_in(joined.path)
    assert len(numbers) == sum(num_frames(joined))
    position, offset_s = 0, 0.0
    for segment, count, clip, last in zip(joined.segments, num_frames(joined), clips, last_frames, strict=True):
        assert segment.offset_s == pytest.approx(offset_s)
        assert numbers[position] == number_of(clip, 0)
        assert numbers[position + count - 1] == number_of(clip, last)
        position += count
        offset_s += segment.duration_s
    assert joined.duration_s == pytest.approx(offset_s)


def test_clips_with_the_same_parameters_are_copied_frame_by_frame(tmp_path: Path) -> None:
    paths = [make_clip(tmp_path / f"{clip}.mp4", clip, Make(num_frames=9 + clip)) for clip in range(1, 6)]
    joined = join(paths, tmp_path / "out.mp4")
    assert joined.way == "copy"
    assert numbers_in(joined.path) == [number for clip in range(1, 6) for number in whole(clip, 9 + clip)]
    assert num_frames(joined) == [10, 11, 12, 13, 14]
    assert joined.duration_s == 60 / 25
    assert (joined.width_px, joined.height_px, joined.fps, joined.codec) == (96, 64, 25, "h264")
    assert not has_sound(joined)


def test_a_copied_video_shows_every_frame_at_its_time(tmp_path: Path) -> None:
    make = Make(num_frames=20, fps=Fraction(30000, 1001))
    joined = join([make_clip(tmp_path / f"{clip}.mp4", clip, make) for clip in (1, 2, 3)], tmp_path / "out.mp4")
    with av.open(str(joined.path)) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
        assert container.streams.video[0].duration * container.streams.video[0].time_base == Fraction(60 * 1001, 30000)
    assert times == [Fraction(number * 1001, 30000) for number in range(60)]


def test_a_clip_that_needs_no_look_ahead_joins_with_clips_that_do(tmp_path: Path) -> None:
    """A clip of one frame has no delay between decoding and presentation: times ran backwards at the joint."""
    paths = [
        make_clip(tmp_path / f"{clip}.mp4", clip, Make(num_frames=number)) for clip, number in ((1, 1), (2, 30), (3, 1))
    ]
    joined = join(paths, tmp_path / "out.mp4")
    assert joined.way == "copy"
    assert numbers_in(joined.path) == [*whole(1, 1), *whole(2, 30), *whole(3, 1)]
    assert joined.duration_s == pytest.approx(32 / 25)


def test_a_single_clip_can_be_joined(tmp_path: Path) -> None:
    joined = join([make_clip(tmp_path / "a.mp4", 1)], tmp_path / "out.mp4")
    assert (joined.way, numbers_in(joined.path)) == ("copy", whole(1))


def test_clips_that_start_late_are_joined_without_gaps(tmp_path: Path) -> None:
    paths = [make_clip(tmp_path / f"{clip}.mp4", clip) for clip in (1, 2)]
    for path in paths:
        run_real_ffmpeg("-itsoffset", "1.5", "-i", path, "-c", "copy", path.with_suffix(".late.mp4"))
    joined = join([path.with_suffix(".late.mp4") for path in paths], tmp_path / "out.mp4")
    assert joined.way == "copy"
    assert joined.duration_s == pytest.approx(24 / 25)
    assert numbers_in(joined.path) == [*whole(1), *whole(2)]


def test_joining_gives_the_same_bytes_wherever_and_whenever(tmp_path: Path) -> None:
    for settings in (SETTINGS, VideoSettings(force_encode=True, preset="ultrafast"), VideoSettings(audio="keep")):
        digests = set()
        for folder in ("one", "another longer name"):
            (tmp_path / folder).mkdir(exist_ok=True)
            paths = [
                make_clip(tmp_path / folder / f"{folder}{clip}.mp4", clip, Make(tone_hz=440 * clip)) for clip in (1, 2)
            ]
            joined = join(paths, tmp_path / folder / f"{folder}.mp4", settings)
            digests.add(hashlib.sha256(joined.path.read_bytes()).hexdigest())
            assert not list((tmp_path / folder).glob(".pieces-*"))
        assert len(digests) == 1


def test_other_sizes_are_scaled_and_padded_to_the_first(tmp_path: Path) -> None:
    paths = [
        make_clip(tmp_path / "a.mp4", 1),
        make_clip(tmp_path / "b.mp4", 2, Make(size_px=(192, 128))),
        make_clip(tmp_path / "c.mp4", 3, Make(size_px=(96, 36))),
    ]
    joined = join(paths, tmp_path / "out.mp4")
    assert (joined.way, joined.width_px, joined.height_px) == ("encode", 96, 64)
    assert numbers_in(joined.path) == [*whole(1), *whole(2), *whole(3)]
    with av.open(str(joined.path)) as container:
        last = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][-1]
    assert last[:10].max() < 10  # a flat picture stands between two bars
    assert last[-10:].max() < 10
    assert last[20:44].max() > 200


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("b.mp4", Make(codec="libx265", options={"preset": "ultrafast", "x265-params": "log-level=none"})),
        ("b.webm", Make(codec="libvpx-vp9", options={"cpu-used": "8", "crf": "20"})),
        ("b.mp4", Make(codec="libvpx-vp9", options={"cpu-used": "8", "crf": "20"})),
        ("b.webm", Make(codec="libvpx", options={"cpu-used": "8", "crf": "10", "b": "1M"})),
        ("b.avi", Make(codec="mpeg4", options={"qscale": "2", "b": "2M"})),
        ("b.mp4", Make(pix_fmt="yuv444p")),
        ("b.mp4", Make(pix_fmt="yuvj420p")),
        ("b.mkv", Make(size_px=(97, 65), pix_fmt="yuv444p")),
        ("b.ts", Make()),
    ],
    ids=["hevc", "vp9-webm", "vp9-mp4", "vp8", "mpeg4-avi", "444", "full-range", "odd", "mpegts"],
)
def test_other_codecs_and_formats_are_brought_to_the_first_ones(tmp_path: Path, name: str, make: Make) -> None:
    paths = [make_clip(tmp_path / "a.mp4", 1), make_clip(tmp_path / name, 2, make)]
    joined = join(paths, tmp_path / "out.mp4")
    assert (joined.way, joined.codec) == ("encode", "h264")
    assert numbers_in(joined.path) == [*whole(1), *whole(2)]
    with av.open(str(joined.path)) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"


def test_clips_of_one_other_codec_become_h264(tmp_path: Path) -> None:
    make = Make(codec="libx265", options={"preset": "ultrafast", "x265-params": "log-level=none"})
    joined = join([make_clip(tmp_path / f"{clip}.mp4", clip, make) for clip in (1, 2)], tmp_path / "out.mp4")
    assert (joined.way, joined.codec) == ("encode", "h264")
    assert numbers_in(joined.path) == [*whole(1), *whole(2)]


def test_odd_sizes_become_even(tmp_path: Path) -> None:
    make = Make(size_px=(97, 65), pix_fmt="yuv444p")
    joined = join([make_clip(tmp_path / f"{clip}.mp4", clip, make) for clip in (1, 2)], tmp_path / "out.mp4")
    assert (joined.way, joined.width_px, joined.height_px) == ("encode", 96, 64)
    assert numbers_in(joined.path) == [*whole(1), *whole(2)]


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_turned_clips_are_shown_upright(tmp_path: Path, quarter_turns: int) -> None:
    paths = []
    for clip in (1, 2):
        stored = make_clip(
            tmp_path / f"{clip}.mp4", clip, Make(turn=lambda picture: np.rot90(picture, -quarter_turns).copy())
        )
        paths.append(tmp_path / f"{clip}.turned.mp4")
        run_real_ffmpeg("-display_rotation", str(90 * quarter_turns), "-i", stored, "-c", "copy", paths[-1])
    joined = join(paths, tmp_path / "out.mp4")
    assert (joined.way, joined.width_px, joined.height_px) == ("encode", 96, 64)
    assert numbers_in(joined.path) == [*whole(1), *whole(2)]


def test_oblong_pixels_become_square(tmp_path: Path) -> None:
    paths = [make_clip(tmp_path / f"{clip}.mp4", clip) for clip in (1, 2)]
    for path in paths:
        run_real_ffmpeg("-i", path, "-vf", "setsar=2", path.with_suffix(".wide.mp4"))
    joined = join([path.with_suffix(".wide.mp4") for path in paths], tmp_path / "out.mp4")
    assert (joined.way, joined.width_px, joined.height_px) == ("encode", 192, 64)
    assert_segments(joined, (1, 2), (11, 11))


def test_a_variable_rate_is_shown_in_real_time(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.2, 0.8, 0.9, 1.0, 1.1, 1.2]
    paths = [
        make_clip(tmp_path / "v.mp4", 1, Make(num_frames=8, times_s=times)),
        make_clip(tmp_path / "a.mp4", 2, Make(num_frames=20)),
    ]
    joined = join(paths, tmp_path / "out.mp4", VideoSettings(fps=20, preset="ultrafast", crf=12))
    assert (joined.way, joined.fps) == ("encode", 20)
    numbers = numbers_in(joined.path)
    shown_frames = [numbers[round(time_s * 20)] for time_s in (0.0, 0.15, 0.3, 0.7, 0.8, 1.05)]
    assert shown_frames == [number_of(1, frame) for frame in (0, 1, 2, 2, 3, 5)]
    assert numbers[num_frames(joined)[0]] == number_of(2, 0)
    assert numbers[-1] == number_of(2, 19)
    assert joined.segments[1].duration_s == pytest.approx(0.8)


def test_pieces_of_one_variable_rate_are_not_copied(tmp_path: Path) -> None:
    """Their packets would fit into one track, and still have no frames of equal length: the common form has."""
    make = Make(num_frames=8, times_s=[0.0, 0.04, 0.08, 0.12, 0.2, 0.24, 0.28, 0.32], options={"bf": "0"})
    paths = [make_clip(tmp_path / f"{clip}.mp4", clip, make) for clip in (1, 2)]
    joined = join(paths, tmp_path / "out.mp4", VideoSettings(fps=25, preset="ultrafast", crf=12))
    assert (joined.way, joined.fps) == ("encode", 25)
    numbers = numbers_in(joined.path)
    assert numbers == [number_of(clip, frame) for clip in (1, 2) for frame in (0, 1, 2, 3, 3, 4, 5, 6, 7)]


def test_frames_that_an_edit_list_hides_stay_hidden(tmp_path: Path) -> None:
    paths = [make_clip(tmp_path / f"{clip}.mp4", clip, Make(num_frames=50)) for clip in (1, 2)]
    for path in paths:
        run_real_ffmpeg("-ss", "1.0", "-i", path, "-c", "copy", path.with_suffix(".cut.mp4"))
    joined = join([path.with_suffix(".cut.mp4") for path in paths], tmp_path / "out.mp4")
    assert joined.way == "encode"
    assert numbers_in(joined.path) == [number_of(clip, frame) for clip in (1, 2) for frame in range(25, 50)]


def test_cuts_of_a_long_video_begin_and_end_at_their_frames(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "full.mp4", 3, Make(num_frames=200))
    spans = [(0.0, 0.4), (1.0, 1.6), (3.32, 4.0), (7.8, 8.2)]  # the last one ends behind the file, within the tolerance
    results = probe_pieces([Piece(source, span, None) for span in spans], SETTINGS)
    joined = join_pieces(results, tmp_path / "out.mp4", SETTINGS)
    assert joined.way == "encode"
    expected = [range(10), range(25, 40), range(83, 100), range(195, 200)]
    assert numbers_in(joined.path) == [number_of(3, frame) for frames in expected for frame in frames]
    assert num_frames(joined) == [10, 15, 17, 5]


def test_a_cut_without_a_frame_of_its_own_shows_the_frame_before(tmp_path: Path) -> None:
    """A recorded slide show has a frame every few seconds: a cut between two of them came out empty."""
    source = make_clip(tmp_path / "slides.mp4", 4, Make(num_frames=4, times_s=[0.0, 3.0, 6.0, 6.5]))
    results = probe_pieces([Piece(source, span, None) for span in ((1.0, 2.0), (4.5, 6.25))], SETTINGS)
    joined = join_pieces(results, tmp_path / "out.mp4", VideoSettings(fps=4, preset="ultrafast", crf=12))
    shown = [0] * 4 + [1] * 6 + [2]
    assert numbers_in(joined.path) == [number_of(4, frame) for frame in shown]


def test_height_and_rate_of_the_settings_hold_when_encoding_only(tmp_path: Path) -> None:
    paths = [make_clip(tmp_path / f"{clip}.mp4", clip, Make(num_frames=50)) for clip in (1, 2)]
    copied = join(paths, tmp_path / "copied.mp4", VideoSettings(height_px=128, fps=50))
    assert (copied.way, copied.height_px, copied.fps) == ("copy", 64, 25)
    settings = VideoSettings(height_px=128, fps=12.5, force_encode=True, preset="ultrafast")
    joined = join(paths, tmp_path / "out.mp4", settings)
    assert (joined.way, joined.width_px, joined.height_px, joined.fps) == ("encode", 192, 128, 12.5)
    assert joined.duration_s == pytest.approx(4)
    assert_segments(joined, (1, 2), (48, 48))


def test_a_copy_that_fails_its_check_is_encoded_instead(tmp_path: Path) -> None:
    """The file shrinks between probing and joining, with the same parameters: the copy has too few frames."""
    paths = [make_clip(tmp_path / f"{clip}.mp4", clip) for clip in (1, 2)]
    pieces = probed(paths)
    pieces[1] = replace(pieces[1], probe=replace(pieces[1].probe, num_frames=13))
    joined = join_pieces(pieces, tmp_path / "out.mp4", SETTINGS)
    assert joined.way == "encode"
    assert numbers_in(joined.path) == [*whole(1), *whole(2)]


def test_what_cannot_be_encoded_is_rejected_and_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    broken = tmp_path / "broken_ffmpeg"
    broken.write_text("#!/bin/sh\necho 'the last words' >&2\nexit 3\n")
    broken.chmod(0o755)
    (tmp_path / "out").mkdir()
    pieces = probed([make_clip(tmp_path / "a.mp4", 1)])
    monkeypatch.setenv("GEX_FFMPEG", str(broken))
    with pytest.raises(RejectedError, match="ended with 3; it said: the last words") as caught:
        join_pieces(pieces, tmp_path / "out" / "out.mp4", VideoSettings(force_encode=True))
    assert caught.value.reason is Reason.ffmpeg_failed
    assert list((tmp_path / "out").iterdir()) == []


def test_the_time_limit_is_for_the_sample_not_for_each_piece(tmp_path: Path) -> None:
    pieces = probed([make_clip(tmp_path / f"{clip}.mp4", clip) for clip in range(4)])
    with pytest.raises(RejectedError) as caught:
        join_pieces(pieces, tmp_path / "out.mp4", VideoSettings(force_encode=True, timeout_s=0.03))
    assert caught.value.reason is Reason.ffmpeg_timeout


def test_probing_pieces_gives_one_entry_each_and_bad_ones_their_reason(tmp_path: Path) -> None:
    good = make_clip(tmp_path / "a.mp4", 1, Make(num_frames=50))
    results = probe_pieces(
        [
            Piece(good, None, 2.0),
            Piece(tmp_path / "none.mp4", None, None),
            Piece(good, None, 3.0),
            Piece(good, (1.0, 2.4), 1.4),
            Piece(good, (1.0, 2.6), 1.6),
            Piece(good, (2.1, 2.3), None),
            Piece(good, (1.0, 1.0), None),
        ],
        SETTINGS,
    )
    reasons = [result.reason if isinstance(result, RejectedError) else None for result in results]
    mismatch = Reason.duration_mismatch
    assert reasons == [None, Reason.media_missing, mismatch, None, mismatch, mismatch, mismatch]
    assert "ends at 2.000 s" in results[4].detail


def test_kept_sound_stays_with_its_pictures(tmp_path: Path) -> None:
    """Clip 2 is silent, clip 3's sound is too short, clip 4's too long."""
    makes = [
        Make(num_frames=50, tone_hz=400),
        Make(num_frames=25),
        Make(num_frames=50, tone_hz=800, tone_s=1.0),
        Make(num_frames=25, tone_hz=1600, tone_s=3.0),
        Make(num_frames=25, tone_hz=600),
    ]
    paths = [make_clip(tmp_path / f"{clip}.mp4", clip, make) for clip, make in enumerate(makes)]
    for force_encode in (False, True):
        settings = VideoSettings(audio="keep", force_encode=force_encode, preset="ultrafast", crf=12)
        joined = join(paths, tmp_path / "out.mp4", settings)
        assert has_sound(joined)
        assert joined.way == ("encode" if force_encode else "copy")
        assert_segments(joined, range(5), (49, 24, 49, 24, 24))
        sound = sound_in(joined.path)
        assert len(sound) / 48_000 == pytest.approx(joined.duration_s, abs=0.05)
        heard = [
            pitch_hz(sound[round(start_s * 48_000) : round(end_s * 48_000)])
            for start_s, end_s in ((0.1, 1.9), (2.1, 2.9), (3.1, 3.9), (4.1, 4.9), (5.1, 5.9), (6.1, 6.9))
        ]
        assert heard == pytest.approx([400, 0, 800, 0, 1600, 600], abs=8)
        loud = np.flatnonzero(np.abs(sound[round(2.5 * 48_000) : round(3.5 * 48_000)]) > 0.1)
        assert (loud[0] / 48_000 + 2.5) == pytest.approx(3.0, abs=0.03)  # sound begins with the third picture track


def test_kept_sound_of_cuts_is_the_cuts_own(tmp_path: Path) -> None:
    low, high = (make_clip(tmp_path / f"{hz}.mp4", 1, Make(num_frames=75, tone_hz=hz)) for hz in (500, 1500))
    source = tmp_path / "full.mp4"
    run_real_ffmpeg(
        *("-i", low, "-i", high, "-filter_complex", "[0:v][0:a][1:v][1:a]concat=n=2:v=1:a=1[v][a]"),
        *("-map", "[v]", "-map", "[a]", source),
    )
    settings = VideoSettings(audio="keep", preset="ultrafast", crf=12)
    pieces = probe_pieces([Piece(source, (4.0, 5.0), None), Piece(source, (1.0, 2.0), None)], settings)
    joined = join_pieces(pieces, tmp_path / "out.mp4", settings)
    sound = sound_in(joined.path)
    assert pitch_hz(sound[4_800:43_200]) == pytest.approx(1500, abs=8)
    assert pitch_hz(sound[52_800:91_200]) == pytest.approx(500, abs=8)


def test_without_any_sound_there_is_no_sound_track(tmp_path: Path) -> None:
    joined = join([make_clip(tmp_path / "a.mp4", 1)], tmp_path / "out.mp4", VideoSettings(audio="keep"))
    assert not has_sound(joined)


def test_no_pieces_are_a_programming_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pieces"):
        join_pieces([], tmp_path / "out.mp4", SETTINGS)


_PEAK_MEMORY = """
import json, resource, sys
from pathlib import Path
from gex_pipeline.media.join import Piece, join_pieces, probe_pieces
from gex_pipeline.media.settings import VideoSettings
clip, output, number, force = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "encode"
settings = VideoSettings(force_encode=force, audio="keep", preset="ultrafast")
joined = join_pieces(probe_pieces([Piece(clip, None, None)] * number, settings), output, settings)
peaks = [resource.getrusage(who).ru_maxrss // 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps([round(joined.duration_s * joined.fps), joined.path.stat().st_size, *peaks]))
"""


@pytest.mark.parametrize("way", ["copy", "encode"])
def test_memory_does_not_grow_with_the_number_of_clips(tmp_path: Path, way: str) -> None:
    noise = np.random.default_rng(3)
    make = Make(
        num_frames=25,
        size_px=(192, 128),
        tone_hz=440,
        turn=lambda picture: noise.integers(0, 255, picture.shape, np.uint8),
        options={"preset": "ultrafast", "qp": "0"},
    )
    clip = make_clip(tmp_path / "a.mp4", 1, make)
    assert clip.stat().st_size > 700_000
    figures = []
    for number in (4, 40):
        argv = [sys.executable, "-c", _PEAK_MEMORY, str(clip), str(tmp_path / "out.mp4"), str(number), way]
        said = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120).stdout
        figures.append(json.loads(said))
    few, many = figures
    assert (few[0], many[0]) == (100, 1000)
    assert many[2] - few[2] < 12, "MiB more in this process"
    assert many[3] - few[3] < 12, "MiB more in ffmpeg"
