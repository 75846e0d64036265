"""What verifying finds, and what it is given: plain frozen data that processes and Ray pass on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gex_pipeline.shards.foreign import encodable
from gex_pipeline.shards.target import ShardRef

if TYPE_CHECKING:
    from gex_pipeline.shards.source_clips import SourceClips

_MAX_CHARACTERS = 300
MOST_TOLD = 1000  # findings of one check that are told; of more, the first of each shard


# The checks that a run with --check-bytes makes too: what only the others find was published so, and stays.
_REBUILT = frozenset({"tar", "size", "sha256", "receipt", "manifest", "crash"})


def is_rebuilt(shard: str, check: str) -> bool:
    """Whether a run with --check-bytes mends what this check found at a place of an output."""
    return check in _REBUILT and shard.endswith(".tar")


def is_of_table(shard: str) -> bool:
    """Whether a finding is about a table, which no run makes again."""
    return shard.startswith("tables/")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong; a note is only worth knowing."""

    shard: str  # empty for all that is only counted
    key: str  # empty where it concerns the whole shard
    check: str
    found: str
    expected: str
    is_note: bool = False
    num: int = 1  # how many it stands for


def rest(check: str, num: int, *, is_note: bool = False) -> Finding:
    """What is counted of a check and not told."""
    return Finding("", "", check, f"{num} more", "none", is_note, num)


class Told:
    """The findings of a whole target, not more than a person or a log can take: one broken table is found by millions.

    Told are the first `MOST_TOLD` of each check and the first of each of its shards; the others are counted.
    """

    def __init__(self) -> None:
        self._told: dict[Finding, None] = {}
        self._places: set[tuple[str, bool, str]] = set()
        self._num: Counter[tuple[str, bool]] = Counter()
        self._rest: Counter[tuple[str, bool]] = Counter()

    def add(self, findings: Iterable[Finding]) -> None:
        """Take these, each once."""
        for finding in dict.fromkeys(findings):
            kind = (finding.check, finding.is_note)
            if not finding.shard or (self._num[kind] >= MOST_TOLD and (*kind, finding.shard) in self._places):
                self._rest[kind] += finding.num
            elif finding not in self._told:
                self._told[finding] = None
                self._num[kind] += 1
                self._places.add((*kind, finding.shard))

    def in_order(self) -> list[Finding]:
        """What is wrong, then the notes; by shard, and after them what is only counted."""
        counted = [rest(check, num, is_note=is_note) for (check, is_note), num in self._rest.items()]
        return sorted(
            [*self._told, *counted], key=lambda one: (one.is_note, not one.shard, one.shard, one.check, one.key)
        )


@dataclass(frozen=True)
class ShardCheck:
    """One shard to verify and what that takes. Pickles small."""

    shard: ShardRef
    output_uri: str = ""  # empty for tars without an output
    clips: SourceClips | None = None  # to compare segments with their source clips
    are_clips_cut: bool = False  # clips lie inside full source videos
    is_deep: bool = False  # decode every frame


@dataclass
class Report:
    """Collects the findings of one shard."""

    shard: str
    findings: list[Finding] = field(default_factory=list)

    def add(self, check: str, found: Any, expected: Any, key: str = "") -> None:
        """Something is wrong."""
        self.findings.append(Finding(self.shard, key, check, shown(found), shown(expected)))

    def same(self, check: str, found: Any, expected: Any, key: str = "", what: str = "") -> bool:
        """Whether both are the same; a finding when not. `what` names the value."""
        if found == expected:
            return True
        label = f"{what} " if what else ""
        self.add(check, f"{label}{shown(found)}", f"{label}{shown(expected)}", key)
        return False


def shown(value: Any) -> str:
    """A value as a finding says it: UTF-8, cut where it is long."""
    text = encodable(value if isinstance(value, str) else repr(value))
    return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 1]}…"
