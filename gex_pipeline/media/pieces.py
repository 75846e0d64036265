"""The records that probing, joining and checking hand to each other. Frozen data, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gex_pipeline.media.probe import Probe


@dataclass(frozen=True)
class Piece:
    """One clip to be joined: a whole file, or the span ``cut_s`` (half-open, seconds) of a longer one."""

    path: Path
    cut_s: tuple[float, float] | None
    claimed_duration_s: float | None


@dataclass(frozen=True)
class Probed:
    """A piece with the probe of the file it is in."""

    piece: Piece
    probe: Probe


@dataclass(frozen=True)
class JoinedSegment:
    """Where one piece lies in the joined video."""

    offset_s: float
    duration_s: float
    num_frames: int


@dataclass(frozen=True)
class Joined:
    """One joined video; ``segments`` are in the order of the pieces and follow each other without a gap."""

    path: Path
    way: Literal["copy", "encode"]
    num_frames: int
    duration_s: float
    width_px: int
    height_px: int
    fps: float
    codec: str
    has_audio: bool
    segments: tuple[JoinedSegment, ...]
