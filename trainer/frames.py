"""Frames of one sample: a byte range of a tar in; RGB bytes of shape (d, 3, S, S) out, upright, in presentation order.

A sample's media is a video, an image (for d = 1), or a run of frames that were decoded when the data set was made.
Frames are scaled so that the shorter side is S, and cut to the middle. Of a video the d frames are those shown in the
middle of d equal spans; of a run that holds more than d, the ones in the middle of d equal parts.

A run of frames (extension ``frames``) is the tar members ``{key}.f000.jpg``, ``{key}.f001.jpg``, ... of one sample,
next to each other: a key ends at the first dot, so they stay one sample for WebDataset. The range begins with the
first member's header and ends with the last one's padding: one read, and it says itself how many frames it holds.

What cannot be decoded is a `DamagedMediaError`. Decodes with one thread: a worker has one core. Caches no media.
"""

from __future__ import annotations

import io
import re
import struct
import tarfile
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO

import av
import av.error
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from gex_pipeline import storage
from gex_pipeline.errors import FileMissingError, FileTooShortError, GexError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

    from trainer.catalog_rows import CatalogSample

Frames = NDArray[np.uint8]

FRAMES_EXTENSION = "frames"
VIDEO_FORMATS = {"mp4": "mov", "mov": "mov", "mkv": "matroska", "webm": "matroska", "avi": "avi"}
IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")

_FRAME_NAME = re.compile(r"[^./]+\.f\d{3,}\.jpg")
_BLOCK_BYTES = 512
_SEEK_FRAMES = 8  # decoding this many frames costs about as much as a seek
_MAX_PICTURE_PX = 36_000_000  # 8K; headers lie about the size that a decoder will meet
_DECODER_LIMITS = {"max_pixels": str(_MAX_PICTURE_PX)}
_OPEN_TARS = 16


class DamagedMediaError(Exception):
    """The media of one sample cannot be read or decoded; the message says why."""


class MediaReader:
    """Reads ranges of tars; the last few stay open, since neighbouring samples share them. One process's own."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, tuple[ExitStack, BinaryIO]] = OrderedDict()

    def read(self, sample: CatalogSample) -> bytes:
        """The bytes of a sample's media.

        Raises:
            DamagedMediaError: the sample has none, or its tar is missing or too short.
            GexError: storage refuses, or does not answer.
        """
        if sample.media_uri is None or not sample.media_size_bytes:
            raise DamagedMediaError("it has no video or picture")
        try:
            stream = self._stream(sample.media_uri)
            stream.seek(sample.media_offset_bytes)
            content = stream.read(sample.media_size_bytes)
        except (FileMissingError, FileTooShortError) as error:
            raise DamagedMediaError(str(error)) from error
        except OSError as error:
            raise GexError(f"{sample.media_uri!r} cannot be read: {error}") from error
        if len(content) != sample.media_size_bytes:
            lacking = sample.media_size_bytes - len(content)
            raise DamagedMediaError(f"{sample.media_uri!r} ends {lacking} bytes before the sample does")
        return content

    def close(self) -> None:
        """Close the tars."""
        while self._open:
            self._open.popitem()[1][0].close()

    def _stream(self, uri: str) -> BinaryIO:
        if uri in self._open:
            self._open.move_to_end(uri)
            return self._open[uri][1]
        while len(self._open) >= _OPEN_TARS:
            self._open.popitem(last=False)[1][0].close()
        stack = ExitStack()
        stream = stack.enter_context(storage.open_read(uri))
        self._open[uri] = (stack, stream)
        return stream


def read_frames(sample: CatalogSample, num_frames: int, size_px: int, media: MediaReader) -> Frames:
    """``num_frames`` frames (d, 3, S, S) of a sample, of whatever kind its media is.

    Raises:
        DamagedMediaError: it cannot be read or decoded.
        GexError: storage refuses; or more than one frame is asked of an image.
    """
    kind = sample.media_extension
    if kind in IMAGE_EXTENSIONS and num_frames > 1:
        raise GexError(
            f"{sample.granularity} holds images, of which {num_frames} frames are asked; set num_frames to 1"
        )
    content = media.read(sample)
    if kind == FRAMES_EXTENSION:
        return run_frames(content, num_frames, size_px)
    if kind in IMAGE_EXTENSIONS:
        return image_frame(content, size_px)[None]
    if kind in VIDEO_FORMATS:
        return video_frames(content, VIDEO_FORMATS[kind], num_frames, size_px)
    raise DamagedMediaError(f"media of kind {kind!r} cannot be read; expected a video, an image or frames")


def image_frame(content: bytes, size_px: int) -> Frames:
    """An image file as one frame (3, S, S), turned as its EXIF data say.

    Raises:
        DamagedMediaError: it is no whole image, or too large.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP")) as image:
            if image.width * image.height > _MAX_PICTURE_PX:
                raise DamagedMediaError(f"an image of {image.width}x{image.height} pixels is too large")
            image.draft("RGB", (size_px, size_px))  # JPEG can be decoded at a half, a quarter, ... of its size
            # each of these makes a copy, also where there is nothing to do
            upright = ImageOps.exif_transpose(image) if "exif" in image.info else image
            upright = upright.convert("RGB") if upright.mode != "RGB" else upright
            upright.load()
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DamagedMediaError(f"an image cannot be decoded: {error}") from error
    width_px, height_px = covering_px(upright.width, upright.height, size_px)
    if upright.size != (width_px, height_px):
        upright = upright.resize((width_px, height_px), Image.Resampling.BICUBIC)
    left, top = (width_px - size_px) // 2, (height_px - size_px) // 2
    if (width_px, height_px) != (size_px, size_px):
        upright = upright.crop((left, top, left + size_px, top + size_px))
    return np.ascontiguousarray(np.asarray(upright, dtype=np.uint8).transpose(2, 0, 1))


def run_frames(content: bytes, num_frames: int, size_px: int) -> Frames:
    """Frames (d, 3, S, S) out of a run of tar members; with fewer than d, some come more than once.

    Raises:
        DamagedMediaError: it is no whole run, or one of the frames cannot be decoded.
    """
    pictures = list(_members(content))
    if not pictures:
        raise DamagedMediaError("there are no frames in it")
    chosen = [(2 * number + 1) * len(pictures) // (2 * num_frames) for number in range(num_frames)]
    return np.stack([image_frame(pictures[index], size_px) for index in chosen])


def video_frames(content: bytes, container_format: str, num_frames: int, size_px: int) -> Frames:
    """Frames (d, 3, S, S) of a video, in the middle of d equal spans of it.

    Raises:
        DamagedMediaError: it is no video of this format, or does not decode.
    """
    try:
        # the format is given, so content cannot pass for a playlist, which would make libav open other files
        with av.open(
            io.BytesIO(content), "r", format=container_format, options=_DECODER_LIMITS, metadata_errors="replace"
        ) as container:
            return _sampled(container, num_frames, size_px)
    except av.error.FFmpegError as error:
        raise DamagedMediaError(f"the video cannot be decoded: {error.strerror}") from error


def covering_px(width_px: int, height_px: int, size_px: int) -> tuple[int, int]:
    """The size at which the shorter side is `size_px`, in the same proportions."""
    shorter = min(width_px, height_px)
    return max(size_px, round(width_px * size_px / shorter)), max(size_px, round(height_px * size_px / shorter))


def _members(content: bytes) -> Iterator[bytes]:
    """The files in a run of tar members, which must be frames."""
    at = 0
    while at < len(content):
        try:
            header = tarfile.TarInfo.frombuf(content[at : at + _BLOCK_BYTES], "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise DamagedMediaError(f"the run of frames has a damaged header at byte {at}: {error}") from error
        at += _BLOCK_BYTES
        if not _FRAME_NAME.fullmatch(header.name) or at + header.size > len(content):
            raise DamagedMediaError(f"the run of frames holds {header.name!r}, which is no whole frame of it")
        yield content[at : at + header.size]
        at += -(-header.size // _BLOCK_BYTES) * _BLOCK_BYTES


def _sampled(container: InputContainer, num_frames: int, size_px: int) -> Frames:
    tracks = [found for found in container.streams.video if not found.disposition & Disposition.attached_pic]
    stream = next((found for found in tracks if found.codec_context is not None), None)
    if stream is None:
        raise DamagedMediaError("there is no video track in it")
    stream.codec_context.thread_count = 1
    stream.codec_context.options = _DECODER_LIMITS
    index = _read_index(container, stream)
    span = Fraction(index.end - index.pts[0], num_frames)
    wanted = [index.shown_at(index.pts[0] + span * number + span / 2) for number in range(num_frames)]
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
    """Presentation times of all frames in order, of key frames, and of the end, in ticks."""

    pts: list[int]
    end: int
    keys: list[int]

    def shown_at(self, time: Fraction) -> int:
        return self.pts[max(bisect_right(self.pts, time) - 1, 0)]

    def key_before(self, pts: int) -> int:
        return self.keys[max(bisect_right(self.keys, pts) - 1, 0)]

    def num_between(self, earlier: int, later: int) -> int:
        return bisect_right(self.pts, later) - bisect_right(self.pts, earlier)


def _read_index(container: InputContainer, stream: VideoStream) -> _Index:
    times: list[int] = []
    keys: list[int] = []
    end = 0
    for packet in container.demux(stream):
        pts = packet.pts if packet.pts is not None else packet.dts
        if pts is None:
            continue  # the flush packet at the end
        if packet.is_keyframe or not keys:
            keys.append(pts)
        if not packet.is_discard:
            times.append(pts)
            end = max(end, pts + (packet.duration or 0))
    if not times:
        raise DamagedMediaError("there are no frames in its video track")
    times.sort()
    return _Index(times, max(end, times[-1] + 1), sorted(keys))


def _decode(
    container: InputContainer, stream: VideoStream, index: _Index, wanted: Sequence[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The wanted frames with their times, as far as they decode; key frames are sought where that saves decoding."""
    for stretch in _stretches(index, wanted):
        awaited, missing = set(stretch), set(stretch)
        for packet in _packets_from(container, stream, index, stretch[0]):
            pts = packet.pts if packet.pts is not None else packet.dts
            # frames that no other one needs are skipped, unless they are wanted themselves
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
    key = index.key_before(pts)
    container.seek(key, stream=stream)
    packets = container.demux(stream)
    first = next(packets)
    if first.pts is not None and first.pts > key:  # some containers seek coarsely
        container.seek(index.keys[0], stream=stream)
        packets = container.demux(stream)
    else:
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
    width_px, height_px = covering_px(width_px, frame.height, size_px)
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
