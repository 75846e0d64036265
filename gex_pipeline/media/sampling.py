"""Frames of a video as JPEG files, for shards that hold frames, and back: a local file in; pictures in order out.

The frames are those shown in the middle of equal spans, upright, with square pixels, scaled so that the shorter side
has the wanted length and never enlarged. The same video and settings give the same bytes. Unlike what is only looked
at, a frame must decode: no damage is painted over, and no other frame stands in for it.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import av
import av.container
import av.error
import av.video.reformatter
import av.video.stream
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gex_pipeline.errors import Reason, RejectedError
from gex_pipeline.media.decoding import Index, Packet, Stretch, decode, packets_of, picture_of, read_index, stretches_of
from gex_pipeline.media.frames import encode_jpeg
from gex_pipeline.media.outline import check_index, read_outline
from gex_pipeline.media.settings import FrameSettings
from gex_pipeline.media.source import DECODER_LIMITS, MAX_PICTURE_PX, open_video
from gex_pipeline.shard_format import Frames, split_run

PICTURE_FORMATS = ("JPEG", "PNG", "WEBP")  # those of `gex_pipeline.shard_format.IMAGE_EXTENSIONS`
# What Pillow raises over files that are damaged, of no such format, or would fill the memory.
PICTURE_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_DECODER = DECODER_LIMITS | {"err_detect": "explode"}  # else damage is painted over


def sample_jpegs(path: Path, settings: FrameSettings, limit_s: float) -> tuple[Frames, tuple[bytes, ...]]:
    """The frames of a video, and what they are; with fewer than ``settings.num``, some come more than once.

    Raises:
        RejectedError: media_missing, not_a_video, no_frames, undecodable, or ffmpeg_timeout after `limit_s`.
    """
    if not path.is_file():
        raise RejectedError(Reason.media_missing, f"{path.name} does not exist")
    outline = read_outline(path)
    check_index(outline)
    try:
        with open_video(path, header_only=outline.kind == "iso") as (container, stream):
            stream.codec_context.options = _DECODER
            return _sample(container, stream, settings, time.monotonic() + limit_s)
    except av.error.FFmpegError as error:
        raise RejectedError(Reason.undecodable, f"a frame of it cannot be decoded: {error.strerror}") from error


def run_pictures(content: bytes, num: int) -> list[NDArray[np.uint8]]:
    """Pictures out of a run of frames, in the middle of `num` equal parts of it, as RGB of shape (H, W, 3).

    Raises:
        RejectedError: no_frames, or undecodable.
        DamagedRunError: it is no whole run.
    """
    jpegs = split_run(content)
    if not jpegs:
        raise RejectedError(Reason.no_frames, "there are no frames in it")
    return [decode_jpeg(jpegs[(2 * number + 1) * len(jpegs) // (2 * num)]) for number in range(num)]


@contextmanager
def opened_picture(source: Path | BinaryIO, formats: tuple[str, ...] = PICTURE_FORMATS) -> Iterator[Image.Image]:
    """An image file, its pixels not read yet; what goes wrong, then or while they are read, is in `PICTURE_ERRORS`.

    Pillow's own limit is 179 million pixels, which are 0.7 GB and as much again for each copy.
    """
    with Image.open(source, formats=formats) as picture:
        if picture.width * picture.height > MAX_PICTURE_PX:
            raise Image.DecompressionBombError(
                f"it has {picture.width} x {picture.height} pixels; {MAX_PICTURE_PX} in all are the most"
            )
        yield picture


def decode_jpeg(content: bytes) -> NDArray[np.uint8]:
    """A frame as RGB of shape (H, W, 3).

    Raises:
        RejectedError: undecodable.
    """
    try:
        with opened_picture(io.BytesIO(content), ("JPEG",)) as picture:
            return np.asarray(picture.convert("RGB"))
    except PICTURE_ERRORS as error:
        raise RejectedError(Reason.undecodable, f"a frame cannot be decoded: {type(error).__name__}") from error


def fit_short_side(short_side_px: int, shown_px: tuple[int, int]) -> tuple[int, int]:
    """The size at which the shorter side is no longer than this, in the same proportions."""
    shorter_px = min(shown_px)
    if shorter_px <= short_side_px:
        return shown_px
    width_px, height_px = (max(1, round(side_px * short_side_px / shorter_px)) for side_px in shown_px)
    return width_px, height_px


def _sample(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    settings: FrameSettings,
    deadline_s: float,
) -> tuple[Frames, tuple[bytes, ...]]:
    index = read_index(container, stream)
    wanted = [index.frame_at(ticks) for ticks in index.middles(settings.num)]
    reformatter = av.video.reformatter.VideoReformatter()
    fit = partial(fit_short_side, settings.short_side_px)
    jpegs: dict[int, bytes] = {}
    sizes: set[tuple[int, int]] = set()
    for pts, frame in _decode_all(container, stream, index, wanted, deadline_s):
        picture_HWC = picture_of(frame, stream, reformatter, fit)
        jpegs[pts] = encode_jpeg(picture_HWC, settings.quality)
        sizes.add((picture_HWC.shape[1], picture_HWC.shape[0]))
    lost = next((pts for pts in wanted if pts not in jpegs), None)
    if lost is not None:
        time_s = float((lost - index.pts[0]) * index.time_base)
        raise RejectedError(Reason.undecodable, f"the frame at {time_s:.3f} s does not come out of its decoder")
    if len(sizes) > 1:
        raise RejectedError(Reason.undecodable, f"its frames have several sizes: {sorted(sizes)}")
    ((width_px, height_px),) = sizes
    frames = Frames(settings.num, settings.short_side_px, settings.quality, width_px, height_px)
    return frames, tuple(jpegs[pts] for pts in wanted)


def _decode_all(
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    index: Index,
    wanted: Sequence[int],
    deadline_s: float,
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The wanted frames with their times, as far as they come out whole; key frames are sought where that is enough."""
    left = list(dict.fromkeys(wanted))

    def whole(stretch: Stretch) -> Iterator[tuple[int, av.VideoFrame]]:
        packets = _in_time(packets_of(stretch, index, container, stream), deadline_s)
        for pts, frame in decode(packets, stream, stretch.wanted):
            if not frame.is_corrupt:
                left.remove(pts)
                yield pts, frame

    stretches = stretches_of(index, left)
    try:
        for stretch in stretches:
            yield from whole(stretch)
    except av.error.FFmpegError:
        if [stretch.key for stretch in stretches] == index.keys[:1]:
            raise
    if left:  # what follows the key frame of an open group may need what comes before it
        yield from whole(Stretch(index.keys[0], list(left)))


def _in_time(packets: Iterable[Packet], deadline_s: float) -> Iterator[Packet]:
    for packet in packets:
        if time.monotonic() > deadline_s:
            raise RejectedError(Reason.ffmpeg_timeout, "its frames were not decoded in time")
        yield packet
