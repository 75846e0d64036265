"""Verifies what no single shard shows: a target in, findings out. Receipts, tables and listings; no media.

Keys over all shards, summaries against their table and the texts they came from, segments against the clips,
parents that exist, ``sizes.json``, and files on disk that no manifest lists.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from gex_pipeline import storage
from gex_pipeline.layout import Layout
from gex_pipeline.receipts import read_receipt
from gex_pipeline.shards.findings import Finding, shown
from gex_pipeline.shards.manifest import Manifest
from gex_pipeline.shards.samples import Samples, snapshot_tables
from gex_pipeline.shards.target import Target


def verify_across(samples: Samples) -> Iterator[Finding]:
    """Everything that is wrong between the shards of a target."""
    yield from check_duplicates(samples)
    yield from check_sources(samples)
    if samples.target.manifest is not None:
        yield from check_tables(samples)
        yield from check_parents(samples)
        yield from check_sizes(samples.target, samples.target.manifest)
        yield from check_orphans(samples.target, samples.target.manifest)


def check_duplicates(samples: Samples) -> Iterator[Finding]:
    """A key stands in one place."""
    for row in samples.database.rows("shards_duplicates"):
        yield Finding(row["tar"], row["key"], "duplicate", f"{row['num']} times: {', '.join(row['tars'])}", "once")


def check_sources(samples: Samples) -> Iterator[Finding]:
    """A summary carries the digest of its parent's text; among loose tars only where the parent is there too."""
    for row in samples.database.rows("shards_summary_sources"):
        if row["expected"] is not None:
            found = f"made from the text {row['found']}"
            yield Finding(row["tar"], row["key"], "summary", found, f"the parent's text {row['expected']}")


def check_tables(samples: Samples) -> Iterator[Finding]:
    """Summaries and segments say what the tables say."""
    manifest = samples.target.manifest
    for name in manifest.granularity_names() if manifest else ():
        uris = snapshot_tables(samples.target, f"summaries-{name}")
        if not uris:
            continue
        samples.database.view_parquet("summaries", uris)
        for row in samples.database.rows("shards_unlike_summaries", granularity=name):
            found = "no row" if row["what"] == "row" else shown(row["found"])
            expected = "a row of the summaries table" if row["what"] == "row" else shown(row["expected"])
            yield Finding(row["tar"], row["key"], "table", found, expected)
    for row in samples.database.rows("shards_unlike_clips"):
        found = f"clip {row['clip_id']}: {row['found']}"
        yield Finding(row["tar"], row["key"], "table", shown(found), shown(row["expected"]))


def check_parents(samples: Samples) -> Iterator[Finding]:
    """What a sample was made of is published or an accepted clip."""
    for row in samples.database.rows("shards_lost_parents"):
        found = f"{len(row['parents'])} unknown: {', '.join(row['parents'])}"
        yield Finding(row["tar"], row["key"], "lineage", shown(found), "published samples or accepted clips")


def check_sizes(target: Target, manifest: Manifest) -> Iterator[Finding]:
    """``sizes.json`` gives the samples of every published shard."""
    for name in dict.fromkeys(shard.granularity for shard in target.shards):
        uri = Layout(target.uri).sizes(name)
        expected = {storage.name_of(shard.path): shard.num_samples for shard in manifest.shards(name)}
        place = f"{name}/sizes.json"
        if not storage.exists(uri):
            yield Finding(place, "", "sizes", "missing", "sizes.json")
            continue
        try:
            found = json.loads(storage.read_bytes(uri))
        except ValueError:
            found = None
        if found != expected:
            yield Finding(place, "", "sizes", shown(found), shown(expected))


def check_orphans(target: Target, manifest: Manifest) -> Iterator[Finding]:
    """Files beside the shards that no manifest lists: a tar without receipt is wrong, the rest is a note."""
    for name in dict.fromkeys(shard.granularity for shard in target.shards):
        listed = {path for shard in manifest.shards(name) for path in (shard.path, shard.receipt)}
        files = storage.list_files(storage.join(target.uri, name, "*"))
        paths = {f"{name}/{storage.name_of(file.uri)}" for file in files}
        for path in sorted(paths - listed - {f"{name}/sizes.json"}):
            finding = _orphan(target, path, paths)
            if finding is not None:
                yield finding


def _orphan(target: Target, path: str, paths: set[str]) -> Finding | None:
    stem, _, ending = path.rpartition(".")
    expected = "files that dataset.json lists"
    if ending == "tar":
        if f"{stem}.parquet" not in paths:
            return Finding(path, "", "orphan", "a tar without receipt", expected)
        return Finding(path, "", "orphan", "a shard that is not published", expected, is_note=True)
    if ending == "parquet":
        receipt = read_receipt(storage.join(target.uri, path))
        if f"{stem}.tar" in paths or (receipt is not None and receipt.num_samples == 0):
            return None  # told with its tar; or the receipt of a shard all of whose samples were rejected
        return Finding(path, "", "orphan", "a receipt without tar that is not published", expected, is_note=True)
    return Finding(path, "", "orphan", "a file of no shard", expected, is_note=True)
