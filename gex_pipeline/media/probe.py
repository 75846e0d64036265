"""What a video file really holds: path in, a `Probe` out, or a reject with its reason.

Reads every packet of the video track, since headers promise what a damaged file does not keep. Times
are those of the packets, not of the header. Pictures are not decoded, unless the settings ask for it
or nothing else tells how they are turned.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.container
import av.error
import av.video.stream

from gex_pipeline.errors import Reason, RejectedError
from gex_pipeline.media.orientation import Orientation, orientation_of
from gex_pipeline.media.outline import Outline, check_index, read_outline
from gex_pipeline.media.packets import read_packet_times
from gex_pipeline.media.settings import VideoSettings
from gex_pipeline.media.source import DECODER_LIMITS, check_size, container_start_s, open_video

_H264_PIX_FMT = {(1, 8): "yuv420p", (2, 8): "yuv422p", (3, 8): "yuv444p", (1, 10): "yuv420p10le"}
_CHROMA_IN_RECORD = frozenset([100, 110, 122, 144, 244])  # profiles whose avcC record says the chroma format


@dataclass(frozen=True)
class Probe:
    """A video track as it is stored and as it is to be shown."""

    path: Path
    num_frames: int
    num_bytes: int  # of the video track
    duration_s: float  # of presentation, first to end of last frame
    width_px: int  # as shown: upright, square pixels
    height_px: int
    fps: float  # average
    codec: str
    time_base: Fraction
    has_audio: bool
    is_variable_rate: bool
    starts_clean: bool  # begins with a key frame and hides or repeats nothing
    copy_signature: str  # equal: packets of both can stand in one track
    is_plain: bool = True  # stored as it is shown: upright, square pixels, even size
    start_s: float = 0.0  # first frame after the start of the file's time
    start_ticks: int = 0  # presentation time of the first frame, in the time base
    duration_ticks: int = 0
    last_frame_ticks: int = 0  # how long the last frame is shown
    delay_ticks: int = 0  # how long before its presentation decoding begins

    @property
    def exact_duration_s(self) -> Fraction:
        """Duration of presentation without rounding."""
        return self.duration_ticks * self.time_base


def probe_video(path: Path, settings: VideoSettings) -> Probe:
    """Probe one local file.

    Raises:
        RejectedError: media_missing, media_empty, not_a_video, no_frames, media_truncated, undecodable, ffmpeg_timeout
            while decoding; media_too_large or duration_mismatch for a file beyond what the settings allow.
    """
    outline = _outline(path)
    check_index(outline, settings.max_frames)
    try:
        probe = _probe_opened(path, outline, settings)
    except RejectedError as rejected:
        if outline.missing and rejected.reason not in (Reason.duration_mismatch, Reason.media_too_large):
            raise RejectedError(Reason.media_truncated, f"{outline.missing}; {rejected.detail}") from rejected
        raise
    if outline.missing:
        raise RejectedError(Reason.media_truncated, f"{outline.missing}; {probe.num_frames} frames can be read")
    _check_length("is", probe.duration_s, settings)  # headers need not say, and one wild time makes hours
    if settings.check == "decode":
        _decode_all(probe, settings)
    return probe


def check_claimed_duration(probe: Probe, claimed_s: float, settings: VideoSettings) -> None:
    """Compare what metadata claims with what the file holds, in seconds.

    Raises:
        RejectedError: duration_mismatch when the file holds less, or much more, beyond the tolerances.
    """
    if probe.duration_s > claimed_s + settings.max_excess_s:
        raise RejectedError(
            Reason.duration_mismatch,
            f"metadata claims {claimed_s:.3f} s, the file holds {probe.duration_s:.3f} s "
            f"(max_excess_s = {settings.max_excess_s:g})",
        )
    if probe.duration_s < claimed_s - settings.duration_tolerance_s:
        raise RejectedError(
            Reason.duration_mismatch,
            f"metadata claims {claimed_s:.3f} s, the file holds {probe.duration_s:.3f} s "
            f"(tolerance {settings.duration_tolerance_s:g} s)",
        )


def _outline(path: Path) -> Outline:
    try:
        if not path.is_file():
            what = "is not a file" if path.exists() else "does not exist"
            raise RejectedError(Reason.media_missing, f"{str(path)!r} {what}")
        if path.stat().st_size == 0:
            raise RejectedError(Reason.media_empty, f"{path.name} has 0 bytes")
        return read_outline(path)
    except FileNotFoundError as error:
        raise RejectedError(Reason.media_missing, f"{str(path)!r} went away while it was read") from error


def _probe_opened(path: Path, outline: Outline, settings: VideoSettings) -> Probe:
    with open_video(path, header_only=outline.kind == "iso") as (container, stream):
        _check_length("says it is", (container.duration or 0) / av.time_base, settings)
        pix_fmt = stream.codec_context.pix_fmt or _pix_fmt_of_record(stream)
        if pix_fmt and stream.width > 0:
            return _probe_stream(path, (container, stream), (pix_fmt, outline), settings)
    with open_video(path) as (container, stream):  # the header alone does not tell
        if stream.width <= 0:
            raise _without_size(path)
        found = (stream.codec_context.pix_fmt or "unknown", outline)
        return _probe_stream(path, (container, stream), found, settings)


def _without_size(path: Path) -> RejectedError:
    """Why libav says no size: it hides one that is beyond its limit, unless it is opened without decoders."""
    with open_video(path, header_only=True) as (_, stream):
        check_size((stream.width, stream.height))
        if stream.width <= 0:
            return RejectedError(Reason.not_a_video, "its video track has no picture size")
        stated = f"{stream.width} x {stream.height} pixels"
        return RejectedError(Reason.undecodable, f"its header says {stated}, but its pictures cannot be decoded")


def _check_length(verb: str, duration_s: float, settings: VideoSettings) -> None:
    if duration_s > settings.max_duration_s:
        raise RejectedError(
            Reason.duration_mismatch,
            f"the file {verb} {duration_s:.0f} s long, more than max_duration_s = {settings.max_duration_s:g}",
        )


def _probe_stream(
    path: Path,
    opened: tuple[av.container.InputContainer, av.video.stream.VideoStream],
    found: tuple[str, Outline],
    settings: VideoSettings,
) -> Probe:
    (container, stream), (pix_fmt, outline) = opened, found
    check_size((stream.width, stream.height))
    start_s = container_start_s(container)
    times = read_packet_times(container, stream, settings.max_frames)
    orientation = _first_orientation(path) if outline.may_be_turned else Orientation()
    time_base = Fraction(stream.time_base or Fraction(1, av.time_base))
    duration_s = float(times.duration_ticks * time_base)
    sar = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
    width_px, height_px = orientation.size_px(max(1, round(stream.width * sar)), stream.height)
    check_size((width_px, height_px), "are shown with")
    return Probe(
        path=path,
        num_frames=times.num_frames,
        num_bytes=times.num_bytes,
        duration_s=duration_s,
        width_px=width_px,
        height_px=height_px,
        fps=times.num_frames / duration_s if duration_s > 0 else 0.0,
        codec=stream.codec_context.name,
        time_base=time_base,
        has_audio=any(track.codec_context is not None for track in container.streams.audio),
        is_variable_rate=times.is_variable_rate,
        starts_clean=times.starts_clean and outline.kind in ("iso", "matroska"),
        copy_signature=_copy_signature(stream, pix_fmt, (sar, orientation)),
        is_plain=orientation.is_upright and sar == 1 and width_px % 2 == 0 and height_px % 2 == 0,
        start_s=float(times.start_ticks * time_base) - start_s,
        start_ticks=times.start_ticks,
        duration_ticks=times.duration_ticks,
        last_frame_ticks=times.last_frame_ticks,
        delay_ticks=times.delay_ticks,
    )


def _copy_signature(stream: av.video.stream.VideoStream, pix_fmt: str, shape: tuple[Fraction, Orientation]) -> str:
    context = stream.codec_context
    parts = (context.name, stream.profile, stream.width, stream.height, pix_fmt, stream.time_base, *shape)
    digest = hashlib.sha256(repr(parts).encode())
    digest.update(context.extradata or b"")
    return digest.hexdigest()[:32]


def _pix_fmt_of_record(stream: av.video.stream.VideoStream) -> str | None:
    """Pixel format out of an H.264 track's avcC record, none where it does not say."""
    record = stream.codec_context.extradata or b""
    if stream.codec_context.name != "h264" or len(record) < 7 or record[0] != 1:
        return None
    profile, position = record[1], 5
    if profile not in _CHROMA_IN_RECORD:
        return "yuv420p"
    for mask in (0x1F, 0xFF):  # sequence parameter sets, then picture parameter sets
        if position >= len(record):
            return None
        count, position = record[position] & mask, position + 1
        for _ in range(count):
            position += 2 + int.from_bytes(record[position : position + 2], "big")
    extension = record[position : position + 2]
    if len(extension) < 2:
        return None  # older writers leave it out
    return _H264_PIX_FMT.get((extension[0] & 3, 8 + (extension[1] & 7)))


def _first_orientation(path: Path) -> Orientation:
    try:
        with open_video(path) as (container, stream):
            for frame in container.decode(stream):
                return orientation_of(frame)
    except av.error.FFmpegError as error:
        raise RejectedError(Reason.undecodable, f"its first frame cannot be decoded: {error.strerror}") from error
    raise RejectedError(Reason.no_frames, "no frame comes out of its decoder")


def _decode_all(probe: Probe, settings: VideoSettings) -> None:
    """Decode every frame and count.

    Raises:
        RejectedError: undecodable, or ffmpeg_timeout.
    """
    num_decoded = 0
    limit_s = settings.time_limit_s(probe.duration_s)
    deadline_s = time.monotonic() + limit_s
    with open_video(probe.path) as (container, stream):
        stream.codec_context.options = DECODER_LIMITS | {"err_detect": "explode"}  # else damage is painted over
        try:
            for frame in container.decode(stream):
                num_decoded += not frame.is_corrupt
                if time.monotonic() > deadline_s:
                    raise RejectedError(
                        Reason.ffmpeg_timeout,
                        f"{num_decoded} of {probe.num_frames} frames were decoded in {limit_s:g} s",
                    )
        except av.error.FFmpegError as error:
            raise RejectedError(
                Reason.undecodable,
                f"decoding stopped after {num_decoded} of {probe.num_frames} frames: {error.strerror}",
            ) from error
    if num_decoded < probe.num_frames and probe.codec != "vp8":  # VP8 has packets that show nothing
        raise RejectedError(Reason.undecodable, f"only {num_decoded} of {probe.num_frames} frames can be decoded")
