"""Verifies a whole target on all cores: what it names in, all findings out, in a fixed order.

A worker process a core, each with one shard at a time; a worker that dies over a shard (a decoder can crash on a
damaged video) is a finding of that shard. Of the tables that the manifest lists, the footers are read. Changes nothing.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack

import pyarrow as pa
import pyarrow.parquet as pq

from gex_pipeline import storage
from gex_pipeline.cores import num_cores
from gex_pipeline.errors import GexError, TransientError
from gex_pipeline.progress import progress
from gex_pipeline.shards.across import verify_across
from gex_pipeline.shards.checks import verify_shard
from gex_pipeline.shards.findings import Finding, ShardCheck, Told, shown
from gex_pipeline.shards.samples import open_samples
from gex_pipeline.shards.source_clips import SourceClips, sorted_clips
from gex_pipeline.shards.target import Target
from gex_pipeline.tables import DatabaseError

Runner = Callable[[Sequence[ShardCheck]], Iterable[list[Finding]]]


def verify(target: Target, everything: Target, runner: Runner, *, is_deep: bool = False) -> list[Finding]:
    """The findings about a target; `everything` is the target without filters, where parents are looked up.

    `runner` verifies the shards one by one, here or elsewhere: `on_cores`, or a Ray job.
    """
    told = Told()
    told.add(check_table_files(everything))
    with ExitStack() as stack:
        clips = _clips(target, stack, told) if is_deep and target.manifest is not None else None
        checks = shard_checks(target, clips, is_deep=is_deep)
        progress().stage("verify", len(checks), "shards")
        for found in runner(checks):
            told.add(found)
            progress().advance(1)
    try:
        with open_samples(everything) as samples:
            for finding in verify_across(samples, target):
                told.add([finding])
    except TransientError:
        raise
    except GexError as error:
        told.add([Finding(everything.uri, "", "tables", shown(str(error)), "readable receipts and tables")])
    return told.in_order()


def check_table_files(target: Target) -> list[Finding]:
    """The tables that the manifest lists, those of retired snapshots with them, are there and have whole footers.

    Raises:
        TransientError: storage failed in a way that may pass.
    """
    if target.manifest is None:
        return []
    listed = {path: entry.snapshot for entry in target.manifest.snapshots for path in entry.tables}
    wrong = storage.for_each(lambda path: _wrong_table(storage.join(target.uri, path)), listed)
    return [
        Finding(path, "", "table", shown(found), f"a table of snapshot {snapshot}")
        for (path, snapshot), found in zip(listed.items(), wrong, strict=True)
        if found
    ]


def _wrong_table(uri: str) -> str:
    """What is wrong with a table's file, or nothing; a small read or two at its end."""
    if not storage.exists(uri):
        return "missing"
    try:
        with storage.open_read(uri) as stream:
            try:
                pq.read_metadata(stream)
            except (pa.ArrowException, OSError) as error:
                if getattr(error, "errno", None) is not None:
                    raise  # of the disk; Arrow's word for a torn footer has no number
                return f"damaged: {str(error).splitlines()[0]}"
    except TransientError:
        raise
    except GexError as error:
        return f"unreadable: {error}"
    return ""


def shard_checks(target: Target, clips: Sequence[SourceClips] | None, *, is_deep: bool = False) -> list[ShardCheck]:
    """What is to be verified of each shard; `clips` are those of the shards in their order."""
    is_cut = False
    if target.manifest is not None and target.manifest.snapshots:
        source = target.manifest.snapshots[-1].recipe.get("source", {})
        is_cut = source.get("media", {}).get("kind") == "videos"
    uri = target.uri if target.manifest else ""
    return [
        ShardCheck(shard, uri, clips[number] if clips else None, is_cut, is_deep)
        for number, shard in enumerate(target.shards)
    ]


def _clips(target: Target, stack: ExitStack, told: Told) -> list[SourceClips] | None:
    """The source clips of each shard; none, and a finding, where their tables cannot be read."""
    try:
        return stack.enter_context(sorted_clips(target))
    except TransientError:
        raise
    except (DatabaseError, GexError) as error:
        found = f"joints are not compared: {str(error).splitlines()[0]}"
        told.add([Finding(target.uri, "", "tables", shown(found), "readable tables of clips")])
        return None


def on_cores(checks: Sequence[ShardCheck], num_workers: int | None = None) -> Iterator[list[Finding]]:
    """Verify on this machine's cores, in this process where one worker is enough."""
    num_workers = min(num_workers or num_cores(), len(checks))
    if num_workers <= 1:
        yield from map(verify_shard, checks)
        return
    left: list[ShardCheck] = []
    with _pool(num_workers) as pool:
        futures = {pool.submit(verify_shard, check): check for check in checks}
        for future in as_completed(futures):
            try:
                yield future.result()
            except BrokenProcessPool:  # says nothing about which shard it was
                left.append(futures[future])
    for check in left:
        with _pool(1) as pool:
            try:
                yield pool.submit(verify_shard, check).result()
            except BrokenProcessPool:
                yield [Finding(check.shard.name, "", "crash", "the process that read it died", "a readable shard")]


def _pool(num_workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn"))
