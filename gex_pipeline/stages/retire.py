"""Takes old snapshots out of a data set: their shards first out of ``dataset.json``, then off the disk.

A retired snapshot keeps its number, recipe, accounts and tables, and lists no shards. Its clips stay known: what its
samples were made of is kept in ``tables/retired-{granularity}-{snapshot}.parquet``, which planning reads beside the
receipts, so nothing is built again. Files are removed when nothing names them any more: a process that dies in between
leaves files that nobody reads, and the next call removes them. The newest snapshot stays, and so does one whose samples
or media others need.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.layout import Layout
from gex_pipeline.run_lock import held
from gex_pipeline.run_state import command_to_finish, is_unfinished, read_state, stored_retry
from gex_pipeline.shards.manifest import GranularityEntry, Manifest, ShardEntry, Snapshot, read_manifest
from gex_pipeline.tables import Database

_NO_RECEIPTS = (
    "SELECT '' AS granularity, 0::BIGINT AS shard, '' AS key, []::VARCHAR[] AS parents, ''::VARCHAR AS media_uri"
)


@dataclass(frozen=True)
class Retirement:
    """What was taken out, or would be."""

    snapshots: tuple[int, ...]
    num_shards: int
    num_samples: int
    num_bytes: int
    num_removed: int  # files that were removed, those of an earlier call that was cut off included
    is_dry_run: bool

    @property
    def words(self) -> str:
        """In one sentence."""
        if not self.snapshots:
            left = f"; {self.num_removed} files of earlier ones were left and are removed" if self.num_removed else ""
            return f"no snapshot to retire{left}"
        numbers = ", ".join(map(str, self.snapshots))
        return (
            f"{'would retire' if self.is_dry_run else 'retired'} snapshots {numbers}: {self.num_samples} samples in "
            f"{self.num_shards} shards, {self.num_bytes} bytes"
        )


def retire_snapshots(
    output: str, older_than_days: float | None = None, snapshots: Sequence[int] = (), *, dry_run: bool = False
) -> Retirement:
    """Retire the snapshots that are so old, or have these numbers.

    Raises:
        GexError: a snapshot is not there, is the newest, or is needed by another; a run is not finished.
    """
    output_uri = storage.absolute(output)
    if dry_run:
        return _retire(output_uri, older_than_days, snapshots, dry_run=True)
    with held(Layout(output_uri), "retire") as lease:
        lease.check()
        found = _retire(output_uri, older_than_days, snapshots, dry_run=False)
    if (found.snapshots or found.num_removed) and storage.exists(Layout(output_uri).report("report.html")):
        from gex_pipeline.report.build import build_report

        build_report(output_uri)
    return found


def _retire(output_uri: str, older_than_days: float | None, snapshots: Sequence[int], *, dry_run: bool) -> Retirement:
    manifest = read_manifest(output_uri)
    if manifest is None:
        raise GexError(f"{output_uri} holds no data set")
    _check_finished(Layout(output_uri), manifest)
    chosen = _chosen(output_uri, manifest, older_than_days, snapshots)
    _check_not_needed(output_uri, manifest, chosen)
    if chosen and not dry_run:
        for snapshot in chosen:
            _keep_parents(output_uri, snapshot)
        manifest = _without(manifest, chosen)
        storage.publish_bytes(manifest.to_json(), Layout(output_uri).manifest)
    num_removed = 0 if dry_run else _clear(output_uri, manifest)
    shards = [shard for snapshot in chosen for entry in snapshot.granularities.values() for shard in entry.shards]
    return Retirement(
        snapshots=tuple(snapshot.snapshot for snapshot in chosen),
        num_shards=len(shards),
        num_samples=sum(shard.num_samples for shard in shards),
        num_bytes=sum(shard.num_bytes for shard in shards),
        num_removed=num_removed,
        is_dry_run=dry_run,
    )


def _check_finished(layout: Layout, manifest: Manifest) -> None:
    """A run that was begun has plans over the samples that are there."""
    state = read_state(layout)
    if state is not None and is_unfinished(state, manifest):
        give_up = f", or give it up: gex run {layout.output_uri}" if stored_retry(state) else ""
        raise GexError(
            f"snapshot {state['snapshot']} of {layout.output_uri} is begun and not finished "
            f"(stage {state['stage']!r}); finish it first: {command_to_finish(state, layout.output_uri)}{give_up}"
        )


def _chosen(
    output_uri: str, manifest: Manifest, older_than_days: float | None, snapshots: Sequence[int]
) -> list[Snapshot]:
    """The snapshots to retire, without those that are retired already."""
    last = len(manifest.snapshots) - 1
    for number in snapshots:
        if not 0 <= number <= last:
            raise GexError(f"{output_uri} has no snapshot {number}; it has 0 to {last}")
        if number == last:
            raise GexError(f"snapshot {number} is the newest of {output_uri}, which is never retired")
    chosen = [manifest.snapshots[number] for number in sorted(set(snapshots))]
    if older_than_days is not None:
        before = datetime.now(UTC) - timedelta(days=older_than_days)
        chosen = [one for one in manifest.snapshots[:-1] if datetime.fromisoformat(one.created) < before]
    return [snapshot for snapshot in chosen if snapshot.retired is None]


def _check_not_needed(output_uri: str, manifest: Manifest, chosen: Sequence[Snapshot]) -> None:
    """Refuse while a sample that stays was made of one that goes, or has its media in a shard that goes.

    Raises:
        GexError: who needs what.
    """
    going = [shard for snapshot in chosen for shard in _shards(snapshot)]
    if not going:
        return
    kept = {
        (name, _number(shard)): snapshot.snapshot
        for snapshot in manifest.snapshots
        if snapshot not in chosen
        for name, entry in snapshot.granularities.items()
        for shard in entry.shards
    }
    receipts = [
        storage.join(output_uri, shard.receipt)
        for snapshot in manifest.snapshots
        if snapshot not in chosen
        for shard in _shards(snapshot)
    ]
    with Database() as database:
        database.view_parquet("going", [storage.join(output_uri, shard.receipt) for shard in going])
        database.view_parquet("kept", receipts, empty=_NO_RECEIPTS)
        needing = database.rows("retire_needed", tars=[shard.path for shard in going])
    if needing:
        first = needing[0]
        what = "media lie in shards of" if first["num_media"] else "parents are in"
        number = kept[(first["granularity"], first["shard"])]
        raise GexError(
            f"snapshots {', '.join(str(one.snapshot) for one in chosen)} are still needed: {first['num']} samples of "
            f"{first['granularity']} in snapshot {number} (first {first['key']}), whose {what} them, and "
            f"{len(needing) - 1} more shards. Retire snapshot {number} with them, or none. Nothing was changed"
        )


def _keep_parents(output_uri: str, snapshot: Snapshot) -> None:
    """Write what the samples of a snapshot were made of, before their receipts go."""
    for name, entry in snapshot.granularities.items():
        if not entry.shards:
            continue
        with Database() as database:
            database.view_parquet("going", [storage.join(output_uri, shard.receipt) for shard in entry.shards])
            database.run("retire_parents")
            database.publish_table("retired", _parents_uri(output_uri, name, snapshot), "shard, key")


def _parents_uri(output_uri: str, granularity: str, snapshot: Snapshot) -> str:
    return Layout(output_uri).table(f"retired-{granularity}", snapshot.snapshot)


def _without(manifest: Manifest, chosen: Sequence[Snapshot]) -> Manifest:
    """The manifest after the retirement."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    numbers = {snapshot.snapshot for snapshot in chosen}
    return replace(
        manifest,
        snapshots=tuple(_retired(one, now) if one.snapshot in numbers else one for one in manifest.snapshots),
    )


def _retired(snapshot: Snapshot, now: str) -> Snapshot:
    tables = [
        f"tables/retired-{name}-{snapshot.snapshot:06d}.parquet"
        for name, entry in snapshot.granularities.items()
        if entry.shards
    ]
    return replace(
        snapshot,
        retired=now,
        granularities={name: _emptied(entry) for name, entry in snapshot.granularities.items()},
        tables=tuple(sorted({*snapshot.tables, *tables})),
    )


def _emptied(entry: GranularityEntry) -> GranularityEntry:
    """An entry that lists nothing, so that whoever adds up totals counts what is there."""
    last = max((_number(shard) for shard in entry.shards), default=None)
    return replace(
        entry, shards=(), totals={name: type(value)() for name, value in entry.totals.items()}, last_shard=last
    )


def _clear(output_uri: str, manifest: Manifest) -> int:
    """Remove the files of retired shards that are still there, and write ``sizes.json`` again; the files removed."""
    removed = 0
    for name in manifest.granularity_names():
        tables = [
            _parents_uri(output_uri, name, one)
            for one in manifest.snapshots
            if one.retired and name in one.granularities
        ]
        tables = [uri for uri in tables if storage.exists(uri)]
        if not tables:
            continue
        shards = manifest.shards(name)
        sizes = {storage.name_of(shard.path): shard.num_samples for shard in shards}
        storage.publish_bytes(json.dumps(sizes, indent=1).encode() + b"\n", Layout(output_uri).sizes(name))
        going = list(_left(output_uri, name, tables))
        storage.for_each(storage.remove, going)
        removed += len(going)
    return removed


def _left(output_uri: str, granularity: str, tables: Sequence[str]) -> Iterator[str]:
    """Files of retired shards that are there, tars first."""
    layout = Layout(output_uri)
    there = {file.uri for file in storage.list_files(storage.join(output_uri, granularity, "*"))}
    with Database() as database:
        database.view_parquet("retired", list(tables))
        shards = [row["shard"] for row in database.rows("retire_shards")]
    for place in (layout.tar, layout.receipt):
        yield from (uri for shard in shards if (uri := place(granularity, shard)) in there)


def _shards(snapshot: Snapshot) -> Iterator[ShardEntry]:
    for entry in snapshot.granularities.values():
        yield from entry.shards


def _number(shard: ShardEntry) -> int:
    return int(storage.name_of(shard.receipt).removesuffix(".parquet").rpartition("-")[2])
