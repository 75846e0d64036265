"""Θ_v and pictures for models: a local file in, upright RGB pictures out.

Times count from the first frame; those of cuts count from the start of the file's time, as the cuts of
⊕_v do. A frame that does not decode is replaced by the one before it.
"""

from __future__ import annotations

import io
import time
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import av.container
import av.error
import av.video.reformatter
import av.video.stream
import numpy as np
from numpy.typing import NDArray

from gex_pipeline.errors import Reason, RejectedError
from gex_pipeline.media.decoding import SEEK_FRAMES, picture_of, read_index, skip_unless, time_of
from gex_pipeline.media.outline import check_index, read_outline
from gex_pipeline.media.settings import VideoSettings
from gex_pipeline.media.source import container_start_s, open_video

_ROUNDING_S = Fraction(1, 1_000_000)  # added to times in floats: a bit too little would show the frame before
_LIMIT_S = 600.0  # for the pictures of one file: the next key frame may be millions of frames away
_KEPT_FRAMES = 4  # decoded before a wanted one, whether needed or not: the last of them stands in where it is lost


def middle_frame_jpeg(
    path: Path, settings: VideoSettings, cut_s: tuple[float, float] | None = None
) -> tuple[bytes, int, int]:
    """Θ_v: the frame in the middle of a clip, or of a cut, as (JPEG, width in px, height in px).

    Paper: GEXIA appendix F.

    Raises:
        RejectedError: media_missing, not_a_video, no_frames, undecodable, or ffmpeg_timeout.
    """
    with _reading(path, settings.timeout_s) as reader:
        index = reader.index
        middle_ticks = Fraction(index.pts[0] + index.end_ticks, 2)
        if cut_s is not None:
            end_s = min(Fraction(cut_s[1]), index.end_ticks * index.time_base - reader.file_start_s)
            middle_ticks = ((Fraction(cut_s[0]) + end_s) / 2 + reader.file_start_s + _ROUNDING_S) / index.time_base
        picture_HWC = reader.picture(middle_ticks, None)
    return encode_jpeg(picture_HWC, settings.jpeg_quality), picture_HWC.shape[1], picture_HWC.shape[0]


def sample_frames(path: Path, num_frames: int, height_px: int | None = None) -> NDArray[np.uint8]:
    """Frames in the middle of ``num_frames`` equal spans of the video, as RGB of shape (num_frames, H, W, 3).

    With ``height_px`` the pictures are scaled to that height, the width in proportion.

    Raises:
        RejectedError: media_missing, not_a_video, no_frames or undecodable.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames is {num_frames}, at least 1 is needed")
    with _reading(path) as reader:
        return np.stack([reader.picture(ticks, height_px) for ticks in reader.index.middles(num_frames)])


def frame_at(path: Path, time_s: float, *, in_file_time: bool = False) -> NDArray[np.uint8]:
    """The frame shown ``time_s`` seconds after the first one, as RGB of shape (H, W, 3); behind the end, the last.

    With `in_file_time` the seconds count from the start of the file's time; before the first frame, that one is shown.

    Raises:
        RejectedError: media_missing, not_a_video, no_frames or undecodable.
    """
    if time_s < 0:
        raise ValueError(f"time_s is {time_s}, it counts from the start and cannot be negative")
    with _reading(path) as reader:
        time_base = reader.index.time_base
        start_s = reader.file_start_s if in_file_time else reader.index.pts[0] * time_base
        return reader.picture((start_s + Fraction(time_s) + _ROUNDING_S) / time_base, None)


@contextmanager
def _reading(path: Path, limit_s: float = _LIMIT_S) -> Iterator[_Reader]:
    if not path.is_file():
        raise RejectedError(Reason.media_missing, f"{path.name} does not exist")
    outline = read_outline(path)
    check_index(outline)
    try:
        with open_video(path, header_only=outline.kind == "iso") as (container, stream):
            yield _Reader(container, stream, limit_s)
    except av.error.FFmpegError as error:
        raise RejectedError(Reason.undecodable, f"{path.name} cannot be decoded: {error.strerror}") from error


class _Reader:
    """Pictures of one open file; cheapest when they are asked for in the order of their times."""

    def __init__(
        self, container: av.container.InputContainer, stream: av.video.stream.VideoStream, limit_s: float
    ) -> None:
        self._limit_s = limit_s
        self._deadline_s = time.monotonic() + limit_s
        self.index = read_index(container, stream)
        self.file_start_s = Fraction(container_start_s(container))
        self._container = container
        self._stream = stream
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._frame: av.VideoFrame | None = None  # the last one that was decoded and shown
        self._ahead: av.VideoFrame | None = None  # decoded already, shown later
        self._kept_from_pts = self.index.pts[0]
        self._reformatter = av.video.reformatter.VideoReformatter()

    def picture(self, ticks: Fraction, height_px: int | None) -> NDArray[np.uint8]:
        """The picture shown at a time, upright, RGB."""
        frame = self._decoded(self.index.frame_at(ticks))
        fit = None if height_px is None else partial(_with_height, height_px)
        return picture_of(frame, self._stream, self._reformatter, fit)

    def _decoded(self, pts: int) -> av.VideoFrame:
        """The frame with this time, or the last one before it that can be decoded."""
        self._kept_from_pts = self.index.pts[max(bisect_right(self.index.pts, pts) - 1 - _KEPT_FRAMES, 0)]
        key_pts, key_dts = self.index.key_before(pts)
        shown = self._shown_pts()
        if shown is None or shown > pts or self.index.num_between(shown, key_pts) > SEEK_FRAMES:
            # MP4 and Matroska seek by the time a picture is shown, MPEG-TS by the time it is decoded, others coarsely.
            for ticks in (key_pts, key_dts, self.index.keys[0][1]):
                self._seek(ticks)
                shown = self._shown_pts()
                if shown is not None and shown <= pts:
                    break
        while self._frame is not None and _time_of(self._frame) < pts:
            if time.monotonic() > self._deadline_s:
                raise RejectedError(Reason.ffmpeg_timeout, f"its pictures were not decoded in {self._limit_s:g} s")
            self._ahead = self._ahead or next(self._frames, None)
            if self._ahead is None or _time_of(self._ahead) > pts:
                break
            self._frame, self._ahead = self._ahead, None
        if self._frame is None:
            raise RejectedError(Reason.undecodable, "no frame comes out of its decoder")
        return self._frame

    def _shown_pts(self) -> int | None:
        return None if self._frame is None else _time_of(self._frame)

    def _seek(self, ticks: int) -> None:
        self._container.seek(ticks, stream=self._stream)
        self._frames = self._decode_on()
        self._frame, self._ahead = next(self._frames, None), None

    def _decode_on(self) -> Iterator[av.VideoFrame]:
        """The frames from here on, but for those that nothing needs and that are shown well before the wanted one."""
        for packet in self._container.demux(self._stream):
            skip_unless(packet.pts is None or packet.pts >= self._kept_from_pts, self._stream)
            yield from packet.decode()


def _with_height(height_px: int, shown_px: tuple[int, int]) -> tuple[int, int]:
    return max(1, round(shown_px[0] * height_px / shown_px[1])), height_px


def _time_of(frame: av.VideoFrame) -> int:
    return time_of(frame) or 0


def encode_jpeg(picture_HWC: NDArray[np.uint8], quality: int) -> bytes:
    """A picture as a JPEG file. Fixed settings: the same picture gives the same bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture_HWC, "RGB").save(
        buffer, "JPEG", quality=quality, subsampling="4:2:0", optimize=False, progressive=False
    )
    return buffer.getvalue()
