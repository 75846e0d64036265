"""Frames of a video file's bytes: RGB of shape (d, 3, S, S), upright, in presentation order; and how long it is.

The d frames are those shown in the middle of d equal spans, or elsewhere in each of them, scaled so that the shorter
side is S, and cut to the middle. Of a part of a video, [start_s, end_s) from the first frame on, the equal spans are
that part's.

What cannot be decoded is a `DamagedMediaError`. Decodes with one thread: a worker has one core.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

import av
import av.error
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from gex_pipeline.errors import RejectedError
from gex_pipeline.media.decoding import Index, decode, packets_of, picture_of, read_index, stretches_of
from gex_pipeline.media.outline import check_index, outline_of
from gex_pipeline.media.source import DECODER_LIMITS, video_track
from trainer.media_reader import DamagedMediaError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

Frames = NDArray[np.uint8]
Part = tuple[float, float]
"""Seconds from the first frame on, [start, end); a moment where both are the same: the frame that is shown then."""

Places = Sequence[float]
"""Where in each of d equal spans a frame is taken: 0 is where the span begins, 1, which it never is, where it ends."""

_ENDINGS = {
    "mov": ("mp4", "mov", "m4v", "3gp"),
    "matroska": ("mkv", "webm"),
    "avi": ("avi",),
    "flv": ("flv",),
    "mpegts": ("ts", "m2ts"),
    "mpeg": ("mpg", "mpeg"),
    "ogg": ("ogv",),
    "asf": ("wmv",),
}
VIDEO_FORMATS = {ending: name for name, endings in _ENDINGS.items() for ending in endings}
"""What libav calls the container of files with these endings."""

_TIME_HZ = 1_000_000  # times in seconds are taken as whole numbers of this part of one, or simpler fractions


def video_frames(
    content: bytes,
    container_format: str,
    num_frames: int,
    size_px: int,
    part: Part | None = None,
    places: Places | None = None,
) -> Frames:
    """Frames (d, 3, S, S) of a video or a part of it, one in each of d equal spans: in its middle, or at its place.

    A part is cut to the video; where it lies behind the video's end there is nothing to see.

    Raises:
        DamagedMediaError: it is no video of this format, does not decode, or has no such part.
    """
    with _opened(content, container_format) as (container, track, index):
        begin, end = _ticks_of(part, index)
        span = (end - begin) / num_frames
        wanted = [index.frame_at(begin + span * place) for place in places_of(num_frames, places)]
        return _decoded(container, track, index, wanted, size_px)


def video_length_s(content: bytes, container_format: str) -> float:
    """Seconds from the first frame of a video to the end of its last.

    Raises:
        DamagedMediaError: it is no video of this format.
    """
    with _opened(content, container_format) as (_, _, index):
        return float((index.end_ticks - index.pts[0]) * index.time_base)


def places_of(num_frames: int, places: Places | None = None) -> list[Fraction]:
    """Where on a line of d spans of length 1 the d frames are taken: in the middle of each, or at its place."""
    within = [Fraction(1, 2)] * num_frames if places is None else list(map(Fraction, places))
    return [number + place for number, place in zip(range(num_frames), within, strict=True)]


@contextmanager
def _opened(content: bytes, container_format: str) -> Iterator[tuple[InputContainer, VideoStream, Index]]:
    stream = io.BytesIO(content)
    try:
        if container_format == "mov":
            check_index(outline_of(stream))
            stream.seek(0)
        # the format is given, so content cannot pass for a playlist, which would make libav open other files
        with av.open(
            stream, "r", format=container_format, options=DECODER_LIMITS, metadata_errors="replace"
        ) as container:
            track = video_track(container)
            yield container, track, read_index(container, track)
    except RejectedError as error:
        raise DamagedMediaError(error.detail) from error
    except av.error.FFmpegError as error:
        raise DamagedMediaError(f"the video cannot be decoded: {error.strerror}") from error


def _ticks_of(part: Part | None, index: Index) -> tuple[Fraction, Fraction]:
    """Where the wanted part of a video begins and ends, in ticks."""
    first, end = Fraction(index.pts[0]), Fraction(index.end_ticks)
    if part is None:
        return first, end
    # 0.24 s is a bit less than that in binary, which would be the frame before
    begin_s, end_s = (Fraction(seconds).limit_denominator(_TIME_HZ) for seconds in part)
    begin = first + begin_s / index.time_base
    if begin >= end:
        length_s = float((end - first) * index.time_base)
        raise DamagedMediaError(
            f"its part from {part[0]:g} to {part[1]:g} s lies behind the video's end, {length_s:g} s"
        )
    return begin, min(first + end_s / index.time_base, end)


def _decoded(
    container: InputContainer, track: VideoStream, index: Index, wanted: Sequence[int], size_px: int
) -> Frames:
    """The frames of these times."""
    scaler, fit = VideoReformatter(), partial(_covering_px, size_px)
    pictures = {
        pts: _middle(picture_of(frame, track, scaler, fit), size_px)
        for stretch in stretches_of(index, wanted)
        for pts, frame in decode(packets_of(stretch, index, container, track), track, stretch.wanted)
    }
    if not pictures:
        raise DamagedMediaError("no frame comes out of its decoder")
    decoded = sorted(pictures)
    # a frame that does not decode is replaced by the one before it, as players do
    return np.stack([pictures[decoded[max(bisect_right(decoded, pts) - 1, 0)]] for pts in wanted])


def _middle(picture_HWC: Frames, size_px: int) -> Frames:
    """The square in the middle, as (3, S, S)."""
    top, left = (picture_HWC.shape[0] - size_px) // 2, (picture_HWC.shape[1] - size_px) // 2
    cut_HWC = picture_HWC[top : top + size_px, left : left + size_px]
    return np.ascontiguousarray(cut_HWC.transpose(2, 0, 1))


def _covering_px(size_px: int, shown_px: tuple[int, int]) -> tuple[int, int]:
    """The size at which the shorter side is `size_px`, in the same proportions."""
    width_px, height_px = (max(size_px, round(side_px * size_px / min(shown_px))) for side_px in shown_px)
    return width_px, height_px
