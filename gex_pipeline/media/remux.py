"""⊕_v without touching pictures: the packets of several tracks in one track, by new times.

Probes of files with one copy signature in, one MP4 out. Each segment begins where the presentation of
the one before it ends. Packets are streamed, so memory does not grow with length. The bytes depend on
the packets alone: no names, dates or program versions are written. Does not check what it wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import av.container
import av.error
import av.video.stream

from gex_pipeline.media.probe import Probe
from gex_pipeline.media.sound import SoundSpan, SoundTrack
from gex_pipeline.media.source import input_url, open_video

_MP4 = {"fflags": "+bitexact", "movflags": "+faststart"}


def remux(probes: Sequence[Probe], output: Path, sound: Sequence[SoundSpan]) -> None:
    """Write the packets of all files to one, with a sound track when spans for it are given.

    Raises:
        av.error.FFmpegError, ValueError: libav cannot read or write it.
    """
    # Decoding may begin earlier before presentation in one clip than in another (a clip of one frame needs
    # no look-ahead). With one delay for all, decoding times grow across the joints.
    delay_ticks = max(probe.delay_ticks for probe in probes)
    with av.open(input_url(output), "w", format="mp4", container_options=_MP4) as container:
        target: av.video.stream.VideoStream | None = None
        track: SoundTrack | None = None
        offset_ticks = 0
        for probe in probes:
            with open_video(probe.path, header_only=True) as (source, stream):
                if target is None:
                    target = container.add_stream_from_template(stream, opaque=True)
                    track = SoundTrack(container, sound) if sound else None
                shift_ticks = offset_ticks - probe.start_ticks
                dts_shift_ticks = shift_ticks - (delay_ticks - probe.delay_ticks)
                for packet in source.demux(stream):
                    if packet.pts is None or packet.dts is None:
                        continue  # the flush packet; a probe of anything else had said that it is not clean
                    packet.pts += shift_ticks
                    packet.dts += dts_shift_ticks
                    packet.stream = target
                    if track is not None:
                        track.advance(float(packet.dts * probe.time_base))
                    container.mux_one(packet)
            offset_ticks += probe.duration_ticks
        if track is not None:
            track.finish()
