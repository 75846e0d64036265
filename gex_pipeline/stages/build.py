"""Plan a granularity's shards and build those that do not exist yet."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gex_pipeline import storage, timeline
from gex_pipeline.granularity import Node
from gex_pipeline.planning import operation_of, plan_node, publish_plan, use_clips
from gex_pipeline.progress import progress
from gex_pipeline.ray_jobs import raise_failures, run_shards
from gex_pipeline.receipts import read_receipt
from gex_pipeline.run_state import Run
from gex_pipeline.shard_format import Receipt
from gex_pipeline.shard_job import ShardJob
from gex_pipeline.tables import Database


@dataclass(frozen=True)
class PlannedShard:
    """One shard of the plan and how many samples it holds."""

    shard: int
    num_samples: int


def builds(run: Run, node: Node) -> bool:
    """Whether the node is written as shards."""
    return operation_of(run, node).builds_shards


def plan_shards(run: Run, node: Node) -> list[PlannedShard]:
    """The node's shards of this snapshot; planned once, read from the plan afterwards."""
    plan_uri = run.layout.table(f"plan-{node.name}", run.snapshot)
    if not storage.exists(plan_uri):
        progress().stage(f"{node.name} plan", None, "samples")
        with Database() as database:
            use_clips(database, run)
            _use_summaries(database, run, node)
            planned = plan_node(database, run, node)
            publish_plan(database, run, node)
        progress().advance(planned.num_samples)
    return _shards_of(plan_uri, run.run_id)


@lru_cache(maxsize=64)
def _shards_of(plan_uri: str, _run_id: str) -> list[PlannedShard]:
    """The shards of a written plan; asked for by every later stage, and the plan of a large run is large."""
    with Database() as database:
        database.view_parquet("plan", [plan_uri])
        return [PlannedShard(**row) for row in database.rows("plan_of_shards")]


def _use_summaries(database: Database, run: Run, node: Node) -> None:
    if operation_of(run, node).needs_summaries:
        # This run's alone: it summarised every parent it thinks about, also those tried again, of which an earlier
        # snapshot has a summary as well.
        database.view_parquet("summaries", [run.layout.table(f"summaries-{node.name}", run.snapshot)])


def stored_sizes(run: Run, node: Node) -> dict[str, int]:
    """Bytes of each file beside the node's shards, by its name: one listing, where asking is a request a shard."""
    files = storage.list_files(storage.join(run.layout.output_uri, node.name, "*"))
    return {storage.name_of(file.uri): file.num_bytes for file in files}


def is_built(run: Run, receipt: Receipt | None, tar_bytes: int | None) -> bool:
    """Whether this run has finished a shard: its receipt is there and the tar has the size it says."""
    if receipt is None or receipt.plan_digest != run.run_id:
        return False
    return receipt.num_samples == 0 or tar_bytes == receipt.num_bytes


def build_shards(run: Run, node: Node) -> int:
    """Build the planned shards that do not exist; returns how many were built now.

    Raises:
        GexError: shards failed, and trying again will not help (TransientError: it may).
    """
    planned = plan_shards(run, node)
    sizes = stored_sizes(run, node)

    def is_done(entry: PlannedShard) -> bool:
        uri, tar = run.layout.receipt(node.name, entry.shard), run.layout.tar(node.name, entry.shard)
        is_there = storage.name_of(uri) in sizes
        return is_there and is_built(run, read_receipt(uri), sizes.get(storage.name_of(tar)))

    done = storage.for_each(is_done, planned)
    pending = {entry.shard: entry for entry, is_there in zip(planned, done, strict=True) if not is_there}
    if not pending:
        return 0
    report = progress()
    report.stage(f"{node.name} build", sum(entry.num_samples for entry in pending.values()), "samples")

    def on_done(result: dict[str, Any]) -> None:
        report.advance(pending[result["shard"]].num_samples)
        timeline.add_shard(result)

    plan_uri = run.layout.table(f"plan-{node.name}", run.snapshot)
    job = ShardJob(run.recipe, node.name, plan_uri, plan_digest=run.run_id, run_id=run.run_id)
    failures = run_shards(job, sorted(pending), run.recipe.ray, on_done)
    raise_failures(node.name, failures, len(pending) - len(failures))
    return len(pending)
