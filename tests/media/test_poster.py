"""The picture that stands for a video: the frame that training sees, but smaller."""

from __future__ import annotations

import numpy as np
import pytest

from gex_pipeline.media.frames import sample_frames
from gex_pipeline.media.poster import poster_jpeg
from gex_pipeline.media.sampling import decode_jpeg
from tests.media.making_clips import Make, make_clip, run_real_ffmpeg

SIZE_PX = (96, 64)


@pytest.fixture
def path(tmp_path):
    return make_clip(tmp_path / "a.mp4", 2, Make(num_frames=6, size_px=SIZE_PX))


def poster(path, height_px=32):
    with path.open("rb") as stream:
        return decode_jpeg(poster_jpeg(stream, 0.0, height_px))


@pytest.mark.parametrize("height_px", [32, 1000])
def test_a_poster_is_at_most_so_high_and_never_larger_than_its_video(path, height_px):
    high = min(height_px, 64)
    expected = sample_frames(path, 6, height_px=high)[0]
    assert poster(path, height_px).shape == expected.shape == (high, high * 3 // 2, 3)
    assert np.abs(poster(path, height_px).astype(int) - expected).mean() < 3


@pytest.mark.parametrize("box", [b"pasp", b"free"])
def test_pixels_are_square_as_those_of_other_frames(path, box):
    """Their shape is told by the header of the file, or by its pictures alone."""
    wide = path.with_name("wide.mp4")
    run_real_ffmpeg("-i", path, "-c", "copy", "-bsf:v", "h264_metadata=sample_aspect_ratio=2/1", wide)
    wide.write_bytes(wide.read_bytes().replace(b"pasp", box))
    assert sample_frames(wide, 1, height_px=32)[0].shape == (32, 96, 3)
    assert poster(wide).shape == (32, 96, 3)


def test_a_turned_video_is_upright(path):
    turned = path.with_name("turned.mp4")
    run_real_ffmpeg("-display_rotation", "90", "-i", path, "-c", "copy", turned)
    assert poster(turned, 48).shape == (48, 32, 3)
