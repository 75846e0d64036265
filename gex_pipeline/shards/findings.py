"""What verifying finds, and what it is given: plain frozen data that processes and Ray pass on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gex_pipeline.shards.foreign import encodable
from gex_pipeline.shards.target import ShardRef

if TYPE_CHECKING:
    from gex_pipeline.shards.source_clips import SourceClips

_MAX_CHARACTERS = 300


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

    shard: str
    key: str  # empty where it concerns the whole shard
    check: str
    found: str
    expected: str
    is_note: bool = False


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
