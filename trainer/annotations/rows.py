"""The three shapes that annotations are brought to, and the account of what gave no row.

Invariant of `Annotations`: rows + lacking entries = entries of the file. Imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Generic, TypeVar


@dataclass(frozen=True)
class Span:
    """Part of a media file, [start_s, end_s); a moment where both are the same: the frame there."""

    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.start_s <= self.end_s < float("inf"):
            raise ValueError(f"a span from {self.start_s} to {self.end_s} s; 0 <= start <= end is needed")


@dataclass(frozen=True)
class RetrievalPair:
    """A video and the texts that describe it, one or many, in the file's order."""

    video_id: str
    media: Path
    texts: tuple[str, ...]
    span: Span | None = None  # None: the whole file


@dataclass(frozen=True)
class LabelledVideo:
    """A video and its classes, ascending indices into `Annotations.class_names`; none where it is unlabelled."""

    video_id: str
    media: Path
    labels: tuple[int, ...]
    span: Span | None = None


@dataclass(frozen=True)
class Question:
    """A question about a video with candidate answers."""

    video_id: str
    media: Path
    span: Span | None  # in the time of `media`
    question: str
    candidates: tuple[str, ...]
    answer_index: int


class Lack(StrEnum):
    """Why an entry gave no row."""

    media = "media"  # no file with its id
    text = "text"  # no caption, or only blank ones
    span = "span"  # its times are no span


RowT = TypeVar("RowT", RetrievalPair, LabelledVideo, Question)


@dataclass(frozen=True)
class Annotations(Generic[RowT]):
    """What a reader found."""

    source: Path
    rows: tuple[RowT, ...]
    num_entries: int
    lacking: Mapping[Lack, tuple[str, ...]] = field(default_factory=dict)  # a name for each entry without a row
    class_names: tuple[str, ...] = ()
    num_blank_texts: int = 0  # blank captions of videos that have others

    def __post_init__(self) -> None:
        if len(self.rows) + self.num_lacking != self.num_entries:
            raise ValueError(f"{self.num_entries} entries, {len(self.rows)} rows and {self.num_lacking} lacking")

    @property
    def num_lacking(self) -> int:
        """Entries without a row."""
        return sum(len(names) for names in self.lacking.values())

    def describe(self, max_names: int = 10) -> str:
        """One sentence for a person: how many entries gave a row, what the others lack, the first names."""
        told = f"{self.source}: {len(self.rows)} of {self.num_entries} entries used"
        for lack, names in sorted(self.lacking.items()):
            first = list(dict.fromkeys(names))
            shown = ", ".join(first[:max_names]) + (", …" if len(first) > max_names else "")
            told += f"; {len(names)} without {lack}: {shown}"
        if self.num_blank_texts:
            told += f"; {self.num_blank_texts} blank captions left out"
        return told


class Ledger(Generic[RowT]):
    """Takes a reader's entries one by one, each with a row or a lack, and closes into `Annotations`."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._rows: list[RowT] = []
        self._lacking: dict[Lack, list[str]] = {}

    def add(self, row: RowT) -> None:
        """An entry that gives a row."""
        self._rows.append(row)

    def lack(self, lack: Lack, name: str) -> None:
        """An entry that gives none."""
        self._lacking.setdefault(lack, []).append(name)

    def close(self, class_names: tuple[str, ...] = (), num_blank_texts: int = 0) -> Annotations[RowT]:
        """All that was taken."""
        lacking = {lack: tuple(names) for lack, names in self._lacking.items()}
        num_entries = len(self._rows) + sum(len(names) for names in lacking.values())
        return Annotations(self._source, tuple(self._rows), num_entries, lacking, class_names, num_blank_texts)
