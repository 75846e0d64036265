"""Wanted frames of an open video track: times of all its packets, then decoded frames, then pictures as they are shown.

What is stored in shards, looked at and trained on comes out of here, so all see the same pictures. A picture belongs to
the times from its own presentation to that of the next one. Key frames are sought where that saves decoding, and what
nothing needs is left out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, TypeAlias

import av
import av.container
import av.packet
import av.video.reformatter
import av.video.stream
import numpy as np
from numpy.typing import NDArray

from gex_pipeline.errors import Reason, RejectedError
from gex_pipeline.media.orientation import orientation_of
from gex_pipeline.media.source import check_size

Packet: TypeAlias = "av.packet.Packet[av.video.stream.VideoStream]"

SEEK_FRAMES = 8  # decoding this many frames costs about as much as a seek
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


class Stretch(NamedTuple):
    """Frames that are decoded in one go: the key frame (pts, dts) before the first of them, and their times."""

    key: tuple[int, int]
    wanted: list[int]


def read_index(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> Index:
    """Read all packets of a track.

    Raises:
        RejectedError: no_frames.
    """
    pts_list: list[int] = []
    keys: list[tuple[int, int]] = []
    end_ticks = 0
    for packet in container.demux(stream):
        pts = time_of(packet)
        if pts is None:
            continue  # the flush packet at the end
        if packet.is_keyframe or not keys:
            keys.append((pts, pts if packet.dts is None else packet.dts))
        if not packet.is_discard:
            pts_list.append(pts)
            end_ticks = max(end_ticks, pts + (packet.duration or 0))
    if not pts_list:
        raise RejectedError(Reason.no_frames, "no packet can be read from its video track")
    pts_list.sort()
    keys.sort()
    if end_ticks <= pts_list[-1]:  # some containers do not say how long the last frame is shown: as the others are
        end_ticks = pts_list[-1] + max((pts_list[-1] - pts_list[0]) // max(len(pts_list) - 1, 1), 1)
    return Index(pts_list, end_ticks, keys, Fraction(stream.time_base or Fraction(1, av.time_base)))


def stretches_of(index: Index, wanted: Sequence[int]) -> list[Stretch]:
    """Some times, in order, in groups between which it is worth to seek."""
    stretches: list[Stretch] = []
    for pts in dict.fromkeys(wanted):
        key = index.key_before(pts)
        if stretches and index.num_between(stretches[-1].wanted[-1], key[0]) <= SEEK_FRAMES:
            stretches[-1].wanted.append(pts)
        else:
            stretches.append(Stretch(key, [pts]))
    return stretches


def packets_of(
    stretch: Stretch, index: Index, container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> Iterator[Packet]:
    """The packets from a stretch's key frame on; containers seek by different times, and some of them coarsely."""
    key_pts, key_dts = stretch.key
    begin_pts = min(key_pts, stretch.wanted[0])
    for ticks in (key_pts, key_dts, index.keys[0][1]):
        container.seek(ticks, stream=stream)
        packets = container.demux(stream)
        for packet in packets:
            pts = time_of(packet)
            if pts == key_pts:
                yield packet
                # what is shown before the key frame may need what comes before it, and is not needed
                yield from (later for later in packets if (shown := time_of(later)) is None or shown >= begin_pts)
                return
            if pts is None or (packet.is_keyframe and pts > key_pts):
                break  # behind it


def decode(
    packets: Iterable[Packet], stream: av.video.stream.VideoStream, wanted: Collection[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The wanted frames with their times, as far as they come out; takes no more packets than they need."""
    awaited, missing = set(wanted), set(wanted)
    for packet in packets:
        pts = time_of(packet)
        skip_unless(pts in awaited, stream)
        yield from _among(missing, packet.decode())
        awaited.discard(pts)
        if not awaited:  # all that these frames need comes before them: the rest of the stream may stay
            yield from _among(missing, stream.codec_context.decode(None) if missing else ())
            return


def _among(missing: set[int], frames: Iterable[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame]]:
    for frame in frames:
        pts = time_of(frame)
        if pts in missing:
            missing.discard(pts)
            yield pts, frame


def skip_unless(is_wanted: bool, stream: av.video.stream.VideoStream) -> None:
    """Before a packet is decoded: leave its frame out if it is not wanted, no other needs it and the decoder can."""
    if stream.codec_context.name in _SKIPPING_DECODERS:
        stream.codec_context.skip_frame = "DEFAULT" if is_wanted else "NONREF"


def time_of(timed: Packet | av.VideoFrame) -> int | None:
    """When a packet's frame, or a frame, is shown, in ticks; when it is decoded where that is all that is said."""
    return timed.pts if timed.pts is not None else timed.dts


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
    # a worker has one core
    scaled = reformatter.reformat(frame, width_px, height_px, "rgb24", interpolation="BICUBIC", threads=1)
    return orientation.upright(np.asarray(scaled.to_ndarray(), dtype=np.uint8))
