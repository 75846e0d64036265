"""The times of a track's packets: an open container in, one small `PacketTimes` out.

One pass, two integers a frame kept while it lasts, no pictures decoded. Stops where a small file turns out
to stand for an enormous video.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from fractions import Fraction

import av
import av.container
import av.error
import av.packet
import av.video.stream
import numpy as np

from gex_pipeline.errors import Reason, RejectedError
from gex_pipeline.media.h264 import UnitReader

_RATE_TOLERANCE = 0.05  # of the mean frame duration; a dropped frame is far above, rounding far below
_REPEATED_BYTES = 1_000_000  # packets may hold this much more than twice the file (some containers pack them)


@dataclass(frozen=True)
class PacketTimes:
    """Times in ticks of the track's time base; discarded packets (before or behind an edit) do not count."""

    num_frames: int
    num_bytes: int
    start_ticks: int
    duration_ticks: int
    last_frame_ticks: int
    delay_ticks: int
    is_variable_rate: bool
    starts_clean: bool


@dataclass
class _Seen:
    units: UnitReader | None
    pts: array[int] = field(default_factory=lambda: array("q"))
    dts: array[int] = field(default_factory=lambda: array("q"))
    num_bytes: int = 0
    last_end_ticks: int = -(1 << 62)
    first_is_key: bool = False
    is_odd: bool = False  # something that a plain copy of the packets would not reproduce
    num_damaged: int = 0


def read_packet_times(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, max_frames: int
) -> PacketTimes:
    """Read every packet of the track.

    Raises:
        RejectedError: media_truncated, no_frames, undecodable or media_too_large.
    """
    seen = _Seen(UnitReader.of(stream.codec_context.name, stream.codec_context.extradata))
    failure = ""
    try:
        _read(container, stream, seen, max_frames)
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


def _read(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, seen: _Seen, max_frames: int
) -> None:
    pts_list, dts_list = seen.pts, seen.dts  # this loop is most of a probe's time
    max_bytes = 2 * container.size + _REPEATED_BYTES
    for packet in container.demux(stream):
        pts, dts, duration = packet.pts, packet.dts, packet.duration or 0
        if pts is None or dts is None:
            if packet.size == 0:
                continue  # the flush packet at the end
            seen.is_odd = True
            pts = dts = pts if pts is not None else dts
            if pts is None or dts is None:
                raise RejectedError(Reason.undecodable, f"packet {len(pts_list)} of its video track has no time")
        _look_into(packet, seen)
        if seen.num_bytes > max_bytes or len(pts_list) >= max_frames:
            raise RejectedError(
                Reason.media_too_large,
                f"the file has {container.size} bytes, and its video track more than {len(pts_list)} frames of "
                f"{seen.num_bytes} bytes (max_frames = {max_frames})",
            )
        if packet.is_discard:
            seen.is_odd = True
            continue
        pts_list.append(pts)
        dts_list.append(dts)
        seen.last_end_ticks = max(seen.last_end_ticks, pts + duration)


def _look_into(packet: av.packet.Packet[av.video.stream.VideoStream], seen: _Seen) -> None:
    """Note what a packet is like; the cost is a microsecond or two."""
    is_first = seen.num_bytes == 0
    seen.num_bytes += packet.size
    seen.num_damaged += packet.is_corrupt
    content = memoryview(packet) if seen.units is not None and packet.size else None
    if packet.is_keyframe:
        seen.first_is_key |= is_first
        seen.is_odd |= packet.has_sidedata("new_extradata")
        if seen.units is not None and content is not None:
            seen.is_odd |= seen.units.changes_parameters(content)
            seen.is_odd |= is_first and not seen.units.begins_anew(content)
    if seen.units is not None and content is not None and not packet.is_corrupt and seen.units.is_damaged(content):
        raise RejectedError(Reason.undecodable, f"packet {len(seen.pts)} of its video track is damaged")


def _nominal_ticks(stream: av.video.stream.VideoStream) -> int:
    """How long one frame is shown where no packet tells: by the header's rate, else a fraction of a second."""
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return max(1, round(1 / (rate * (stream.time_base or Fraction(1, av.time_base)))))


def _summary(seen: _Seen, nominal_ticks: int) -> PacketTimes:
    first_pts, first_dts = seen.pts[0], seen.dts[0]
    grows = bool(np.all(np.diff(np.frombuffer(seen.dts, np.int64)) > 0))
    pts = np.sort(np.frombuffer(seen.pts, np.int64))
    start_ticks, last_ticks = int(pts[0]), int(pts[-1])
    steps = np.diff(pts)
    variable = len(steps) > 0 and int(np.ptp(steps)) > max(2, _RATE_TOLERANCE * (last_ticks - start_ticks) / len(steps))
    end_ticks = seen.last_end_ticks
    if variable or end_ticks <= last_ticks:
        # The container does not say how long the last frame is shown. Where rate and order vary, it seems to:
        # but packets in order of decoding last until the next one is decoded, not until it is shown.
        end_ticks = last_ticks + (max(1, int(np.sort(steps)[len(steps) // 2])) if len(steps) else nominal_ticks)
    return PacketTimes(
        num_frames=len(pts),
        num_bytes=seen.num_bytes,
        start_ticks=start_ticks,
        duration_ticks=end_ticks - start_ticks,
        last_frame_ticks=end_ticks - last_ticks,
        delay_ticks=first_pts - first_dts,
        is_variable_rate=variable,
        # pictures shown before the first key frame lean on a group of pictures that is not there
        starts_clean=(
            seen.first_is_key and not seen.is_odd and grows and start_ticks == first_pts and bool(np.all(steps))
        ),
    )
