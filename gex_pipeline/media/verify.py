"""Whether a joined video is what was to be joined: file and expectation in, nothing or an error out.

Reads the output again as a stranger would. Checks counts, times and key frames at the joints, and
decodes the first frame; that each segment shows the right pictures is for tests to check.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av.container
import av.error
import av.video.stream

from gex_pipeline.media.probe import Probe
from gex_pipeline.media.source import open_video

_SOUND_TOLERANCE_S = 0.1


class BadJoinError(Exception):
    """A joined video does not hold what it should; the message says what was found and what was expected."""


def check_joined(output: Path, probes: Sequence[Probe], *, has_sound: bool) -> None:
    """Compare the written file with the files that its packets came from.

    Raises:
        BadJoinError: they differ.
    """
    try:
        with open_video(output, header_only=True) as (container, stream):
            _check_packets(container, stream, probes)
            if has_sound:
                _check_sound(container, sum((probe.exact_duration_s for probe in probes), Fraction(0)))
            container.seek(0)
            first = next(container.decode(stream), None)
    except av.error.FFmpegError as error:
        raise BadJoinError(f"the joined file cannot be read: {error.strerror}") from error
    if first is None or first.is_corrupt:
        raise BadJoinError("its first frame cannot be decoded")


def _check_packets(
    container: av.container.InputContainer, stream: av.video.stream.VideoStream, probes: Sequence[Probe]
) -> None:
    time_base = Fraction(stream.time_base or 1)
    joints = _joints(probes)
    frame_s = min(probe.exact_duration_s / probe.num_frames for probe in probes)
    num_packets = end_ticks = 0
    last_dts: int | None = None
    for packet in container.demux(stream):
        pts, dts = packet.pts, packet.dts
        if pts is None or dts is None:
            continue
        if last_dts is not None and dts <= last_dts:
            raise BadJoinError(f"decoding time {dts} follows {last_dts} at packet {num_packets}")
        expected_s = joints.get(num_packets)
        if expected_s is not None:
            if not packet.is_keyframe:
                raise BadJoinError(f"no key frame at the joint at {float(expected_s):.3f} s")
            if abs(pts * time_base - expected_s) > frame_s / 2:
                raise BadJoinError(f"a segment begins at {float(pts * time_base):.3f} s, not {float(expected_s):.3f} s")
        last_dts = dts
        num_packets += 1
        end_ticks = max(end_ticks, pts + (packet.duration or 0))
    num_expected = sum(probe.num_frames for probe in probes)
    if num_packets != num_expected:
        raise BadJoinError(f"it has {num_packets} frames, its parts have {num_expected}")
    expected_s = sum((probe.exact_duration_s for probe in probes), Fraction(0))
    if abs(end_ticks * time_base - expected_s) > frame_s * len(probes):
        raise BadJoinError(f"it lasts {float(end_ticks * time_base):.3f} s, its parts {float(expected_s):.3f} s")


def _joints(probes: Sequence[Probe]) -> dict[int, Fraction]:
    """Number of each segment's first packet and the time it is shown."""
    joints: dict[int, Fraction] = {}
    num_frames, offset_s = 0, Fraction(0)
    for probe in probes:
        joints[num_frames] = offset_s
        num_frames += probe.num_frames
        offset_s += probe.exact_duration_s
    return joints


def _check_sound(container: av.container.InputContainer, expected_s: Fraction) -> None:
    if not container.streams.audio:
        raise BadJoinError("it has no sound track")
    stream = container.streams.audio[0]
    sound_s = (stream.duration or 0) * Fraction(stream.time_base or 1)
    if abs(sound_s - expected_s) > _SOUND_TOLERANCE_S:
        raise BadJoinError(f"its sound lasts {float(sound_s):.3f} s, its pictures {float(expected_s):.3f} s")
