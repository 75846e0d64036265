"""How videos are probed, joined and shown as pictures: the part of a recipe that this room reads.

Imports pydantic only, so that a recipe can be checked without PyAV or ffmpeg.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

_TIMEOUT_COVERS_S = 60
# Planning figures for shard sizes only: bytes of JPEG a pixel, and how much wider than high a picture is.
_JPEG_BYTES_A_PIXEL = 0.2
_TYPICAL_ASPECT = 16 / 9
_TAR_BYTES_A_MEMBER = 768  # a header, and on average half a block of padding


class FrameSettings(BaseModel):
    """Pictures that are sampled from a sample's video when the data set is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num: int = Field(ge=1, le=1000)
    """Frames a sample: those in the middle of so many equal spans; of a video with fewer, some come more than once."""
    short_side_px: int = Field(ge=16, le=8192)
    """Length of a frame's shorter side; a smaller video's frames keep their size."""
    quality: int = Field(default=90, ge=1, le=100)
    """Quality of the JPEG files."""
    beside: bool = False
    """Keep the video too, before its frames; off, the frames stand in its place."""

    @property
    def estimated_bytes(self) -> int:
        """About how many bytes the frames of one sample take in a tar."""
        picture_bytes = self.short_side_px**2 * _TYPICAL_ASPECT * _JPEG_BYTES_A_PIXEL
        return round(self.num * (picture_bytes + _TAR_BYTES_A_MEMBER))


class VideoSettings(BaseModel):
    """Video knobs of one granularity; the defaults need no line in a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    height_px: int | None = Field(default=None, ge=16, le=8192)
    """Height of re-encoded samples, even after rounding; none: the first clip's. A copied sample keeps its own."""
    fps: float | None = Field(default=None, gt=0, le=240)
    """Frame rate of re-encoded samples in frames a second; none: the first clip's average, with an upper bound."""
    crf: int = Field(default=23, ge=0, le=51)
    """Constant quality of x264; lower is better and larger."""
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"] = (
        "veryfast"
    )
    """Speed of x264 against size."""
    audio: Literal["drop", "keep"] = "drop"
    """Whether samples have a sound track; with `keep`, clips without one give silence."""
    force_encode: bool = False
    """Re-encode every sample, also where a stream copy would do."""
    check: Literal["packets", "decode"] = "packets"
    """How a clip is probed: by its packets, or by decoding every frame (much slower, finds damaged pictures)."""
    duration_tolerance_s: float = Field(default=0.5, ge=0)
    """How much less than its metadata claims a file may hold, in seconds."""
    max_excess_s: float = Field(default=60, ge=0)
    """How much more than its metadata claims a clip's file may hold, in seconds; cut at key frames, it holds some."""
    timeout_s: float = Field(default=600, gt=0)
    """Wall-clock limit of encoding a sample, in seconds; of one longer than a minute, for each minute of it."""
    jpeg_quality: int = Field(default=92, ge=1, le=100)
    """Quality of the pictures that Θ_v writes."""
    max_duration_s: float = Field(default=6 * 3600, gt=0)
    """A file that is longer, or says it is, is refused, in seconds."""
    max_frames: int = Field(default=2_500_000, ge=1)
    """A file with more frames than this in its video track, or more packets in another, is refused."""
    max_sample_bytes: int = Field(default=8_000_000_000, ge=1, le=8_500_000_000)
    """A sample whose video becomes larger is refused, in bytes; a tar cannot hold a larger file than the most here."""

    def time_limit_s(self, duration_s: float) -> float:
        """How long encoding or decoding so many seconds of video may take, in seconds."""
        return self.timeout_s * max(1.0, duration_s / _TIMEOUT_COVERS_S)
