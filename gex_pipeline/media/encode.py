"""⊕_v where pictures must change: each piece is brought to the common form in a file of its own.

Probed pieces in, one file a piece out, all with the same H.264 parameters, so that they can be joined
like clips that had them from the start. One ffmpeg at a time and one core each: memory and open files
do not grow with the number of pieces, and the bytes do not depend on the number of cores.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from gex_pipeline.errors import Reason, RejectedError
from gex_pipeline.media.ffmpeg import run_ffmpeg
from gex_pipeline.media.hdr import sdr_filters
from gex_pipeline.media.pieces import Probed, UnusablePiecesError
from gex_pipeline.media.probe import Probe, probe_video
from gex_pipeline.media.settings import VideoSettings
from gex_pipeline.media.source import DECODER_LIMITS, SAFE_INPUT, input_url

_MAX_FPS = 60
_MIN_FPS = 1
_KEY_FRAME_EVERY_S = 2  # readers of a few frames seek; the cost in bytes is small
_OUR_OWN = VideoSettings(max_duration_s=1e9, max_frames=10**9)  # limits are for what others wrote
_COMMON_RATES = tuple(
    Fraction(rate) for rate in ("24000/1001", "24", "25", "30000/1001", "30", "50", "60000/1001", "60")
)


@dataclass(frozen=True)
class CommonForm:
    """What all pieces of one sample are brought to."""

    width_px: int
    height_px: int
    rate: Fraction  # frames a second


def common_form(first: Probe, settings: VideoSettings) -> CommonForm:
    """The form that the settings ask for; what they leave open is the first piece's."""
    height_px = settings.height_px or first.height_px
    width_px = first.width_px * height_px / first.height_px
    rate = Fraction(settings.fps or min(max(first.fps, _MIN_FPS), _MAX_FPS))
    nearest = min(_COMMON_RATES, key=lambda common: abs(common - rate))
    rate = nearest if abs(nearest - rate) < nearest / 2000 else rate.limit_denominator(1001)
    return CommonForm(_even(width_px), _even(height_px), rate)


def encode_pieces(pieces: Sequence[Probed], folder: Path, settings: VideoSettings) -> list[Probe]:
    """Write each piece in the common form (pictures only) and return the probes of these files, in order.

    The time limit is the sample's. One piece gets half of it, so that the others are not lost with one that hangs.

    Raises:
        UnusablePiecesError: ffmpeg_timeout or ffmpeg_failed; all pieces were tried, so that the others will do.
        RejectedError: ffmpeg_timeout or media_too_large, of the sample as a whole.
    """
    form = common_form(pieces[0].probe, settings)
    limit_s = settings.time_limit_s(sum(_span_s(probed)[1] for probed in pieces))
    deadline_s = time.monotonic() + limit_s
    probes: list[Probe] = []
    failed: dict[int, RejectedError] = {}
    left_bytes = settings.max_sample_bytes
    for number, probed in enumerate(pieces):
        target = folder / f"{number:06d}.mp4"
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise RejectedError(
                Reason.ffmpeg_timeout,
                f"{number} of {len(pieces)} pieces were encoded in {limit_s:g} s (timeout_s = {settings.timeout_s:g})",
            )
        try:
            graph = _graph(probed, target, form, settings, left_bytes)
            run_ffmpeg(graph, left_s if len(pieces) == 1 else min(left_s, limit_s / 2))
            left_bytes -= _num_bytes(target, left_bytes, settings)
            probes.append(_checked(target, probed, form))
        except RejectedError as error:
            if error.reason is Reason.media_too_large:
                raise
            target.unlink(missing_ok=True)
            failed[number] = error
    if failed:
        raise UnusablePiecesError(failed)
    return probes


def _num_bytes(target: Path, left_bytes: int, settings: VideoSettings) -> int:
    """Bytes of an encoded piece; ffmpeg stops a little before the limit, and what it wrote is not whole.

    Raises:
        RejectedError: media_too_large.
    """
    num_bytes = target.stat().st_size
    if num_bytes >= left_bytes:
        raise RejectedError(
            Reason.media_too_large,
            f"the encoded video has more than max_sample_bytes = {settings.max_sample_bytes} bytes",
        )
    return num_bytes


def num_frames_of(probed: Probed, rate: Fraction) -> int:
    """How many frames a piece has at a rate; a piece that is shorter than a frame is one frame."""
    return max(1, round(_span_s(probed)[1] * rate))


def _even(size_px: float) -> int:
    return max(2, 2 * int(size_px / 2 + 0.25))  # 319.5 is 320, 321 is 320: a little is lost rather than invented


def _span_s(probed: Probed) -> tuple[float, float]:
    """Start in the file's time and duration, in seconds."""
    probe, cut_s = probed.probe, probed.piece.cut_s
    if cut_s is None:
        return probe.start_s, probe.duration_s
    return cut_s[0], min(cut_s[1], probe.start_s + probe.duration_s) - cut_s[0]


def _graph(probed: Probed, target: Path, form: CommonForm, settings: VideoSettings, max_bytes: int) -> Any:
    import ffmpeg

    probe = probed.probe
    # A filter graph that is made anew where the size of the pictures changes would count frames from zero again.
    options: dict[str, Any] = {**SAFE_INPUT, **DECODER_LIMITS, "threads": 1, "reinit_filter": 0}
    if probed.piece.cut_s is not None:
        # Without accurate_seek the frames from the key frame on come with negative times, and the rate filter
        # begins with the one that is shown at the start of the cut, however long ago it came.
        options |= {"ss": f"{_span_s(probed)[0]:.6f}", "noaccurate_seek": None}
    picture = ffmpeg.input(input_url(probe.path), **options)["V:0"]  # V: no cover pictures
    if probed.piece.cut_s is None:
        picture = picture.filter("setpts", "PTS-STARTPTS")
    # The end of the last frame is what the rate filter knows least; it is filled up, and cut to the length.
    scale = min(form.width_px / probe.width_px, form.height_px / probe.height_px)
    width_px, height_px = _fit(probe.width_px * scale, form.width_px), _fit(probe.height_px * scale, form.height_px)
    picture = (
        picture.filter("fps", fps=f"{form.rate.numerator}/{form.rate.denominator}", start_time=0)
        .filter("tpad", stop=2 + round(probe.last_frame_ticks * probe.time_base * form.rate), stop_mode="clone")
        .filter("trim", end_frame=num_frames_of(probed, form.rate))
    )
    # HDR is scaled first, and as it is: converting takes long, a pixel.
    to_sdr = sdr_filters(probe.path)
    colours = {} if to_sdr else {"out_color_matrix": "bt709", "out_range": "tv"}
    picture = picture.filter("scale", width_px, height_px, flags="bicubic", **colours)
    for name, values in to_sdr:
        picture = picture.filter(name, **values)
    picture = (
        picture.filter("pad", form.width_px, form.height_px, "(ow-iw)/2", "(oh-ih)/2")
        .filter("setsar", 1)
        .filter("format", "yuv420p")
        .filter("setparams", range="tv", color_primaries="bt709", color_trc="bt709", colorspace="bt709")
    )
    options = {**_encoder(form, settings), "fs": max_bytes + 1}
    return ffmpeg.output(picture, input_url(target), **options).global_args("-filter_threads", "1")


def _encoder(form: CommonForm, settings: VideoSettings) -> dict[str, Any]:
    return {
        "format": "mp4",
        "vcodec": "libx264",
        "crf": settings.crf,
        "preset": settings.preset,
        "pix_fmt": "yuv420p",
        "g": max(1, round(form.rate * _KEY_FRAME_EVERY_S)),
        "threads": 1,
        "color_range": "tv",
        "colorspace": "bt709",
        "color_primaries": "bt709",
        "color_trc": "bt709",
        "flags:v": "+bitexact",
        "fflags": "+bitexact",
        "map_metadata": -1,
    }


def _fit(size_px: float, target_px: int) -> int:
    """Even size within the target; a border of two pixels is rounding, not a shape."""
    return target_px if target_px - size_px < 2 else _even(size_px)


def _checked(target: Path, probed: Probed, form: CommonForm) -> Probe:
    name = probed.probe.path.name
    try:
        probe = probe_video(target, _OUR_OWN)
    except RejectedError as rejected:
        raise RejectedError(Reason.ffmpeg_failed, f"ffmpeg wrote no usable video of {name}: {rejected}") from rejected
    expected = num_frames_of(probed, form.rate)
    if abs(probe.num_frames - expected) > 1:
        raise RejectedError(
            Reason.ffmpeg_failed,
            f"{name} gives {probe.num_frames} frames at {float(form.rate):g} frames a second, {expected} were expected",
        )
    return probe
