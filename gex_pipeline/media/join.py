"""⊕_v: clips, or cuts of longer videos, become one video. Local files in, one local MP4 out.

A stream copy wherever the packets can stand in one track as they are, else every piece is brought to
one form and those files are joined by the same copy. What is written is read again and checked. The
segments follow each other in the order of the pieces, each shown upright and in real time.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av.error

from gex_pipeline.errors import Reason, RejectedError
from gex_pipeline.media.encode import encode_pieces
from gex_pipeline.media.pieces import Joined, JoinedSegment, Piece, Probed, UnusablePiecesError
from gex_pipeline.media.probe import Probe, check_claimed_duration, probe_video
from gex_pipeline.media.remux import remux
from gex_pipeline.media.settings import VideoSettings
from gex_pipeline.media.sound import SoundSpan
from gex_pipeline.media.verify import BadJoinError, check_joined

__all__ = ["Joined", "JoinedSegment", "Piece", "Probed", "UnusablePiecesError", "join_pieces", "probe_pieces"]

_COPIED_CODECS = frozenset(["h264"])  # other codecs are brought to the common form
_RATE_TOLERANCE = 0.01  # clips of one source differ by rounding only
_DISK_ERRORS = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM])


def probe_pieces(pieces: Sequence[Piece], settings: VideoSettings) -> list[Probed | RejectedError]:
    """Probe the files of all pieces, each file once; a piece that cannot be used gives its error instead."""
    probes: dict[Path, Probe | RejectedError] = {}
    results: list[Probed | RejectedError] = []
    for piece in pieces:
        if piece.path not in probes:
            probes[piece.path] = _probe_or_error(piece.path, settings)
        probe = probes[piece.path]
        if isinstance(probe, RejectedError):
            results.append(RejectedError(probe.reason, probe.detail))
            continue
        try:
            _check_claim(piece, probe, settings)
            results.append(Probed(piece, probe))
        except RejectedError as rejected:
            results.append(rejected)
    return results


def _probe_or_error(path: Path, settings: VideoSettings) -> Probe | RejectedError:
    try:
        return probe_video(path, settings)
    except RejectedError as rejected:
        return rejected


def _check_claim(piece: Piece, probe: Probe, settings: VideoSettings) -> None:
    if piece.cut_s is None:
        if piece.claimed_duration_s is not None:
            check_claimed_duration(probe, piece.claimed_duration_s, settings)
        return
    start_s, end_s = piece.cut_s
    file_end_s = probe.start_s + probe.duration_s
    if not 0 <= start_s < end_s:
        raise RejectedError(Reason.duration_mismatch, f"a cut from {start_s:.3f} s to {end_s:.3f} s is not a span")
    if end_s > file_end_s + settings.duration_tolerance_s or start_s >= file_end_s:
        raise RejectedError(
            Reason.duration_mismatch,
            f"the cut from {start_s:.3f} s to {end_s:.3f} s does not lie in the file, which ends at {file_end_s:.3f} s "
            f"(tolerance {settings.duration_tolerance_s:g} s)",
        )


def join_pieces(pieces: Sequence[Probed], output: Path, settings: VideoSettings) -> Joined:
    """Join the pieces in their order and write ``output``; nothing is left there when it fails.

    Raises:
        UnusablePiecesError: ffmpeg_failed or ffmpeg_timeout, of some pieces; without them it may succeed.
        RejectedError: ffmpeg_failed, ffmpeg_timeout or media_too_large.
        OSError: the disk is full or cannot be written.
    """
    if not pieces:
        raise ValueError("no pieces to join; at least one is needed")
    try:
        if can_copy(pieces, settings):
            try:
                return _write([probed.probe for probed in pieces], pieces, output, settings, "copy")
            except BadJoinError:
                output.unlink(missing_ok=True)  # what a copy cannot do, an encoder can
        with tempfile.TemporaryDirectory(prefix=".pieces-", dir=output.parent) as folder:
            probes = encode_pieces(pieces, Path(folder), settings)
            return _write(probes, pieces, output, settings, "encode")
    except BadJoinError as bad:
        output.unlink(missing_ok=True)
        raise RejectedError(Reason.ffmpeg_failed, f"the joined video fails its check: {bad}") from bad
    except BaseException:
        output.unlink(missing_ok=True)
        raise


def can_copy(pieces: Sequence[Probed], settings: VideoSettings) -> bool:
    """Whether the packets of all pieces can stand in one track as they are."""
    first = pieces[0].probe
    return not settings.force_encode and all(
        probed.piece.cut_s is None
        and probed.probe.codec in _COPIED_CODECS
        and probed.probe.copy_signature == first.copy_signature
        and probed.probe.is_plain
        and probed.probe.starts_clean
        and not probed.probe.is_variable_rate
        and abs(probed.probe.fps - first.fps) <= _RATE_TOLERANCE * first.fps
        for probed in pieces
    )


def _write(
    probes: Sequence[Probe],
    pieces: Sequence[Probed],
    output: Path,
    settings: VideoSettings,
    way: Literal["copy", "encode"],
) -> Joined:
    """Join files of one copy signature, which may be the pieces' own or encoded ones, and check the result."""
    _check_bytes(probes, settings)
    if any(probe.copy_signature != probes[0].copy_signature for probe in probes):
        raise BadJoinError("the pieces have different parameters after encoding")
    sound = _sound(probes, pieces, settings)
    try:
        remux(probes, output, sound)
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, av.error.FFmpegError) and error.errno in _DISK_ERRORS:
            raise OSError(error.errno, f"{output} cannot be written: {error.strerror}") from error
        raise BadJoinError(f"the packets cannot be joined: {error}") from error
    check_joined(output, probes, has_sound=bool(sound))
    duration_s = sum((probe.exact_duration_s for probe in probes), Fraction(0))
    return Joined(
        path=output,
        way=way,
        duration_s=float(duration_s),
        width_px=probes[0].width_px,
        height_px=probes[0].height_px,
        fps=float(sum(probe.num_frames for probe in probes) / duration_s),
        codec=probes[0].codec,
        segments=_segments(probes),
    )


def _check_bytes(probes: Sequence[Probe], settings: VideoSettings) -> None:
    num_bytes = sum(probe.num_bytes for probe in probes)
    if num_bytes > settings.max_sample_bytes:
        raise RejectedError(
            Reason.media_too_large,
            f"its {len(probes)} pieces have {num_bytes} bytes, more than max_sample_bytes = "
            f"{settings.max_sample_bytes}; max_clips or max_duration_s make shorter samples",
        )


def _sound(probes: Sequence[Probe], pieces: Sequence[Probed], settings: VideoSettings) -> list[SoundSpan]:
    """The sound of each segment, or nothing when it is dropped or no piece has any."""
    if settings.audio == "drop" or not any(probed.probe.has_audio for probed in pieces):
        return []
    return [
        SoundSpan(
            probed.probe.path,
            probed.piece.cut_s[0] if probed.piece.cut_s is not None else probed.probe.start_s,
            probe.exact_duration_s,
        )
        for probe, probed in zip(probes, pieces, strict=True)
    ]


def _segments(probes: Sequence[Probe]) -> tuple[JoinedSegment, ...]:
    segments: list[JoinedSegment] = []
    offset_s = Fraction(0)
    for probe in probes:
        duration_s = probe.exact_duration_s
        segments.append(JoinedSegment(float(offset_s), float(duration_s)))
        offset_s += duration_s
    return tuple(segments)
