"""HDR pictures (PQ and HLG) as BT.709 has them: as filters for ffmpeg, and of one decoded picture.

White, which BT.2408 has at 203 cd/m², becomes 216 of 255. What is darker than a third of it is shown as bright as it
was; what is brighter is drawn together up to 1000 cd/m², the peak of HLG and of most PQ. All clips are converted
alike, whatever peak their metadata claim, since they lie side by side in one sample.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gex_pipeline.media.ffmpeg import ffmpeg_binary, filters_of
from gex_pipeline.media.source import open_video

# Numbers of ISO/IEC 23091-2 (H.273), which zscale takes, too.
PQ, HLG = 16, 18
_UNSPECIFIED, _BT2020 = 2, 9
_WHITE_NITS, _PEAK_NITS = 203.0, 1000.0
_PEAK = _PEAK_NITS / _WHITE_NITS
_LINEAR_TO = 0.3  # of white
_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])


def sdr_filters(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Filters that convert a file's pictures; none where they are no HDR ones or this ffmpeg cannot (no zimg in it)."""
    with open_video(path) as (_, stream):  # with decoders: many files say it in the pictures alone
        context = stream.codec_context
        transfer, primaries, matrix = context.color_trc, context.color_primaries, context.colorspace
    if transfer not in (PQ, HLG) or not {"zscale", "tonemap"} <= filters_of(ffmpeg_binary()):
        return []
    given = {
        "transferin": transfer,
        "primariesin": _BT2020 if primaries == _UNSPECIFIED else primaries,
        "matrixin": _BT2020 if matrix == _UNSPECIFIED else matrix,
    }
    return [
        (
            "zscale",
            {**given, "transfer": "linear", "primaries": "709", "matrix": "gbr", "npl": _WHITE_NITS, "agamma": 0},
        ),
        ("format", {"pix_fmts": "gbrpf32le"}),
        ("tonemap", {"tonemap": "mobius", "param": _LINEAR_TO, "peak": _PEAK, "desat": 0}),
        ("zscale", {"transfer": "709", "matrix": "709", "range": "tv"}),
    ]


def transfer_of(path: Path) -> int:
    """How a file's pictures say brightness, as a number of H.273."""
    with open_video(path) as (_, stream):
        return int(stream.codec_context.color_trc)


def as_sdr(picture_HWC: NDArray[np.uint8], transfer: int) -> NDArray[np.uint8]:
    """What the filters make of one picture whose values are those of `transfer`, but for rounding."""
    values = np.arange(256) / 255
    nits_HWC = (_nits_of_pq if transfer == PQ else _scene_of_hlg)(values)[picture_HWC]
    if transfer == HLG:  # its display makes the whole picture steeper
        nits_HWC = _PEAK_NITS * nits_HWC * (nits_HWC @ [[0.2627], [0.6780], [0.0593]]) ** 0.2
    light_HWC = nits_HWC / _WHITE_NITS @ _TO_BT709.T
    brightest_HW1 = light_HWC.max(axis=2, keepdims=True).clip(1e-6)
    light_HWC *= _drawn_together(brightest_HW1) / brightest_HW1
    found: NDArray[np.uint8] = np.rint(255 * light_HWC.clip(0, 1) ** (1 / 2.4)).astype(np.uint8)
    return found


def _nits_of_pq(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """SMPTE ST 2084."""
    root = values ** (32 / 2523)
    light: NDArray[np.float64] = ((root - 107 / 128).clip(0) / (2413 / 128 - 2392 / 128 * root)) ** (8192 / 1305)
    return 10_000 * light


def _scene_of_hlg(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """ARIB STD-B67, of 1."""
    return np.where(values <= 0.5, values**2 / 3, (np.exp((values - 0.55991073) / 0.17883277) + 0.28466892) / 12)


def _drawn_together(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """The curve that ffmpeg's tonemap calls mobius."""
    j, peak = _LINEAR_TO, _PEAK
    a = -j * j * (peak - 1) / (j * j - 2 * j + peak)
    b = (j * j - 2 * j * peak + peak) / (peak - 1)
    return np.where(light <= j, light, (b * b + 2 * b * j + j * j) / (b - a) * (light + a) / (light + b))
