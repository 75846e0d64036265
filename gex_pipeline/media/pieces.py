"""The records that probing, joining and checking hand to each other: frozen data; and which pieces failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gex_pipeline.errors import RejectedError

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


class UnusablePiecesError(RejectedError):
    """Some pieces cannot be encoded: reason and detail of the first; the others may be joined without them."""

    def __init__(self, rejected: Mapping[int, RejectedError]) -> None:
        first = rejected[min(rejected)]
        super().__init__(first.reason, first.detail)
        self.rejected = dict(rejected)


@dataclass(frozen=True)
class JoinedSegment:
    """Where one piece lies in the joined video."""

    offset_s: float
    duration_s: float


@dataclass(frozen=True)
class Joined:
    """One joined video; ``segments`` are in the order of the pieces and follow each other without a gap."""

    path: Path
    way: Literal["copy", "encode"]
    duration_s: float
    width_px: int
    height_px: int
    fps: float
    codec: str
    segments: tuple[JoinedSegment, ...]
