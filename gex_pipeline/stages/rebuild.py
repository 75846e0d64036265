"""Published shards that are damaged: found, and built again from their plans to the very bytes that were published.

Looking is cheap by default: a listing says whether tar and receipt are there and whether the tar has its size. With
`read_bytes` every tar is hashed and every receipt read. A rebuilt shard takes the old one's place only when its
SHA-256 is the published one; it is written like any shard, tar first, receipt last. Media that have moved since are
taken from where they lie now, as far as a later snapshot knows.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from gex_pipeline import storage
from gex_pipeline.clip_places import PLACES
from gex_pipeline.errors import GexError
from gex_pipeline.progress import Progress, progress
from gex_pipeline.ray_jobs import raise_failures, run_shards
from gex_pipeline.receipts import read_receipt
from gex_pipeline.run_state import Run, recipe_of
from gex_pipeline.shard_job import PublishedShard, ShardJob
from gex_pipeline.shards.manifest import ShardEntry
from gex_pipeline.tables import Database

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Damage:
    """A published shard that is not what was published."""

    granularity: str
    snapshot: int
    entry: ShardEntry
    what: str

    @property
    def words(self) -> str:
        """Which shard and what is wrong, for a person."""
        return f"{self.entry.path}: {self.what}"


def find_damaged(run: Run, *, read_bytes: bool = False) -> list[Damage]:
    """The damaged ones among the published shards, parents first."""
    found = []
    for granularity in run.manifest.granularity_names():
        files = storage.list_files(storage.join(run.layout.output_uri, granularity, "*"))
        sizes = {f"{granularity}/{storage.name_of(file.uri)}": file.num_bytes for file in files}
        shards = [
            (snapshot.snapshot, entry)
            for snapshot in run.manifest.snapshots
            if granularity in snapshot.granularities
            for entry in snapshot.granularities[granularity].shards
        ]
        wrong = [_wrong_at_sight(entry, sizes) for _, entry in shards]
        if read_bytes:
            whole = [entry for (_, entry), what in zip(shards, wrong, strict=True) if not what]
            report = progress()  # of this thread: the others would find none
            report.stage(f"{granularity} check bytes", len(whole), "shards")
            inside = iter(storage.for_each(partial(_wrong_inside, run, report), whole))
            wrong = [what or next(inside) for what in wrong]
        found += [
            Damage(granularity, number, entry, what)
            for (number, entry), what in zip(shards, wrong, strict=True)
            if what
        ]
    return found


def still_listed(run: Run, damaged: Sequence[Damage]) -> list[Damage]:
    """Those that are published still; of a snapshot that was retired meanwhile nothing is built again."""
    listed = {entry.path for name in run.manifest.granularity_names() for entry in run.manifest.shards(name)}
    return [damage for damage in damaged if damage.entry.path in listed]


def _wrong_at_sight(entry: ShardEntry, sizes: dict[str, int]) -> str:
    """What a listing shows, or nothing."""
    if entry.path not in sizes:
        return "missing"
    if sizes[entry.path] != entry.num_bytes:
        return f"{sizes[entry.path]} bytes instead of {entry.num_bytes}"
    return "" if entry.receipt in sizes else "receipt missing"


def _wrong_inside(run: Run, report: Progress, entry: ShardEntry) -> str:
    """What reading all of it shows, or nothing."""
    report.advance(1)
    receipt_uri = storage.join(run.layout.output_uri, entry.receipt)
    receipt = read_receipt(receipt_uri)
    if receipt is None or receipt.sha256 != entry.sha256:
        return "receipt unreadable" if receipt is None else "receipt of other bytes"
    content = storage.read_bytes(receipt_uri)
    try:
        num_rows = pq.read_table(pa.BufferReader(content)).num_rows
    except (pa.ArrowException, OSError):  # of content in memory: torn, not a failing disk
        return "receipt unreadable"
    if num_rows != entry.num_samples:
        return f"receipt with {num_rows} samples instead of {entry.num_samples}"
    digest = hashlib.sha256()
    with storage.open_read(storage.join(run.layout.output_uri, entry.path)) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return "" if digest.hexdigest() == entry.sha256 else "SHA-256 differs"


def rebuild(run: Run, damaged: Sequence[Damage]) -> None:
    """Build these shards again from the plans of their snapshots; parents come before what is made of them.

    Raises:
        GexError: what cannot be built again, when the others are: a plan or the media are gone, a recipe is refused,
        or what was built is not what was published. TransientError: at once, since the stage is tried again.
    """
    jobs: dict[tuple[str, int], list[Damage]] = defaultdict(list)
    for damage in damaged:
        progress().note(f"damaged  {damage.words}; it is built again")
        jobs[damage.granularity, damage.snapshot].append(damage)
    names = run.manifest.granularity_names()  # a later recipe may not have them all
    failures = []
    for granularity, snapshot in sorted(jobs, key=lambda job: (names.index(job[0]), job[1])):
        try:
            _rebuild_some(run, jobs[granularity, snapshot])
        except GexError as error:
            if error.transient:
                raise
            failures.append(error)
    if failures:
        raise GexError(". Also: ".join(str(error) for error in failures)) from failures[0]


def _rebuild_some(run: Run, damaged: Sequence[Damage]) -> None:
    granularity, snapshot = damaged[0].granularity, damaged[0].snapshot
    plan_uri = run.layout.table(f"plan-{granularity}", snapshot)
    if not storage.exists(plan_uri):
        raise GexError(f"{damaged[0].words}; it cannot be built again, since {plan_uri} is gone")
    try:
        recipe = recipe_of(run, snapshot)
    except GexError as error:
        shards = ", ".join(damage.entry.path for damage in damaged)
        raise GexError(
            f"{error}; put {shards} and what belongs to it back from a copy, or let that version build it"
        ) from error
    published = _published(run, plan_uri, damaged)
    samples = {damage.entry.number: damage.entry.num_samples for damage in damaged}
    report = progress()
    report.stage(f"{granularity} rebuild", sum(samples.values()), "samples")
    digest = _plan_digest(run, granularity, snapshot)
    with _plan_of_today(run, plan_uri, damaged) as plan_now:
        job = ShardJob(recipe, granularity, plan_now, digest, published)
        failures = run_shards(job, sorted(samples), run.recipe.ray, lambda done: report.advance(samples[done["shard"]]))
    raise_failures(granularity, failures, len(samples) - len(failures))


@contextmanager
def _plan_of_today(run: Run, plan_uri: str, damaged: Sequence[Damage]) -> Iterator[str]:
    """The plan; or, where media lie elsewhere now, by the tables or with the whole output, a copy that says where."""
    copy_uri = run.layout.part(f"rebuild-{damaged[0].granularity}", damaged[0].snapshot, "plan")
    with Database() as database:
        database.view_parquet("plan", [plan_uri])
        database.view_parquet("moved", run.previous_tables("media-moved"), empty=PLACES, numbered=True)
        output = run.layout.output_uri.rstrip("/") + "/"
        database.run("rebuild_plan", shards=[damage.entry.number for damage in damaged], output=output)
        is_copied = bool(database.value("SELECT count(*) FROM plan_now WHERE is_elsewhere"))
        if is_copied:
            database.publish_table("plan_now", copy_uri, "shard, key, position")
    try:
        yield copy_uri if is_copied else plan_uri
    finally:
        if is_copied:
            storage.remove(copy_uri)


def _published(run: Run, plan_uri: str, damaged: Sequence[Damage]) -> dict[int, PublishedShard]:
    """What the damaged shards of one plan were: their digests, and what they were built without."""
    granularity, snapshot = damaged[0].granularity, damaged[0].snapshot
    lost: dict[int, set[str]] = defaultdict(set)
    with Database() as database:
        database.view_parquet("plan", [plan_uri])
        database.view_parquet("losses", [run.layout.table("rejects", snapshot)])
        shards = [damage.entry.number for damage in damaged]
        for row in database.rows("rebuild_lost", granularity=granularity, shards=shards):
            lost[row["shard"]].add(row["id"])
    entries = [damage.entry for damage in damaged]
    return {entry.number: PublishedShard(entry.sha256, frozenset(lost[entry.number])) for entry in entries}


def _plan_digest(run: Run, granularity: str, snapshot: int) -> str:
    """What the receipts of a snapshot say of their run; nothing when none can be read."""
    for entry in run.manifest.snapshots[snapshot].granularities[granularity].shards:
        receipt = read_receipt(storage.join(run.layout.output_uri, entry.receipt))
        if receipt is not None:
            return receipt.plan_digest
    return ""
