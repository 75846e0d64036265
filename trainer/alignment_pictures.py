"""Alignment scores as pictures: frames and scores in; a strip of frames (PNG) and a video (MP4) out.

Red: masking this place lowers the similarity to the text. Blue: masking it raises it. What is blended over is the
frame without its colours, so that a red thing is not taken for a high score. One scale for all texts of a video: it is
symmetric and ends at a percentile of the absolute scores, so that one outlier does not pale all the rest. Drawn with
Pillow and numpy; computes no scores.
"""

# Arrays: T frames, H and W pixels, C = 3 colours.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from gex_pipeline.errors import GexError
from gex_pipeline.report.lettering import draw_lines, line_height_px, plain_font, readable, wrapped

Pixels = NDArray[np.uint8]
Scores = NDArray[np.float32]
Colour = tuple[int, int, int]

SCALE_PERCENTILE = 99
_STRENGTH = 0.8  # of the colour at the end of the scale
_RED, _BLUE = np.array((222, 20, 24)), np.array((28, 70, 228))
_NUM_SHOWN = 8
_CELL_PX = 208
_GAP_PX = 8
_MARGIN_PX = 32
_BAR_PX = 18
_BAR_ROOM_PX = 116
_TEXT_LINES = 6
_VIDEO_PX = 448
_PAPER: Colour = (251, 250, 248)
_INK: Colour = (29, 31, 36)
_SOFT: Colour = (93, 99, 111)


@dataclass(frozen=True)
class TextScores:
    """One text with its scores a pixel (T, H, W)."""

    text: str
    similarity: float
    scores_THW: Scores


@dataclass(frozen=True)
class AlignedVideo:
    """A video's sampled frames (T, H, W, C) and the scores of all its texts."""

    title: str
    frames_THWC: Pixels
    duration_s: float
    texts: Sequence[TextScores]

    @cached_property
    def limit(self) -> float:
        """The end of the scale on both sides."""
        scores = np.abs(np.stack([one.scores_THW for one in self.texts]))
        return max(float(np.percentile(scores, SCALE_PERCENTILE)), 1e-12)

    def time_s(self, frame: int) -> float:
        """The middle of a frame's share of the video."""
        return self.duration_s * (frame + 0.5) / len(self.frames_THWC)


def blended(frame_HWC: Pixels, scores_HW: Scores, limit: float) -> Pixels:
    """A frame in grey under its scores in colour; nothing is over what scores 0."""
    grey_HW1 = (frame_HWC @ np.array((0.299, 0.587, 0.114)))[..., None]
    share_HW1 = np.clip(scores_HW / limit, -1, 1)[..., None]
    colour_HWC = np.where(share_HW1 > 0, _RED, _BLUE)
    weight_HW1 = _STRENGTH * np.abs(share_HW1) ** 0.8
    return np.asarray((grey_HW1 * (1 - weight_HW1) + colour_HWC * weight_HW1).round(), dtype=np.uint8)


def shown_frames(video: AlignedVideo, num: int = _NUM_SHOWN) -> list[int]:
    """Numbers of the frames of a strip: of as many equal parts of the video each the one with the highest score."""
    peaks_T = np.stack([one.scores_THW.max(axis=(1, 2)) for one in video.texts]).max(axis=0)
    parts = np.array_split(np.arange(len(peaks_T)), min(num, len(peaks_T)))
    return [int(part[peaks_T[part].argmax()]) for part in parts]


def strip(video: AlignedVideo) -> Image.Image:
    """Chosen frames with the scores over them, the plain frames below, then the text; below each other for all texts.

    Of every part of the video the frame with the highest score is shown, the same ones for all texts.
    """
    shown = shown_frames(video)
    columns = max(len(shown), 4)  # a lone image still needs room for its text
    width_px = 2 * _MARGIN_PX + columns * (_CELL_PX + _GAP_PX) - _GAP_PX + _BAR_ROOM_PX
    room_px = width_px - 2 * _MARGIN_PX
    blocks = [_block(video, one, shown, (width_px, _MARGIN_PX)) for one in video.texts]
    title, title_font = readable(video.title, 18)
    title_lines = wrapped(title, title_font, room_px, 2)
    note, note_font = readable(_note(video), 13)
    note_lines = wrapped(note, note_font, room_px, 3)
    top_px = _MARGIN_PX + len(title_lines) * line_height_px(title_font) + 12
    bottom_px = len(note_lines) * line_height_px(note_font) + _MARGIN_PX
    sheet = Image.new("RGB", (width_px, top_px + sum(block.height for block in blocks) + bottom_px), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw_lines(draw, (_MARGIN_PX, _MARGIN_PX), title_lines, title_font, _INK)
    y = top_px
    for block in blocks:
        sheet.paste(block, (0, y))
        y += block.height
    draw_lines(draw, (_MARGIN_PX, y), note_lines, note_font, _SOFT)
    return sheet


def _note(video: AlignedVideo) -> str:
    num = len(video.frames_THWC)
    which = (
        "all frames"
        if num <= _NUM_SHOWN
        else f"of {num} frames, in each of {_NUM_SHOWN} parts the one with the highest score"
    )
    return (
        f"Red: masking this place lowers the similarity to the text; blue: it raises it. Colours end at "
        f"{video.limit:.3g} on both sides, the {SCALE_PERCENTILE}th percentile of all absolute scores of this video"
        f"{' and these texts' if len(video.texts) > 1 else ''}."
        f"{'' if num == 1 else f' Shown: {which}.'}"
    )


def _block(video: AlignedVideo, one: TextScores, shown: Sequence[int], place: tuple[int, int]) -> Image.Image:
    """Everything of one text, as wide as the sheet."""
    width_px, left_px = place
    label_font, fact_font = plain_font(13), plain_font(13)
    text, font = readable(one.text, 17)
    lines = wrapped(text, font, width_px - 2 * left_px, _TEXT_LINES)
    labels_px = line_height_px(label_font) + 2
    rows_px = 2 * _CELL_PX + _GAP_PX
    text_px = labels_px + rows_px + 10
    height_px = text_px + len(lines) * line_height_px(font) + line_height_px(fact_font) + 26
    block = Image.new("RGB", (width_px, height_px), _PAPER)
    draw = ImageDraw.Draw(block)
    for column, frame in enumerate(shown):
        x = left_px + column * (_CELL_PX + _GAP_PX)
        draw.text((x, 0), _label(video, frame), font=label_font.face, fill=_SOFT)
        plain_HWC = video.frames_THWC[frame]
        over_HWC = blended(plain_HWC, one.scores_THW[frame], video.limit)
        for row, picture_HWC in enumerate((over_HWC, plain_HWC)):
            block.paste(_square(picture_HWC, _CELL_PX), (x, labels_px + row * (_CELL_PX + _GAP_PX)))
    _draw_bar(block, (left_px + len(shown) * (_CELL_PX + _GAP_PX) + 8, labels_px + 6), rows_px - 12, video.limit)
    y = draw_lines(draw, (left_px, text_px), lines, font, _INK)
    draw.text((left_px, y + 1), f"similarity {one.similarity:.4f}", font=fact_font.face, fill=_SOFT)
    return block


def _label(video: AlignedVideo, frame: int) -> str:
    if len(video.frames_THWC) == 1:
        return "image"
    return f"frame {frame + 1} at {video.time_s(frame):.1f} s"


def _square(picture_HWC: Pixels, size_px: int) -> Image.Image:
    picture = Image.fromarray(picture_HWC)
    return (
        picture if picture.size == (size_px, size_px) else picture.resize((size_px, size_px), Image.Resampling.BICUBIC)
    )


def _draw_bar(block: Image.Image, place: tuple[int, int], height_px: int, limit: float) -> None:
    """The scale: what a score looks like over middle grey, with five numbers."""
    x, y = place
    scores_HW = np.repeat(np.linspace(limit, -limit, height_px, dtype=np.float32)[:, None], _BAR_PX, axis=1)
    grey_HWC = np.full((height_px, _BAR_PX, 3), 160, dtype=np.uint8)
    block.paste(Image.fromarray(blended(grey_HWC, scores_HW, limit)), (x, y))
    draw, font = ImageDraw.Draw(block), plain_font(13)
    for share in (1.0, 0.5, 0.0, -0.5, -1.0):
        at = y + (1 - share) / 2 * (height_px - 1)
        draw.line((x + _BAR_PX, at, x + _BAR_PX + 5, at), fill=_SOFT)
        draw.text(
            (x + _BAR_PX + 9, at), f"{share * limit:+.2g}" if share else "0", font=font.face, fill=_INK, anchor="lm"
        )


def write_overlay(video: AlignedVideo, which: int, path: Path) -> None:
    """All frames under the scores of one text as H.264 in MP4, each shown for its share of the video's length.

    Raises:
        GexError: this PyAV cannot write H.264.
    """
    import av
    from av.codec.codec import UnknownCodecError

    one, num = video.texts[which], len(video.frames_THWC)
    pages = (_page(video, one, frame) for frame in range(num))
    first = next(pages)
    rate = Fraction(num) / Fraction(max(video.duration_s, 1e-3)).limit_denominator(1000)
    with av.open(str(path), "w", format="mp4") as container:
        try:
            stream: Any = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "fast"})
        except UnknownCodecError as error:
            raise GexError("this PyAV cannot write H.264 (no libx264 in it); install its wheel from PyPI") from error
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, "yuv420p"
        stream.codec_context.time_base = 1 / rate
        for number, page in enumerate([first, *pages]):
            frame = av.VideoFrame.from_ndarray(np.asarray(page), format="rgb24")
            frame.pts, frame.time_base, frame.duration = number, 1 / rate, 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _page(video: AlignedVideo, one: TextScores, frame: int) -> Image.Image:
    """One frame of the video: the blended frame, below it time, scale and text; sides are even."""
    text, font = readable(one.text, 15)
    lines = wrapped(text, font, _VIDEO_PX - 24, _TEXT_LINES)
    facts_font = plain_font(13)
    height_px = _VIDEO_PX + 10 + line_height_px(facts_font) + 4 + len(lines) * line_height_px(font) + 12
    page = Image.new("RGB", (_VIDEO_PX, height_px + height_px % 2), _PAPER)
    page.paste(_square(blended(video.frames_THWC[frame], one.scores_THW[frame], video.limit), _VIDEO_PX), (0, 0))
    draw = ImageDraw.Draw(page)
    facts = (
        f"{_label(video, frame)} · similarity {one.similarity:.4f} · red {video.limit:+.2g}, blue {-video.limit:+.2g}"
    )
    draw.text((12, _VIDEO_PX + 10), facts, font=facts_font.face, fill=_SOFT)
    draw_lines(draw, (12, _VIDEO_PX + 10 + line_height_px(facts_font) + 4), lines, font, _INK)
    return page
