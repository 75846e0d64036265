"""Frames of a video file's bytes: RGB of shape (d, 3, S, S), upright, in presentation order; and how long it is.

The d frames are those shown in the middle of d equal spans, or elsewhere in each of them, scaled so that the shorter
side is S, and cut to the middle. Of a part of a video, [start_s, end_s) from the first frame on, the equal spans are
that part's.

What cannot be decoded is a `DamagedMediaError`. Decodes with one thread: a worker has one core.
"""

from __future__ import annotations

import io
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO

import av
import av.error
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from gex_pipeline.errors import RejectedError
from gex_pipeline.media.outline import check_index, outline_of
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

MAX_PICTURE_PX = 36_000_000
"""8K; headers lie about the size that a decoder will meet."""
_DECODER_LIMITS = {"max_pixels": str(MAX_PICTURE_PX)}
_SEEK_FRAMES = 8  # decoding this many frames costs about as much as a seek
# Decoders that leave out frames as they are told with each packet, and only those that nothing needs. That of AV1 is
# told when it opens and then never again, HEVC's higher layers need what it calls unneeded, and a packet of MPEG-4 may
# hold two frames.
_SKIPPING_DECODERS = frozenset({"h264", "vp9"})
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
    with _opened(content, container_format) as container:
        stream = _video_track(container)
        index = _read_index(container, stream)
        begin, end = _ticks_of(part, index, stream)
        span = (end - begin) / num_frames
        wanted = [index.shown_at(begin + span * place) for place in places_of(num_frames, places)]
        return _decoded(container, stream, index, wanted, size_px)


def video_length_s(content: bytes, container_format: str) -> float:
    """Seconds from the first frame of a video to the end of its last.

    Raises:
        DamagedMediaError: it is no video of this format.
    """
    with _opened(content, container_format) as container:
        stream = _video_track(container)
        index = _read_index(container, stream)
        return float((index.end - index.pts[0]) * _tick_s(stream))


def places_of(num_frames: int, places: Places | None = None) -> list[Fraction]:
    """Where on a line of d spans of length 1 the d frames are taken: in the middle of each, or at its place."""
    within = [Fraction(1, 2)] * num_frames if places is None else list(map(Fraction, places))
    return [number + place for number, place in zip(range(num_frames), within, strict=True)]


@contextmanager
def _opened(content: bytes, container_format: str) -> Iterator[InputContainer]:
    stream = io.BytesIO(content)
    if container_format == "mov":
        _check_index(stream)
    try:
        # the format is given, so content cannot pass for a playlist, which would make libav open other files
        with av.open(
            stream, "r", format=container_format, options=_DECODER_LIMITS, metadata_errors="replace"
        ) as container:
            yield container
    except av.error.FFmpegError as error:
        raise DamagedMediaError(f"the video cannot be decoded: {error.strerror}") from error


def _check_index(stream: BinaryIO) -> None:
    """A few bytes of index can promise a thousand million frames, and libav makes room for all of them."""
    try:
        check_index(outline_of(stream))
    except RejectedError as error:
        raise DamagedMediaError(error.detail) from error
    stream.seek(0)


def _video_track(container: InputContainer) -> VideoStream:
    tracks = [found for found in container.streams.video if not found.disposition & Disposition.attached_pic]
    stream = next((found for found in tracks if found.codec_context is not None), None)
    if stream is None:
        raise DamagedMediaError("there is no video track in it")
    stream.codec_context.thread_count = 1
    stream.codec_context.options = _DECODER_LIMITS
    return stream


def _tick_s(stream: VideoStream) -> Fraction:
    return stream.time_base or Fraction(1, av.time_base)


def _ticks_of(part: Part | None, index: _Index, stream: VideoStream) -> tuple[Fraction, Fraction]:
    """Where the wanted part of a video begins and ends, in ticks."""
    first, end = Fraction(index.pts[0]), Fraction(index.end)
    if part is None:
        return first, end
    # 0.24 s is a bit less than that in binary, which would be the frame before
    begin_s, end_s = (Fraction(seconds).limit_denominator(_TIME_HZ) for seconds in part)
    begin = first + begin_s / _tick_s(stream)
    if begin >= end:
        length_s = float((end - first) * _tick_s(stream))
        raise DamagedMediaError(
            f"its part from {part[0]:g} to {part[1]:g} s lies behind the video's end, {length_s:g} s"
        )
    return begin, min(first + end_s / _tick_s(stream), end)


def _decoded(
    container: InputContainer, stream: VideoStream, index: _Index, wanted: Sequence[int], size_px: int
) -> Frames:
    """The frames of these times."""
    scaler = VideoReformatter()
    pictures = {
        pts: _as_picture(_scaled(scaler, frame, stream, size_px), _turn_of(frame), size_px)
        for pts, frame in _decode(container, stream, index, wanted)
    }
    if not pictures:
        raise DamagedMediaError("no frame comes out of its decoder")
    decoded = sorted(pictures)
    # a frame that does not decode is replaced by the one before it, as players do
    return np.stack([pictures[decoded[max(bisect_right(decoded, pts) - 1, 0)]] for pts in wanted])


@dataclass(frozen=True)
class _Index:
    """Presentation times of all frames in order, of key frames, and of the end, in ticks; when keys are decoded."""

    pts: list[int]
    end: int
    keys: list[int]
    decoded_at: dict[int, int]

    def shown_at(self, time: Fraction) -> int:
        return self.pts[max(bisect_right(self.pts, time) - 1, 0)]

    def key_before(self, pts: int) -> int:
        return self.keys[max(bisect_right(self.keys, pts) - 1, 0)]

    def num_between(self, earlier: int, later: int) -> int:
        return bisect_right(self.pts, later) - bisect_right(self.pts, earlier)


def _read_index(container: InputContainer, stream: VideoStream) -> _Index:
    times: list[int] = []
    decoded_at: dict[int, int] = {}
    end = 0
    for packet in container.demux(stream):
        pts = packet.pts if packet.pts is not None else packet.dts
        if pts is None:
            continue  # the flush packet at the end
        if packet.is_keyframe or not decoded_at:
            decoded_at[pts] = pts if packet.dts is None else packet.dts
        if not packet.is_discard:
            times.append(pts)
            end = max(end, pts + (packet.duration or 0))
    if not times:
        raise DamagedMediaError("there are no frames in its video track")
    times.sort()
    # some containers do not say how long a frame is shown: then the last one is as long as they are on average
    shown = (times[-1] - times[0]) // (len(times) - 1) if len(times) > 1 else 1
    return _Index(times, end if end > times[-1] else times[-1] + max(shown, 1), sorted(decoded_at), decoded_at)


def _decode(
    container: InputContainer, stream: VideoStream, index: _Index, wanted: Sequence[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The wanted frames with their times, as far as they decode; key frames are sought where that saves decoding."""
    for stretch in _stretches(index, wanted):
        awaited, missing = set(stretch), set(stretch)
        for packet in _packets_from(container, stream, index, stretch[0]):
            pts = packet.pts if packet.pts is not None else packet.dts
            if stream.codec_context.name in _SKIPPING_DECODERS:  # unless they are wanted themselves
                stream.codec_context.skip_frame = "DEFAULT" if pts in awaited else "NONREF"
            for frame in packet.decode():
                shown = frame.pts if frame.pts is not None else frame.dts
                if shown in missing:
                    missing.discard(shown)
                    yield shown, frame
            awaited.discard(pts)
            if not awaited:  # all that these frames need comes before them: the rest of the stream may stay
                yield from _delayed(stream, missing)
                break


def _packets_from(
    container: InputContainer, stream: VideoStream, index: _Index, pts: int
) -> Iterator[av.Packet[VideoStream]]:
    """The packets from the key frame on that a frame needs."""
    key, start = index.key_before(pts), index.keys[0]
    # most containers seek by when a frame is shown, MPEG streams by when it is decoded; else it is from the start
    for place in (key, index.decoded_at[key], start, index.decoded_at[start]):
        container.seek(place, stream=stream)
        packets = container.demux(stream)
        first = next(packets)
        if first.is_keyframe and (first.pts is None or first.pts <= key):
            break
    yield first
    yield from packets


def _delayed(stream: VideoStream, missing: set[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    """What a decoder still holds of the frames that are missing."""
    for frame in stream.codec_context.decode(None) if missing else ():
        shown = frame.pts if frame.pts is not None else frame.dts
        if shown in missing:
            yield shown, frame


def _stretches(index: _Index, wanted: Sequence[int]) -> list[list[int]]:
    """The wanted times in groups that are decoded in one go, each from the key frame before its first."""
    stretches: list[list[int]] = []
    for pts in dict.fromkeys(wanted):
        if stretches and index.num_between(stretches[-1][-1], index.key_before(pts)) <= _SEEK_FRAMES:
            stretches[-1].append(pts)
        else:
            stretches.append([pts])
    return stretches


def _scaled(scaler: VideoReformatter, frame: av.VideoFrame, stream: VideoStream, size_px: int) -> Frames:
    """A decoded frame with square pixels, as it is stored, its shorter side `size_px`."""
    width_px = max(1, round(frame.width * (stream.sample_aspect_ratio or Fraction(1))))
    width_px, height_px = _covering_px(width_px, frame.height, size_px)
    scaled = scaler.reformat(frame, width_px, height_px, "rgb24", interpolation="BICUBIC", threads=1)
    return np.asarray(scaled.to_ndarray(), dtype=np.uint8)


def _as_picture(picture_HWC: Frames, turn: tuple[bool, bool, bool], size_px: int) -> Frames:
    """A picture as it is stored as (3, S, S), upright."""
    swaps_axes, flips_x, flips_y = turn
    if swaps_axes:
        picture_HWC = np.swapaxes(picture_HWC, 0, 1)
    if flips_x:
        picture_HWC = picture_HWC[:, ::-1]
    if flips_y:
        picture_HWC = picture_HWC[::-1]
    return _middle(picture_HWC, size_px)


def _turn_of(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Whether axes are exchanged and then x and y flipped, so that the picture is upright; quarters of a turn only."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    # x' = a x + c y and y' = b x + d y
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])  # type: ignore[call-overload]
    return (True, c < 0, b < 0) if abs(b) > abs(a) else (False, a < 0, d < 0)


def _middle(picture_HWC: Frames, size_px: int) -> Frames:
    """The square in the middle, as (3, S, S)."""
    top, left = (picture_HWC.shape[0] - size_px) // 2, (picture_HWC.shape[1] - size_px) // 2
    cut_HWC = picture_HWC[top : top + size_px, left : left + size_px]
    return np.ascontiguousarray(cut_HWC.transpose(2, 0, 1))


def _covering_px(width_px: int, height_px: int, size_px: int) -> tuple[int, int]:
    """The size at which the shorter side is `size_px`, in the same proportions."""
    shorter = min(width_px, height_px)
    return max(size_px, round(width_px * size_px / shorter)), max(size_px, round(height_px * size_px / shorter))
