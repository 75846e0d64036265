"""The demo's bad inputs: which clips get one, what is done to their rows and files, how the pipeline must answer.

In: sources; out: planned `Fault`s, changed rows, damaged files. Invariants: every fault but `mixed_sizes` costs exactly
one row, which must end in the fault's reason; the first source falls under four clips through its fault, every other
source of four clips or more keeps at least four.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gex_pipeline.demo.stories import Source, seeded
from gex_pipeline.errors import Reason

MIN_SOURCES = 4  # below this there are not enough clips to spare
GROUP_CLIPS = 4  # the paper's least number of clips in a group
CLAIMED_TOO_MUCH_S = 5

FAULT_REASONS: dict[str, Reason | None] = {
    "truncated_file": Reason.media_truncated,
    "missing_file": Reason.media_missing,
    "empty_file": Reason.media_empty,
    "text_file": Reason.not_a_video,
    "unreadable_timestamp": Reason.unreadable_timestamp,
    "end_before_start": Reason.end_not_after_start,
    "empty_caption": Reason.missing_caption,
    "claims_too_much": Reason.duration_mismatch,
    "duplicate_row": Reason.duplicate_clip,
    "mixed_sizes": None,  # no reject: the group has to be encoded anew
}
_COSTS_A_CLIP_ANYWHERE = (
    "missing_file",
    "empty_file",
    "text_file",
    "unreadable_timestamp",
    "end_before_start",
    "empty_caption",
)
_NOT_A_VIDEO = "<!doctype html>\n<html><head><title>429</title></head><body>Too many requests.</body></html>\n"


@dataclass(frozen=True)
class Fault:
    """One planted fault; `clips` are positions within the source."""

    name: str
    source: int
    clips: tuple[int, ...]

    @property
    def reason(self) -> Reason | None:
        """How the clip must end, None where nothing is rejected."""
        return FAULT_REASONS[self.name]

    @property
    def costs_its_clip(self) -> bool:
        """Whether the clip is lost to its group (a duplicate leaves one of the two)."""
        return self.name not in {"duplicate_row", "mixed_sizes"}


def plan_faults(sources: Sequence[Source], seed: int) -> list[Fault]:
    """Every fault once, in the table's order, over clips that their sources can spare."""
    rng = seeded(seed, "faults")
    faults = [Fault("truncated_file", 0, (2,))]
    spare = {i: len(s.clips) - GROUP_CLIPS for i, s in enumerate(sources) if i > 0 and len(s.clips) > GROUP_CLIPS}
    # The last clip of its source, so that the longer claim does not run into a next clip.
    claimant = rng.choice(list(spare))
    faults.append(Fault("claims_too_much", claimant, (len(sources[claimant].clips) - 1,)))
    spare[claimant] -= 1
    slots = [(i, clip) for i, count in spare.items() for clip in rng.sample(range(len(sources[i].clips) - 1), count)]
    picked = rng.sample(slots, len(_COSTS_A_CLIP_ANYWHERE))
    faults += [Fault(name, i, (clip,)) for name, (i, clip) in zip(_COSTS_A_CLIP_ANYWHERE, picked, strict=True)]

    big = [i for i, source in enumerate(sources) if i > 0 and len(source.clips) >= GROUP_CLIPS]
    source = rng.choice(big)
    faults.append(Fault("duplicate_row", source, (rng.choice(usable_clips(sources, faults, source)),)))
    source = rng.choice(_untouched(big, faults) or big)
    faults.append(Fault("mixed_sizes", source, tuple(usable_clips(sources, faults, source)[:2])))
    return sorted(faults, key=lambda fault: list(FAULT_REASONS).index(fault.name))


def usable_clips(sources: Sequence[Source], faults: Sequence[Fault], source: int) -> list[int]:
    """Positions of the clips of one source that no fault takes away."""
    lost = {fault.clips[0] for fault in faults if fault.source == source and fault.costs_its_clip}
    return [clip for clip in range(len(sources[source].clips)) if clip not in lost]


def _untouched(candidates: list[int], faults: list[Fault]) -> list[int]:
    hit = {fault.source for fault in faults}
    return [source for source in candidates if source not in hit]


def spoil_row(fault: Fault, row: dict[str, Any]) -> dict[str, Any]:
    """The row as the fault leaves it; faults of files leave it alone."""
    start, end = row["Start_timestamp"], row["End_timestamp"]
    if fault.name == "unreadable_timestamp":
        return {**row, "Start_timestamp": start[:7] + "?" + start[8:]}
    if fault.name == "end_before_start":
        return {**row, "Start_timestamp": end, "End_timestamp": start}
    if fault.name == "empty_caption":
        return {**row, "Caption": ""}
    return row


def spoil_file(fault: Fault, path: Path) -> None:
    """Damage the clip's file; faults of rows leave it alone."""
    if fault.name == "truncated_file":
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * 6 // 10])
    elif fault.name == "missing_file":
        path.unlink()
    elif fault.name == "empty_file":
        path.write_bytes(b"")
    elif fault.name == "text_file":
        path.write_text(_NOT_A_VIDEO)
