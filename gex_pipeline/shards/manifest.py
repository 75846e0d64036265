"""``dataset.json``: the snapshots of a data set, append-only; the only list of what is published.

Readers take the union of the shards of all snapshots up to the one they ask for. A retired snapshot keeps its place and
lists no shards.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.layout import Layout
from gex_pipeline.shard_format import FORMAT_VERSION, MANIFEST_NAME

_NUMBER = re.compile(r"-(\d+)\.parquet$")


@dataclass(frozen=True)
class ShardEntry:
    """One published shard; paths are relative to the output."""

    path: str
    receipt: str
    num_samples: int
    num_bytes: int
    sha256: str

    @property
    def number(self) -> int:
        """Its number, which its files are named by.

        Raises:
            GexError: they are not.
        """
        match = _NUMBER.search(self.receipt)
        if match is None:
            raise GexError(f"{MANIFEST_NAME} names a shard {self.path!r}, which is no name of a shard")
        return int(match[1])


@dataclass(frozen=True)
class GranularityEntry:
    """What one snapshot adds to one granularity."""

    operation: str
    parent: str | None
    media_extension: str
    shards: tuple[ShardEntry, ...]
    totals: dict[str, Any]  # samples, shards, bytes, duration_s, words
    last_shard: int | None = None  # of a retired snapshot: the highest number of its shards; it is not given out again


@dataclass(frozen=True)
class Account:
    """The balance of one stage: everything that went in ends as used, excluded or rejected."""

    stage: str
    granularity: str
    unit: str  # what is counted: rows, clips, samples
    num_in: int
    num_used: int
    excluded: dict[str, int] = field(default_factory=dict)  # reason -> count
    rejected: dict[str, int] = field(default_factory=dict)  # reason -> count
    num_known: int = 0  # rows of clips that an earlier snapshot holds

    @property
    def difference(self) -> int:
        """0 when the account adds up."""
        accounted = self.num_used + self.num_known + sum(self.excluded.values()) + sum(self.rejected.values())
        return self.num_in - accounted


@dataclass(frozen=True)
class Snapshot:
    """One published run."""

    snapshot: int
    created: str  # ISO 8601, UTC
    recipe_hash: str
    recipe: dict[str, Any]
    inputs: tuple[dict[str, Any], ...]  # metadata files: uri, num_bytes, modified_s; tars of media as one
    granularities: dict[str, GranularityEntry]
    accounts: tuple[Account, ...]
    tables: tuple[str, ...]  # relative to the output
    software: dict[str, str]  # versions of what made the bytes
    retired: str | None = None  # ISO 8601, UTC: when its shards were taken out; the rest of it stays


@dataclass(frozen=True)
class Manifest:
    """The whole of ``dataset.json``."""

    name: str
    snapshots: tuple[Snapshot, ...] = ()

    def granularity_names(self) -> tuple[str, ...]:
        """Published granularities, in the order of the recipe."""
        names = [name for snapshot in self.snapshots for name in snapshot.granularities]
        return tuple(dict.fromkeys(names))

    def shards(self, granularity: str, snapshot: int | None = None) -> list[ShardEntry]:
        """The published shards of a granularity, up to and including `snapshot` (all by default)."""
        return [
            shard
            for entry in self.snapshots
            if snapshot is None or entry.snapshot <= snapshot
            for shard in (entry.granularities[granularity].shards if granularity in entry.granularities else ())
        ]

    def check_whole(self, snapshot: int, uri: str) -> None:
        """Refuse a retired snapshot to whoever asks for the data set as it was then; `uri` is for the sentence.

        Raises:
            GexError: its shards are gone.
        """
        if (retired := self.snapshots[snapshot].retired) is not None:
            kept = ", ".join(str(entry.snapshot) for entry in self.snapshots if entry.retired is None)
            raise GexError(
                f"snapshot {snapshot} of {uri!r} was retired on {retired[:10]}: its shards are gone; there are still "
                f"those of {kept}"
            )

    def retired(self, snapshot: int) -> list[int]:
        """The retired ones among the snapshots up to and including `snapshot`."""
        return [entry.snapshot for entry in self.snapshots[: snapshot + 1] if entry.retired is not None]

    def to_json(self) -> bytes:
        """The bytes of ``dataset.json``."""
        content = {"format_version": FORMAT_VERSION, **asdict(self)}
        for snapshot in content["snapshots"]:
            # Without what only retired snapshots have, versions that know no retirement read the file too.
            for part, name in [(snapshot, "retired"), *((g, "last_shard") for g in snapshot["granularities"].values())]:
                if part[name] is None:
                    del part[name]
        return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"


def read_manifest(output_uri: str) -> Manifest | None:
    """The manifest of an output, or None when nothing is published there.

    Raises:
        GexError: the file is not a manifest this version reads.
    """
    uri = storage.join(output_uri, MANIFEST_NAME)
    if not storage.exists(uri):
        return None
    try:
        content = json.loads(storage.read_bytes(uri))
        version = content.pop("format_version")
        if version != FORMAT_VERSION:
            raise GexError(f"{uri} has format version {version}; this version reads {FORMAT_VERSION}")
        return Manifest(content["name"], tuple(_snapshot(item) for item in content["snapshots"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GexError(f"{uri} is not a data set's manifest: {error}") from error


def published_manifest(output_uri: str) -> Manifest:
    """The manifest of an output with something published.

    Raises:
        GexError: there is none, or it is none this version reads.
    """
    manifest = read_manifest(output_uri)
    if manifest is None or not manifest.snapshots:
        raise GexError(f"no data set is published at {output_uri!r}: there is no dataset.json in it")
    return manifest


def publish_sizes(layout: Layout, manifest: Manifest) -> None:
    """Write every ``sizes.json`` anew by what is published."""
    for name in manifest.granularity_names():
        sizes = {storage.name_of(shard.path): shard.num_samples for shard in manifest.shards(name)}
        storage.publish_bytes(json.dumps(sizes, indent=1).encode() + b"\n", layout.sizes(name))


def _snapshot(item: dict[str, Any]) -> Snapshot:
    granularities = {
        name: GranularityEntry(**{**entry, "shards": tuple(ShardEntry(**shard) for shard in entry["shards"])})
        for name, entry in item["granularities"].items()
    }
    return Snapshot(
        **{
            **item,
            "granularities": granularities,
            "accounts": tuple(Account(**account) for account in item["accounts"]),
            "inputs": tuple(item["inputs"]),
            "tables": tuple(item["tables"]),
        }
    )
