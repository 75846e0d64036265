"""Verifies what no single shard shows: a target in, findings out. Receipts, tables and listings; no media.

Keys over all shards, summaries against their table and the texts they came from, segments against the clips,
parents that exist, ``sizes.json``, and files on disk that no manifest lists.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from gex_pipeline import storage
from gex_pipeline.layout import Layout
from gex_pipeline.receipts import read_receipt
from gex_pipeline.shards.findings import MOST_TOLD, Finding, rest, shown
from gex_pipeline.shards.manifest import Manifest
from gex_pipeline.shards.samples import Samples, snapshot_tables
from gex_pipeline.shards.source_clips import not_built_in
from gex_pipeline.shards.target import Target
from gex_pipeline.tables import sql_text


def verify_across(samples: Samples, target: Target) -> Iterator[Finding]:
    """What is wrong between the shards of all samples, as far as it concerns the shards of the target."""
    tars = [shard.name for shard in target.shards]
    asked = "CREATE OR REPLACE TEMP TABLE asked AS SELECT unnest($tars::VARCHAR[]) AS tar"
    samples.database.execute(asked, {"tars": tars})
    yield from check_duplicates(samples)
    yield from check_sources(samples)
    if target.manifest is not None:
        yield from check_tables(samples)
        yield from check_parents(samples)
        yield from check_sizes(target, target.manifest)
        yield from check_orphans(target, target.manifest)


Words = Callable[[dict[str, Any]], tuple[str, str]]


def _ask(
    samples: Samples, check: str, name: str, words: Words, where: str = "true", **values: Any
) -> Iterator[Finding]:
    """A finding a row of a question, found and expected in `words`: as many as are told, and the number of the rest."""
    rows = samples.database.query(
        f"SELECT *, count(*) OVER () AS num_in_all FROM ({sql_text(name)}\n) "
        f"WHERE {where} AND tar IN (SELECT tar FROM asked) "
        "QUALIFY row_number() OVER (PARTITION BY tar ORDER BY key) = 1 "
        "OR row_number() OVER (ORDER BY tar, key) <= $most_told",
        {**values, "most_told": MOST_TOLD},
    )
    for row in rows:
        yield Finding(row["tar"], row["key"], check, *words(row))
    if rows and rows[0]["num_in_all"] > len(rows):
        yield rest(check, rows[0]["num_in_all"] - len(rows))


def check_duplicates(samples: Samples) -> Iterator[Finding]:
    """A key stands in one place."""

    def words(row: dict[str, Any]) -> tuple[str, str]:
        return f"{row['num']} times: {', '.join(row['tars'])}", "once"

    return _ask(samples, "duplicate", "shards_duplicates", words)


def check_sources(samples: Samples) -> Iterator[Finding]:
    """A summary carries the digest of its parent's text; where the parent is not there, nothing can be said."""

    def words(row: dict[str, Any]) -> tuple[str, str]:
        return f"made from the text {row['found']}", f"the parent's text {row['expected']}"

    return _ask(samples, "summary", "shards_summary_sources", words, where="expected IS NOT NULL")


def check_tables(samples: Samples) -> Iterator[Finding]:
    """Summaries and segments say what the tables say."""

    def words(row: dict[str, Any]) -> tuple[str, str]:
        if row["what"] == "row":
            return "no row", "a row of the summaries table"
        return shown(row["found"]), shown(row["expected"])

    manifest = samples.target.manifest
    for name in manifest.granularity_names() if manifest else ():
        uris = snapshot_tables(samples.target, f"summaries-{name}")
        if not uris:
            continue
        samples.database.view_parquet("summaries", uris)
        yield from _ask(samples, "table", "shards_unlike_summaries", words, granularity=name)
    yield from _ask(
        samples,
        "table",
        "shards_unlike_clips",
        lambda row: (shown(f"clip {row['clip_id']}: {row['found']}"), shown(row["expected"])),
        not_built_in=sorted(not_built_in(manifest)) if manifest else [],
    )


def check_parents(samples: Samples) -> Iterator[Finding]:
    """What a sample was made of is published or an accepted clip."""

    def words(row: dict[str, Any]) -> tuple[str, str]:
        found = f"{len(row['parents'])} unknown: {', '.join(row['parents'])}"
        return shown(found), "published samples or accepted clips"

    return _ask(samples, "lineage", "shards_lost_parents", words)


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
