"""Takes old snapshots out of a data set: their shards first out of ``dataset.json``, then off the disk.

A retired snapshot keeps its number, recipe, accounts and tables, and lists no shards. Its clips stay known: what its
samples were made of is kept in ``tables/retired-{granularity}-{snapshot}.parquet``, which planning reads beside the
receipts, so nothing is built again. Files are removed when nothing names them any more: a process that dies in between
leaves files that nobody reads, and the next call removes them. The newest snapshot stays, and so does one whose samples
or media others need that stay: chosen by its age it is left out, chosen by its number it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.layout import Layout
from gex_pipeline.receipts import RECEIPT_SCHEMA
from gex_pipeline.run_lock import Lease, held
from gex_pipeline.run_state import command_to_finish, is_unfinished, read_state, stored_retry
from gex_pipeline.shards.manifest import GranularityEntry, Manifest, Snapshot, publish_sizes, read_manifest
from gex_pipeline.tables import Database


@dataclass(frozen=True)
class Retirement:
    """What was taken out, or would be."""

    snapshots: tuple[int, ...]
    num_shards: int
    num_samples: int
    num_bytes: int
    num_removed: int  # files that were removed, those of an earlier call that was cut off included
    is_dry_run: bool
    stays: tuple[str, ...] = ()  # snapshots of that age that others need, each with who needs it, in words

    @property
    def words(self) -> str:
        """In one sentence."""
        return "; ".join([self._words_of_retired, *self.stays])

    @property
    def _words_of_retired(self) -> str:
        if not self.snapshots:
            left = f"; {self.num_removed} files of earlier ones were left and are removed" if self.num_removed else ""
            return f"no snapshot to retire{left}"
        return (
            f"{'would retire' if self.is_dry_run else 'retired'} snapshots {_listed(self.snapshots)}: "
            f"{self.num_samples} samples in {self.num_shards} shards, {self.num_bytes} bytes"
        )


def retire_snapshots(
    output: str, older_than_days: float | None = None, snapshots: Sequence[int] = (), *, dry_run: bool = False
) -> Retirement:
    """Retire the snapshots that are so old, or have these numbers.

    Raises:
        GexError: a snapshot that was named is not there, is the newest, or is needed by another; a run is not finished.
    """
    output_uri = storage.absolute(output)
    if dry_run:
        return _retire(output_uri, older_than_days, snapshots, None)
    with held(Layout(output_uri), "retire") as lease:
        found = _retire(output_uri, older_than_days, snapshots, lease)
    if (found.snapshots or found.num_removed) and storage.exists(Layout(output_uri).report("report.html")):
        from gex_pipeline.report.build import build_report

        build_report(output_uri)
    return found


def _retire(
    output_uri: str, older_than_days: float | None, snapshots: Sequence[int], lease: Lease | None
) -> Retirement:
    """Retire under a hold on the output; without one only look what would be."""
    manifest = read_manifest(output_uri)
    if manifest is None:
        raise GexError(f"{output_uri} holds no data set")
    _check_finished(Layout(output_uri), manifest)
    chosen = _chosen(output_uri, manifest, older_than_days, snapshots)
    needs = _needs(output_uri, manifest, chosen)
    stays: tuple[str, ...] = ()
    if older_than_days is None:
        _check_not_needed(chosen, needs)
    else:
        chosen, stays = _without_needed(chosen, needs)
    num_removed = 0
    if lease is not None:
        for snapshot in chosen:
            _keep_parents(output_uri, snapshot)
        lease.check()  # a run that took over may have published since the manifest was read
        if chosen:
            manifest = _without(manifest, chosen)
            storage.publish_bytes(manifest.to_json(), Layout(output_uri).manifest)
        if any(snapshot.retired for snapshot in manifest.snapshots):  # also by a call that was cut off
            publish_sizes(Layout(output_uri), manifest)
        num_removed = _clear(output_uri, manifest)
    shards = [shard for snapshot in chosen for entry in snapshot.granularities.values() for shard in entry.shards]
    return Retirement(
        snapshots=tuple(snapshot.snapshot for snapshot in chosen),
        num_shards=len(shards),
        num_samples=sum(shard.num_samples for shard in shards),
        num_bytes=sum(shard.num_bytes for shard in shards),
        num_removed=num_removed,
        is_dry_run=lease is None,
        stays=stays,
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


def _needs(output_uri: str, manifest: Manifest, chosen: Sequence[Snapshot]) -> list[dict[str, Any]]:
    """Who needs what of the chosen snapshots: a row a snapshot, another that it needs, and a granularity of its own."""
    if not chosen:
        return []
    published = [
        (name, snapshot.snapshot, shard)
        for snapshot in manifest.snapshots
        for name, entry in snapshot.granularities.items()
        for shard in entry.shards
    ]
    with Database() as database:
        receipts = [storage.join(output_uri, shard.receipt) for _, _, shard in published]
        database.view_parquet("receipts", receipts, empty=RECEIPT_SCHEMA)
        return database.rows(
            "retire_needed",
            granularities=[name for name, _, _ in published],
            shards=[shard.number for _, _, shard in published],
            snapshots=[snapshot for _, snapshot, _ in published],
            tars=[shard.path for _, _, shard in published],
            going=[snapshot.snapshot for snapshot in chosen],
        )


def _check_not_needed(chosen: Sequence[Snapshot], needs: Sequence[dict[str, Any]]) -> None:
    """Refuse while a sample that stays was made of one that goes, or has its media in a shard that goes.

    Raises:
        GexError: who needs what.
    """
    going = {snapshot.snapshot for snapshot in chosen}
    if staying := [need for need in needs if need["snapshot"] not in going]:
        numbers = sorted({need["snapshot"] for need in staying})
        raise GexError(
            f"snapshots {_listed(going)} are still needed: {_in_words(staying[0])}. Retire {_listed(numbers)} with "
            "them, or none. Nothing was changed"
        )


def _without_needed(
    chosen: Sequence[Snapshot], needs: Sequence[dict[str, Any]]
) -> tuple[list[Snapshot], tuple[str, ...]]:
    """The chosen snapshots that none needs which stays, and of each of the others why it stays, too."""
    going = {snapshot.snapshot for snapshot in chosen}
    stays: dict[int, str] = {}
    while found := [need for need in needs if need["needed"] in going and need["snapshot"] not in going]:
        stays |= {need["needed"]: _in_words(need) for need in reversed(found)}
        going -= stays.keys()
    kept = tuple(f"snapshot {number} stays: {stays[number]}" for number in sorted(stays))
    return [snapshot for snapshot in chosen if snapshot.snapshot in going], kept


def _in_words(need: dict[str, Any]) -> str:
    what = "media lie" if need["num_media"] else "parents are"
    who = f"{need['num']} samples of {need['granularity']} in snapshot {need['snapshot']} (first {need['key']})"
    return f"{who}, whose {what} in snapshot {need['needed']}"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


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
    last = max((shard.number for shard in entry.shards), default=None)
    return replace(
        entry, shards=(), totals={name: type(value)() for name, value in entry.totals.items()}, last_shard=last
    )


def _clear(output_uri: str, manifest: Manifest) -> int:
    """Remove the files of retired shards that are still there; how many they were."""
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
