from __future__ import annotations

import io
import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gex_pipeline.errors import Reason, RejectedError
from gex_pipeline.media import sampling
from gex_pipeline.media.frames import encode_jpeg, sample_frames
from gex_pipeline.media.sampling import decode_jpeg, fit_short_side, run_pictures, sample_jpegs
from gex_pipeline.media.settings import FrameSettings
from gex_pipeline.shard_format import DamagedRunError, Frames, ShardWriter
from tests.media.making_clips import Make, make_clip, number_of, read_number, run_real_ffmpeg

LIMIT_S = 60.0
SKIPPING = [
    ("a.mp4", "libsvtav1", {"preset": "12", "crf": "20", "svtav1-params": "lp=1"}),
    ("a.mp4", "libx265", {"preset": "ultrafast", "crf": "12", "x265-params": "log-level=error:bframes=4:pools=none"}),
    ("a.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "10"}),
]


def numbers(jpegs) -> list[int]:
    return [read_number(decode_jpeg(jpeg)) for jpeg in jpegs]


def sampled(path: Path, num: int, short_side_px: int = 64, limit_s: float = LIMIT_S):
    return sample_jpegs(path, FrameSettings(num=num, short_side_px=short_side_px), limit_s)


def middles(num_frames: int, wanted: int) -> list[int]:
    return [(2 * number + 1) * num_frames // (2 * wanted) for number in range(wanted)]


@pytest.mark.parametrize("group", [250, 12, 3])
@pytest.mark.parametrize("wanted", [1, 7, 60])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_frames_are_those_in_the_middle_of_equal_spans_wherever_key_frames_are(tmp_path, name, wanted, group):
    options = {"preset": "ultrafast", "crf": "12", "bf": "3", "g": str(group), "b_strategy": "0"}
    path = make_clip(tmp_path / name, 5, Make(num_frames=60, options=options))
    frames, jpegs = sampled(path, wanted)
    assert numbers(jpegs) == [number_of(5, frame) for frame in middles(60, wanted)]
    assert frames == Frames(wanted, 64, 90, 96, 64)


def test_a_last_frame_whose_length_is_not_said_is_shown_as_long_as_the_others(tmp_path):
    """It was shown for a thousandth of a second, so that all spans were shorter than those that are trained on."""
    make = Make(num_frames=30, codec="wmv2", options={"g": "10", "b": "2000000"})
    path = make_clip(tmp_path / "a.wmv", 5, make)
    assert numbers(sampled(path, 15)[1]) == [number_of(5, frame) for frame in middles(30, 15)]


def test_what_an_open_group_of_pictures_needs_from_before_it_is_decoded_too(tmp_path):
    open_groups = "open-gop=1:b-adapt=0:keyint=10:min-keyint=10"
    options = {"preset": "ultrafast", "g": "10", "bf": "2", "x264-params": open_groups}
    path = make_clip(tmp_path / "a.mp4", 5, Make(num_frames=60, options=options))
    assert numbers(sampled(path, 60)[1]) == [number_of(5, frame) for frame in range(60)]
    assert numbers(sampled(path, 2)[1]) == [number_of(5, frame) for frame in middles(60, 2)]


@pytest.mark.parametrize(("name", "codec", "options"), SKIPPING)
def test_frames_of_codecs_whose_decoders_skip_otherwise_are_the_same(tmp_path, name, codec, options):
    """AV1 that SVT wrote was refused as undecodable: dav1d hears only when it opens what it may leave out."""
    path = make_clip(tmp_path / name, 5, Make(num_frames=60, codec=codec, options=options))
    assert numbers(sampled(path, 7)[1]) == [number_of(5, frame) for frame in middles(60, 7)]
    assert numbers(sampled(path, 60)[1]) == [number_of(5, frame) for frame in range(60)]


def test_a_video_with_fewer_frames_gives_some_of_them_more_than_once(tmp_path):
    path = make_clip(tmp_path / "a.mp4", 1, Make(num_frames=3))
    assert [number & 255 for number in numbers(sampled(path, 8)[1])] == [0, 0, 0, 1, 1, 2, 2, 2]


def test_the_shorter_side_is_scaled_and_never_enlarged(tmp_path):
    path = make_clip(tmp_path / "a.mp4", 1, Make(num_frames=4, size_px=(192, 96)))
    sizes = {side: sampled(path, 2, side)[0] for side in (32, 96, 500)}
    assert {side: (found.width_px, found.height_px) for side, found in sizes.items()} == {
        32: (64, 32),
        96: (192, 96),
        500: (192, 96),
    }
    assert [Image.open(io.BytesIO(jpeg)).size for jpeg in sampled(path, 2, 32)[1]] == [(64, 32)] * 2
    assert [fit_short_side(32, size) for size in ((97, 65), (65, 97), (1000, 33), (32, 16))] == [
        (48, 32),
        (32, 48),
        (970, 32),
        (32, 16),
    ]


def test_frames_are_upright_with_square_pixels(tmp_path):
    path = make_clip(tmp_path / "a.mp4", 2, Make(num_frames=6, size_px=(96, 64)))
    turned, wide = tmp_path / "turned.mp4", tmp_path / "wide.mp4"
    run_real_ffmpeg("-display_rotation", "90", "-i", path, "-c", "copy", turned)
    run_real_ffmpeg("-i", path, "-c", "copy", "-bsf:v", "h264_metadata=sample_aspect_ratio=2/1", wide)
    found, jpegs = sampled(turned, 2, 48)
    assert (found.width_px, found.height_px) == (48, 72)
    expected = sample_frames(turned, 2, height_px=72)
    assert np.abs(np.stack([decode_jpeg(jpeg) for jpeg in jpegs]).astype(int) - expected).mean() < 3
    found, jpegs = sampled(wide, 2, 32)
    assert (found.width_px, found.height_px) == (96, 32)
    assert [number & 255 for number in numbers(jpegs)] == middles(6, 2)


def test_the_same_video_gives_the_same_bytes_and_quality_changes_them(tmp_path):
    path = make_clip(tmp_path / "a.mp4", 2)
    assert sampled(path, 3) == sampled(path, 3)
    small = sample_jpegs(path, FrameSettings(num=3, short_side_px=64, quality=20), LIMIT_S)[1]
    assert sum(map(len, small)) < sum(map(len, sampled(path, 3)[1]))


def test_a_frame_that_does_not_decode_is_not_painted_over(tmp_path):
    """Damage in the middle of a group: frames before it are sampled, of those that need it none is."""
    noise = Make(num_frames=40, size_px=(192, 128), options={"preset": "ultrafast", "crf": "4", "g": "40", "bf": "0"})
    path = make_clip(tmp_path / "a.mp4", 1, noise)
    content = bytearray(path.read_bytes())
    at = content.index(b"mdat") + 4 + (len(content) - content.index(b"mdat")) // 2
    content[at : at + 40] = bytes(range(200, 240))
    path.write_bytes(content)
    with pytest.raises(RejectedError) as damaged:
        sampled(path, 8)
    assert damaged.value.reason == Reason.undecodable


def test_what_is_no_video_or_takes_too_long_has_its_reason(tmp_path, monkeypatch):
    reasons = {}
    (tmp_path / "text.mp4").write_text("no video")
    make_clip(tmp_path / "slow.mp4", 1)
    for name in ("none.mp4", "text.mp4"):
        with pytest.raises(RejectedError) as caught:
            sampled(tmp_path / name, 1)
        reasons[name] = caught.value.reason
    monkeypatch.setattr(sampling.time, "monotonic", itertools.count().__next__)
    with pytest.raises(RejectedError) as caught:
        sampled(tmp_path / "slow.mp4", 1, limit_s=0.5)
    assert (*reasons.values(), caught.value.reason) == (
        Reason.media_missing,
        Reason.not_a_video,
        Reason.ffmpeg_timeout,
    )


def test_pictures_come_out_of_a_run_in_the_middle_of_equal_parts(tmp_path):
    path = make_clip(tmp_path / "a.mp4", 3, Make(num_frames=8))
    with ShardWriter(tmp_path / "a.tar") as writer:
        span = writer.add_run("0" * 32, sampled(path, 8)[1])
    run = (tmp_path / "a.tar").read_bytes()[span.offset_bytes : span.offset_bytes + span.size_bytes]
    assert [read_number(picture) & 255 for picture in run_pictures(run, 3)] == middles(8, 3)
    with pytest.raises(RejectedError, match="there are no frames in it"):
        run_pictures(b"", 1)
    with pytest.raises(DamagedRunError, match="damaged header at byte 0"):
        run_pictures(b"x" * 1024, 1)
    with pytest.raises(RejectedError, match="a frame cannot be decoded: UnidentifiedImageError"):
        decode_jpeg(b"no picture")
    jpeg = encode_jpeg(np.zeros((8, 8, 3), np.uint8), 90)
    size_at = jpeg.index(b"\xff\xc0") + 5
    with pytest.raises(RejectedError, match="DecompressionBombError"):  # Pillow makes room for what it says
        decode_jpeg(jpeg[:size_at] + struct.pack(">HH", 6001, 6000) + jpeg[size_at + 4 :])
