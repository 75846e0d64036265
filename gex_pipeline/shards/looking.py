"""What the shards hold, for looking at: an open table of samples in, plain dictionaries out.

Listing, one sample with its lineage, statistics, and the difference of two targets. Reads no media.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gex_pipeline import storage
from gex_pipeline.receipts import read_receipt
from gex_pipeline.shards.reader import Member, iter_samples
from gex_pipeline.shards.samples import Samples, one_row, open_samples
from gex_pipeline.shards.target import ShardRef, Target
from gex_pipeline.tables import Database

_NUM_BINS = 20
_MAX_DEPTH = 16  # generations of lineage; a graph of granularities is shallow
_PAGE = 10_000


def list_shards(samples: Samples) -> list[dict[str, Any]]:
    """A row a shard: granularity, snapshot, samples, bytes, seconds, words and state."""
    held = {row["tar"]: row for row in samples.database.rows("shards_listing")}
    shards = samples.target.shards
    states = storage.for_each(_state, shards)
    rows = []
    for shard, (state, num_bytes) in zip(shards, states, strict=True):
        row = held.get(shard.name, {})
        broken = any(note.startswith(f"{shard.name}: ") for note in samples.notes)
        rows.append(
            {
                "shard": shard.name,
                "granularity": shard.granularity,
                "snapshot": shard.snapshot,
                "samples": shard.entry.num_samples if shard.entry else row.get("samples", 0),
                "bytes": num_bytes,
                "duration_s": row.get("duration_s", 0.0),
                "words": row.get("words", 0),
                "state": "damaged" if broken and state == "complete" else state,
            }
        )
    return rows


def _state(shard: ShardRef) -> tuple[str, int]:
    """What can be said of a shard without reading it, and the bytes of its tar."""
    found = storage.info(shard.uri)
    if found is None:
        return "tar missing", 0
    if shard.entry is not None:
        receipt = read_receipt(shard.receipt_uri or "")
        if receipt is None:
            return "receipt missing", found.num_bytes
        if found.num_bytes != shard.entry.num_bytes:
            return "size differs", found.num_bytes
        if receipt.sha256 != shard.entry.sha256:
            return "receipt differs", found.num_bytes
    return "complete", found.num_bytes


def show_sample(samples: Samples, everything: Samples, key: str) -> dict[str, Any]:
    """One sample with the members of its tar and its lineage; `everything` is where its parents are looked up.

    Raises:
        GexError: no sample or several have this key or beginning of one.
    """
    row = one_row(samples, key)
    uri = next(shard.uri for shard in samples.target.shards if shard.name == row["tar"])
    return row | {
        "members": [vars(member) for member in members_of(uri, row["key"])],
        "lineage": _lineage(everything, row["parents"], 1),
    }


def members_of(uri: str, key: str) -> tuple[Member, ...]:
    """The members of one sample of a tar; none where it does not hold the key."""
    return next((sample.members for sample in iter_samples(uri) if sample.key == key), ())


def _lineage(samples: Samples, ids: Sequence[str], depth: int) -> list[dict[str, Any]]:
    """What a sample was made of, in order, each thing followed by what that was made of."""
    parents = {row["key"]: row for row in samples.database.rows("shards_by_key", keys=list(ids))}
    clips = {row["clip_id"]: row for row in samples.database.rows("shards_clips_of", ids=list(ids))}
    found: list[dict[str, Any]] = []
    for item in ids:
        if item in clips:
            found.append({"depth": depth, "kind": "clip", "id": item, **clips[item]})
        elif item in parents:
            row = parents[item]
            kept = {name: row[name] for name in ("granularity", "tar", "source_id", "duration_s", "text")}
            found.append({"depth": depth, "kind": "sample", "id": item, **kept})
            if depth < _MAX_DEPTH:
                found += _lineage(samples, row["parents"] or [], depth + 1)
        else:
            found.append({"depth": depth, "kind": "unknown", "id": item})
    return found


def statistics(samples: Samples) -> dict[str, Any]:
    """Distributions of durations, words and scores a granularity, with histograms, and the kinds of media."""
    database = samples.database
    database.run("shards_measured")
    rows = database.rows("report_statistics")
    for row in rows:
        row["granularity"] = row["granularity"] or ""
    histograms = []
    for quantity in dict.fromkeys(row["quantity"] for row in rows):
        own = {row["granularity"]: row for row in rows if row["quantity"] == quantity}
        edges = _edges(min(row["min"] for row in own.values()), max(row["max"] for row in own.values()), quantity)
        counts = {name: [0] * (len(edges) - 1) for name in own}
        for found in database.rows("report_bins", quantity=quantity, starts=edges[:-1]):
            counts[found["granularity"] or ""][found["bin"]] = found["n"]
        histograms.append({"quantity": quantity, "edges": edges, "counts": counts})
    return {"statistics": rows, "histograms": histograms, "media": database.rows("shards_kinds")}


def _edges(lowest: float, highest: float, quantity: str) -> list[float]:
    """Edges of bins of equal width from the lowest to the highest value; of whole numbers at least one wide.

    A value that all samples share is a bin of its own, with no width.
    """
    width = (highest - lowest) / _NUM_BINS
    if quantity == "num_words":
        width = float(max(1, -(-(highest - lowest + 1) // _NUM_BINS)))
    num = _NUM_BINS if quantity != "num_words" else max(1, int(-(-(highest - lowest + 1) // width)))
    if width == 0:
        return [lowest, lowest]
    return [lowest + width * number for number in range(num)] + [max(lowest + width * num, highest)]


@dataclass(frozen=True)
class Difference:
    """How two targets differ: samples a granularity, samples that differ, shards that are the same, shards of each."""

    granularities: list[dict[str, Any]]
    num_changed: int
    same_shards: int | None  # none where one of them is no output
    shards: tuple[int, int]
    notes: list[str]
    _database: Database

    def changed(self, num: int | None = None) -> Iterator[dict[str, Any]]:
        """The samples that differ, or the first `num`: granularity, key, status, fields. A page at a time in memory."""
        end = self.num_changed if num is None else min(num, self.num_changed)
        for after in range(0, end, _PAGE):
            yield from self._database.rows("shards_changed_page", after=after, num=min(_PAGE, end - after))


@contextmanager
def compare(before: Target, after: Target) -> Iterator[Difference]:
    """What differs between the samples of two targets, by granularity and key, and how many shards are the same."""
    with open_samples(before) as first:
        other = first.database.scratch / "other.parquet"
        with open_samples(after) as second:
            second.database.publish_table("samples", str(other))
            notes = first.notes + second.notes
        first.database.view_parquet("other", [str(other)])
        first.database.run("shards_changed")
        digests = [_digests(target) for target in (before, after)]
        yield Difference(
            granularities=first.database.rows("shards_difference"),
            num_changed=first.database.count("changed"),
            same_shards=len(digests[0] & digests[1]) if before.manifest and after.manifest else None,
            shards=(len(before.shards), len(after.shards)),
            notes=notes,
            _database=first.database,
        )


def _digests(target: Target) -> set[str]:
    return {shard.entry.sha256 for shard in target.shards if shard.entry}
