"""The times of a track's packets: an open container in, one small `PacketTimes` out.

One pass, three integers a frame kept while it lasts, no pictures decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import av
import av.container
import av.error
import av.video.stream

from gex_pipeline.errors import Reason, RejectedError

_RATE_TOLERANCE = 0.05  # of the mean frame duration; a dropped frame is far above, rounding far below


@dataclass(frozen=True)
class PacketTimes:
    """Times in ticks of the track's time base; discarded packets (before or behind an edit) do not count."""

    num_frames: int
    start_ticks: int
    duration_ticks: int
    last_frame_ticks: int
    delay_ticks: int
    is_variable_rate: bool
    starts_clean: bool


@dataclass
class _Seen:
    pts: list[int]
    dts: list[int]
    last_end_ticks: int = -(1 << 62)
    first_is_key: bool = False
    is_odd: bool = False  # something that a plain copy of the packets would not reproduce
    num_damaged: int = 0


def read_packet_times(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> PacketTimes:
    """Read every packet of the track.

    Raises:
        RejectedError: media_truncated or no_frames.
    """
    seen = _Seen([], [])
    failure = ""
    try:
        _read(container, stream, seen)
    except av.error.FFmpegError as error:
        failure = f"reading stopped ({error.strerror}) "
    promised = f"the header says {stream.frames}" if stream.frames else "the header does not say how many"
    if failure or seen.num_damaged:
        failure = failure or f"{seen.num_damaged} packets are damaged "
        raise RejectedError(Reason.media_truncated, f"{failure}after {len(seen.pts)} packets; {promised}")
    if not seen.pts:
        reason = Reason.media_truncated if stream.frames else Reason.no_frames
        raise RejectedError(reason, f"no packet can be read from its video track; {promised}")
    return _summary(seen, _nominal_ticks(stream))


def _read(container: av.container.InputContainer, stream: av.video.stream.VideoStream, seen: _Seen) -> None:
    pts_list, dts_list = seen.pts, seen.dts  # this loop is most of a probe's time
    is_first = True
    for packet in container.demux(stream):
        pts, dts, duration = packet.pts, packet.dts, packet.duration or 0
        if pts is None or dts is None:
            if packet.size == 0:
                continue  # the flush packet at the end
            seen.is_odd = True
            pts = dts = pts if pts is not None else dts
            if pts is None or dts is None:
                raise RejectedError(Reason.undecodable, f"packet {len(pts_list)} of its video track has no time")
        seen.num_damaged += packet.is_corrupt
        if packet.is_keyframe:
            seen.first_is_key |= is_first
            seen.is_odd |= packet.has_sidedata("new_extradata")
        is_first = False
        if packet.is_discard:
            seen.is_odd = True
            continue
        pts_list.append(pts)
        dts_list.append(dts)
        seen.last_end_ticks = max(seen.last_end_ticks, pts + duration)


def _nominal_ticks(stream: av.video.stream.VideoStream) -> int:
    """How long one frame is shown where no packet tells: by the header's rate, else a fraction of a second."""
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return max(1, round(1 / (rate * (stream.time_base or Fraction(1, av.time_base)))))


def _summary(seen: _Seen, nominal_ticks: int) -> PacketTimes:
    first_pts, first_dts = seen.pts[0], seen.dts[0]
    grows = all(later > earlier for earlier, later in pairwise(seen.dts))
    pts = sorted(seen.pts)
    steps = [later - earlier for earlier, later in pairwise(pts)]
    variable = bool(steps) and max(steps) - min(steps) > max(2, _RATE_TOLERANCE * (pts[-1] - pts[0]) / len(steps))
    end_ticks = seen.last_end_ticks
    if variable or end_ticks <= pts[-1]:
        # The container does not say how long the last frame is shown. Where rate and order vary, it seems to:
        # but packets in order of decoding last until the next one is decoded, not until it is shown.
        end_ticks = pts[-1] + (max(1, sorted(steps)[len(steps) // 2]) if steps else nominal_ticks)
    return PacketTimes(
        num_frames=len(pts),
        start_ticks=pts[0],
        duration_ticks=end_ticks - pts[0],
        last_frame_ticks=end_ticks - pts[-1],
        delay_ticks=first_pts - first_dts,
        is_variable_rate=variable,
        # pictures shown before the first key frame lean on a group of pictures that is not there
        starts_clean=seen.first_is_key and not seen.is_odd and grows and pts[0] == first_pts and 0 not in steps,
    )
