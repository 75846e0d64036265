"""Strips and overlays show the scores where they are, in the colours that the scale says."""

from __future__ import annotations

import av
import numpy as np
import pytest

from trainer.alignment_pictures import (
    AlignedVideo,
    TextScores,
    blended,
    shown_frames,
    strip,
    write_overlay,
)

NUM_FRAMES, SIZE_PX = 12, 40


def one_video(*texts: TextScores) -> AlignedVideo:
    frames = np.random.default_rng(0).integers(0, 256, (NUM_FRAMES, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    return AlignedVideo("LVLT · 0a1b", frames, 6.0, texts)


def scores(*spots: tuple[int, int, int, float]) -> np.ndarray:
    """No score but at these spots (frame, y, x, score), each ten pixels wide."""
    drawn = np.zeros((NUM_FRAMES, SIZE_PX, SIZE_PX), dtype=np.float32)
    for frame, y, x, value in spots:
        drawn[frame, y : y + 10, x : x + 10] = value
    return drawn


@pytest.fixture(scope="module")
def two_texts() -> AlignedVideo:
    hot = TextScores("a long text " * 40, 0.3, scores((4, 0, 20, 0.02), (7, 30, 0, -0.02), (9, 10, 10, 0.02)))
    cold = TextScores("a short text", 0.2, scores((4, 20, 0, 0.005)))
    return one_video(hot, cold)


def test_the_scale_is_that_of_all_texts_and_ends_at_the_percentile(two_texts):
    # 300 + 100 of 2 * 12 * 1600 pixels have a score: the 99th percentile is among them
    assert two_texts.limit == pytest.approx(0.005, rel=1e-3)
    assert one_video(TextScores("nothing", 0.0, scores())).limit > 0


def test_high_scores_are_red_low_ones_blue_and_none_leaves_the_frame_grey():
    frame = np.full((1, 4, 3), (200, 100, 50), dtype=np.uint8)
    picture = blended(frame, np.array([[1.0, -1.0, 0.0, 5.0]], dtype=np.float32), 1.0)[0].astype(int)
    grey = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert picture[2].tolist() == [grey] * 3
    assert picture[0][0] > picture[0][2] + 100 and picture[1][2] > picture[1][0] + 100
    assert picture[3].tolist() == picture[0].tolist()  # what is beyond the scale looks like its end


def test_of_every_part_the_frame_with_the_highest_score_is_shown(two_texts):
    assert shown_frames(two_texts, 3) == [0, 4, 9]
    assert shown_frames(two_texts, 99) == list(range(NUM_FRAMES))


def test_a_strip_has_a_block_for_every_text_and_the_hottest_patch_is_red(two_texts):
    both, lone = strip(two_texts), strip(one_video(two_texts.texts[0]))
    assert both.width == lone.width == 2 * 32 + 8 * 216 - 8 + 116
    assert both.height > lone.height + 416
    column = shown_frames(two_texts).index(4)
    top = next(y for y in range(both.height) if both.getpixel((32, y)) != both.getpixel((0, 0)) and y > 80)
    hottest = both.getpixel((32 + column * 216 + round(25 / SIZE_PX * 208), top + round(5 / SIZE_PX * 208)))
    assert hottest[0] > hottest[2] + 80


def test_an_image_has_a_strip_of_one_frame():
    frames = np.zeros((1, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    picture = strip(AlignedVideo("IT", frames, 0.0, [TextScores("a picture", 0.1, scores()[:1])]))
    assert picture.width == 2 * 32 + 4 * 216 - 8 + 116


def test_an_overlay_shows_every_frame_for_its_share_of_the_video(two_texts, tmp_path):
    write_overlay(two_texts, 0, tmp_path / "overlay.mp4")
    with av.open(str(tmp_path / "overlay.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert container.duration / 1e6 == pytest.approx(6.0, abs=0.01)
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx([number * 0.5 for number in range(NUM_FRAMES)], abs=1e-3)
    assert frames[0].width % 2 == frames[0].height % 2 == 0
    picture = frames[4].to_ndarray(format="rgb24").astype(int)
    hottest = picture[round(5 / SIZE_PX * 448), round(25 / SIZE_PX * 448)]
    assert hottest[0] > hottest[2] + 80
    calm = picture[300, 300]
    assert abs(calm - calm.mean()).max() < 12  # grey
