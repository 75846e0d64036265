"""Θ_v and pictures for models: a local file in, upright RGB pictures out.

A picture belongs to the times from its own presentation to that of the next one. Times count from the
first frame; those of cuts count from the start of the file's time, as the cuts of ⊕_v do. Only the
groups of pictures that hold a wanted frame are decoded. Pictures are shown with square pixels.
"""

from __future__ import annotations

import io
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
from gex_pipeline.media.orientation import orientation_of
from gex_pipeline.media.outline import check_index, read_outline
from gex_pipeline.media.settings import VideoSettings
from gex_pipeline.media.source import check_size, container_start_s, open_video

_ROUNDING_S = Fraction(1, 1_000_000)  # added to times in floats: a bit too little would show the frame before
_LIMIT_S = 600.0  # for the pictures of one file: the next key frame may be millions of frames away
SEEK_FRAMES = 8  # decoding this many frames costs about as much as a seek
_KEPT_FRAMES = 4  # decoded before a wanted one, whether needed or not: the last of them stands in where it is lost
# Decoders that leave out frames as they are told with each packet, and only those that nothing needs. That of AV1 is
# told when it opens and then never again, HEVC's higher layers need what it calls unneeded, and a packet of MPEG-4 may
# hold two frames.
_SKIPPING_DECODERS = frozenset({"h264", "vp9"})


@dataclass(frozen=True)
class Index:
    """Of a video track: presentation times of all frames in order, and (pts, dts) of the key frames, in ticks."""

    pts: list[int]
    end_ticks: int
    keys: list[tuple[int, int]]
    time_base: Fraction

    def frame_at(self, ticks: Fraction) -> int:
        """Presentation time of the frame that is shown at a time; the nearest one outside of the video."""
        return self.pts[max(bisect_right(self.pts, ticks) - 1, 0)]

    def key_before(self, pts: int) -> tuple[int, int]:
        """The last key frame that is shown no later."""
        return self.keys[max(bisect_right(self.keys, pts, key=lambda key: key[0]) - 1, 0)]

    def num_between(self, earlier_pts: int, later_pts: int) -> int:
        """How many frames are shown from one time to the other; negative when the order is reversed."""
        return bisect_right(self.pts, later_pts) - bisect_right(self.pts, earlier_pts)

    def middles(self, num: int) -> list[Fraction]:
        """The middles of `num` equal spans of the video, in ticks."""
        span_ticks = Fraction(self.end_ticks - self.pts[0], num)
        return [self.pts[0] + span_ticks * number + span_ticks / 2 for number in range(num)]


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


def picture_of(
    frame: av.VideoFrame,
    stream: av.video.stream.VideoStream,
    reformatter: av.video.reformatter.VideoReformatter,
    fit: Callable[[tuple[int, int]], tuple[int, int]] | None = None,
) -> NDArray[np.uint8]:
    """A decoded frame as it is shown: RGB, upright, square pixels. ``fit`` gives the size that a size is scaled to.

    Raises:
        RejectedError: media_too_large.
    """
    orientation = orientation_of(frame)
    # an ISO file that says it only in its pictures: known when one is decoded
    sar = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
    shown_px = orientation.size_px(max(1, round(frame.width * sar)), frame.height)
    shown_px = fit(shown_px) if fit else shown_px
    check_size(shown_px, "are shown with")
    width_px, height_px = orientation.size_px(*shown_px)
    scaled = reformatter.reformat(frame, width_px, height_px, "rgb24", interpolation="BICUBIC")
    return orientation.upright(np.asarray(scaled.to_ndarray(), dtype=np.uint8))


def skip_unless(is_wanted: bool, stream: av.video.stream.VideoStream) -> None:
    """Before a packet is decoded: leave its frame out if it is not wanted, no other needs it and the decoder can."""
    if stream.codec_context.name in _SKIPPING_DECODERS:
        stream.codec_context.skip_frame = "DEFAULT" if is_wanted else "NONREF"


def _with_height(height_px: int, shown_px: tuple[int, int]) -> tuple[int, int]:
    return max(1, round(shown_px[0] * height_px / shown_px[1])), height_px


def _time_of(frame: av.VideoFrame) -> int:
    return frame.pts if frame.pts is not None else frame.dts or 0


def read_index(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> Index:
    """Read all packets of a track.

    Raises:
        RejectedError: no_frames.
    """
    pts_list: list[int] = []
    keys: list[tuple[int, int]] = []
    end_ticks = 0
    for packet in container.demux(stream):
        dts = packet.dts
        pts = packet.pts if packet.pts is not None else dts
        if pts is None:
            continue  # the flush packet at the end
        dts = pts if dts is None else dts
        if packet.is_keyframe or not keys:
            keys.append((pts, dts))
        if not packet.is_discard:
            pts_list.append(pts)
            end_ticks = max(end_ticks, pts + (packet.duration or 0))
    if not pts_list:
        raise RejectedError(Reason.no_frames, "no packet can be read from its video track")
    pts_list.sort()
    keys.sort()
    time_base = Fraction(stream.time_base or Fraction(1, av.time_base))
    return Index(pts_list, max(end_ticks, pts_list[-1] + 1), keys, time_base)


def encode_jpeg(picture_HWC: NDArray[np.uint8], quality: int) -> bytes:
    """A picture as a JPEG file. Fixed settings: the same picture gives the same bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture_HWC, "RGB").save(
        buffer, "JPEG", quality=quality, subsampling="4:2:0", optimize=False, progressive=False
    )
    return buffer.getvalue()
