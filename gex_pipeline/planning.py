"""Which parents become which samples in which shards: decided in DuckDB before a byte is read.

`plan_node` makes the views ``plan`` (a row a parent inside a sample) and ``excluded``. Parents are the
clips, or the samples of another granularity: published and built ones in a run, planned ones when a
person only asks what would happen.
"""

from __future__ import annotations

from dataclasses import dataclass

from gex_pipeline import registry, storage
from gex_pipeline.barred import bar_clips, bar_samples, can_bar
from gex_pipeline.clip_places import view_known_now, view_placed
from gex_pipeline.errors import RecipeError
from gex_pipeline.granularity import Node
from gex_pipeline.ingest import OURS, clip_tables, input_name
from gex_pipeline.operations.base import Operation
from gex_pipeline.receipts import RECEIPT_SCHEMA, read_receipt
from gex_pipeline.rejects import find_retried
from gex_pipeline.run_state import Run
from gex_pipeline.tables import Database, identifier, literal

# A planning figure where nothing is measured: 320x180 H.264 at quality 22 takes about this much.
_TYPICAL_BYTES_A_SECOND = 40_000
_SIZED_FILES = 64
_NO_SUMMARIES = "NULL::VARCHAR AS new_text, NULL::VARCHAR AS source_text_digest, NULL::VARCHAR AS scores"
_FRAMES_FACTS = ("frames", "frames_offset_bytes", "frames_size_bytes")
_NO_STAMP = "NULL::VARCHAR"


@dataclass(frozen=True)
class NodePlan:
    """What one granularity's plan comes to; new work only."""

    granularity: str
    operation: str
    parent: str | None
    num_parents: int
    num_samples: int
    num_members: int
    num_shards: int
    duration_s: float
    estimated_bytes: int
    left_out: dict[str, int]  # reason -> parents


def operation_of(run: Run, node: Node) -> Operation:
    """The node's operation with its settings."""
    operation: Operation = registry.load_operation(node.operation)(run.recipe, node.name)
    return operation


def use_clips(database: Database, run: Run) -> None:
    """Make the view ``clips`` over the clips tables of all snapshots and this run."""
    found = [uri for uri in clip_tables(run) if storage.exists(uri)]
    moved = run.layout.table("media-moved", run.snapshot)
    tables = [*run.previous_tables("media-moved"), *([moved] if storage.exists(moved) else [])]
    view_placed(database, "clips", found, tables)


def view_clips(database: Database, run: Run) -> None:
    """Make the view ``clips`` while the run's own clips are not written yet (a dry run)."""
    before = ""
    if run.previous_tables("clips"):
        view_known_now(database)
        before = "SELECT * FROM known_now UNION ALL BY NAME "
    database.execute(f"CREATE OR REPLACE TEMP VIEW clips AS {before}SELECT * FROM clips_new")


def plan_node(database: Database, run: Run, node: Node, *, planned_parents: bool = False) -> NodePlan:
    """Plan the new samples of one granularity.

    With `planned_parents` (a dry run), parents that are samples come from what is published and from the plan of
    their granularity, of which every sample is taken to succeed, and not from what this run has built.
    """
    operation = operation_of(run, node)
    _unsettled(database, run, node, planned=planned_parents, summarised=operation.needs_summaries)
    _bar(database, run, node)
    database.drop("sessions", "parts")  # tables or views, as the operation before needed them
    database.execute("CREATE OR REPLACE TEMP TABLE overlapping (id VARCHAR)")
    bytes_a_second = measured_bytes_a_second(database, run) if operation.bytes_a_sample is None else 0.0
    operation.group(database)
    database.run(
        "plan_shards",
        max_samples=run.recipe.shards.max_samples,
        max_bytes=run.recipe.shards.max_bytes,
        bytes_per_s=bytes_a_second,
        min_sample_bytes=operation.bytes_a_sample or 1,
        more_bytes=_bytes_beside(operation),
        first_shard=first_shard(run, node.name),
    )
    database.run("plan_placed")
    database.drop("parts", "sessions", "ordered", "groups")  # what is written next needs the memory
    database.run("plan_members")
    database.run("plan_left_out", granularity=node.name, has_groups=operation.group_by is not None)
    database.run("plan_excluded")
    if planned_parents:
        _remember_planned(database, run, node)
    return _summary(database, node, bytes_a_second, operation)


def _bytes_beside(operation: Operation) -> int:
    """Estimated bytes of a sample that its video does not take: of the frames beside it."""
    return operation.frames_bytes if operation.bytes_a_sample is None else 0


def _summary(database: Database, node: Node, bytes_a_second: float, operation: Operation) -> NodePlan:
    bytes_a_sample = operation.bytes_a_sample
    (totals,) = database.rows("plan_totals")
    left_out = database.query("SELECT reason, count(*) AS n FROM excluded GROUP BY reason ORDER BY n DESC, reason")
    size = totals["duration_s"] * bytes_a_second if bytes_a_sample is None else totals["num_samples"] * bytes_a_sample
    size += totals["num_samples"] * _bytes_beside(operation)
    return NodePlan(
        granularity=node.name,
        operation=node.operation,
        parent=node.parent,
        num_parents=database.count("parents") + database.count("barred"),
        num_samples=totals["num_samples"],
        num_members=totals["num_members"],
        num_shards=totals["num_shards"],
        duration_s=totals["duration_s"],
        estimated_bytes=int(size),
        left_out={row["reason"]: row["n"] for row in left_out},
    )


def first_shard(run: Run, granularity: str) -> int:
    """The first free shard number: one past those that are, or were, published."""
    numbers = [shard.number for shard in run.manifest.shards(granularity)]
    for entry in run.manifest.snapshots:
        if granularity in entry.granularities and (retired := entry.granularities[granularity].last_shard) is not None:
            numbers.append(retired)
    return max(numbers, default=-1) + 1


def view_parents(database: Database, run: Run, node: Node) -> None:
    """Make the view ``parents``: what this snapshot has to account for in one granularity, whatever its plan says."""
    _unsettled(database, run, node, planned=False, summarised=False)
    database.execute("CREATE OR REPLACE TEMP VIEW parents AS SELECT * FROM unsettled")


def _unsettled(database: Database, run: Run, node: Node, *, planned: bool, summarised: bool) -> None:
    """Make the view ``unsettled``: everything the node can be made of and was not made of yet."""
    _settled(database, run, node)
    group = operation_of(run, node).group_by
    if _is_of_clips(run, node):
        select = _clip_parents(database, run, group)
    elif planned:
        select = _planned_parents(database, run, _parent(run, node), group)
    else:
        parent = _parent(run, node)
        select = _sample_parents(database, run, current_receipts(run, parent.name), group, summarised)
    # Against an empty table, DuckDB would hash every parent to look for nothing.
    new = "NOT EXISTS (SELECT 1 FROM settled AS s WHERE s.id = p.id)" if database.count("settled") else "true"
    database.execute(f"CREATE OR REPLACE TEMP VIEW unsettled AS SELECT * FROM ({select}) AS p WHERE {new}")


def _parent(run: Run, node: Node) -> Node:
    return node if node.is_source else run.recipe.graph.nodes[node.parent or ""]


def _is_of_clips(run: Run, node: Node) -> bool:
    """Whether the node's parents are clips; summaries are of samples, also of packed clips."""
    return _parent(run, node).is_source and not operation_of(run, node).needs_summaries


def _bar(database: Database, run: Run, node: Node) -> None:
    """Make the view ``parents``: what is unsettled and not ``barred`` by the recipe's predicate."""
    # of a dry run's samples only published ones are asked: what is planned is planned of clips that are not barred
    is_any = bar_clips(database, run) if _is_of_clips(run, node) else bar_samples(database, run)
    passes = "NOT EXISTS (SELECT 1 FROM barred AS b WHERE b.id = p.id)" if is_any else "true"
    database.execute(f"CREATE OR REPLACE TEMP VIEW parents AS SELECT * FROM unsettled AS p WHERE {passes}")


def _settled(database: Database, run: Run, node: Node) -> None:
    """Parents that are (or were) used in a published sample, or stand rejected and are not tried again."""
    database.view_parquet("published", run.published_receipts(node.name), empty=RECEIPT_SCHEMA, is_alike=True)
    database.view_parquet("retired", run.previous_tables(f"retired-{node.name}"), empty=RECEIPT_SCHEMA)
    find_retried(database, run)
    database.run("plan_settled", granularity=node.name)


def _clip_parents(database: Database, run: Run, group: str | None) -> str:
    cut = "true" if run.recipe.source.media.kind == "videos" else "false"
    stamp = "media_stamp" if "media_stamp" in database.columns("clips") else _NO_STAMP
    return (
        f"SELECT clip_id AS id, {_group_column(database, group, 'clips')} AS group_value, source_id, start_s, end_s, "
        "end_s - start_s AS duration_s, text, NULL::VARCHAR AS segments, NULL::VARCHAR AS facts, media_uri, "
        f"media_offset_bytes, media_size_bytes, {stamp} AS media_stamp, {cut} AS media_cut, {_NO_SUMMARIES} FROM clips"
    )


def _group_column(database: Database, group: str | None, table: str) -> str:
    if group is None:
        return "''"  # not NULL, which says that the metadata have no value to group by
    if group == "source_id":
        return "source_id"
    # What the metadata call like a column of ours is stored beside it; ours says another thing than they mean.
    known = {input_name(name).lower(): name for name in database.columns(table) if name.lower() not in OURS}
    if group.lower() not in known:
        names = ", ".join(["source_id", *map(input_name, known.values())])
        raise RecipeError(f"by = {group!r} is not a column of the metadata; there are: {names}")
    return f"nullif({identifier(known[group.lower()])}::VARCHAR, '')"


def _planned_parents(database: Database, run: Run, parent: Node, group: str | None) -> str:
    """Parents of a dry run that are samples: those that it has planned, and the published ones."""
    published = _sample_parents(database, run, run.published_receipts(parent.name), group, summarised=False)
    value, join = _value_of_samples(database, group, identifier(f"clips_of_{parent.name}"))
    return (
        f"SELECT s.key AS id, {value} AS group_value, s.source_id, s.start_s, s.end_s, s.duration_s, '' AS text, "
        f"NULL::VARCHAR AS segments, NULL::VARCHAR AS facts, '' AS media_uri, NULL::BIGINT AS media_offset_bytes, "
        f"NULL::BIGINT AS media_size_bytes, {_NO_STAMP} AS media_stamp, false AS media_cut, {_NO_SUMMARIES} "
        f"FROM {identifier(f'planned_{parent.name}')} AS s {join} UNION ALL BY NAME "
        f"SELECT * REPLACE (NULL::VARCHAR AS segments, NULL::VARCHAR AS facts) FROM ({published})"
    )


def _remember_planned(database: Database, run: Run, node: Node) -> None:
    """Keep the planned samples as parents of the granularities made from them."""
    database.execute(
        f"CREATE OR REPLACE TEMP TABLE {identifier(f'planned_{node.name}')} AS "
        f"SELECT m.key, {operation_of(run, node).planned_source} AS source_id, min(m.start_s) AS start_s, "
        "max(m.end_s) AS end_s, sum(m.duration_s) AS duration_s FROM plan AS m GROUP BY m.key"
    )
    if any(operation_of(run, other).group_by not in (None, "source_id") for other in run.recipe.graph.nodes.values()):
        _remember_clips(database, run, node)


def _remember_clips(database: Database, run: Run, node: Node) -> None:
    """Keep which clips are in the planned and in the published samples, since a column of theirs groups samples."""
    planned = "SELECT key, id AS clip_id FROM plan"
    if not _is_of_clips(run, node):
        of_parent = identifier(f"clips_of_{_parent(run, node).name}")
        planned = f"SELECT m.key, c.clip_id FROM plan AS m JOIN {of_parent} AS c ON c.key = m.id"
    database.view_parquet("of_samples", run.published_receipts(node.name), empty=RECEIPT_SCHEMA, is_alike=True)
    database.execute(
        f"CREATE OR REPLACE TEMP TABLE {identifier(f'clips_of_{node.name}')} AS "
        f"{planned} UNION ALL SELECT key, unnest(segments).clip_id FROM of_samples"
    )


def _value_of_samples(database: Database, group: str | None, clips_of: str) -> tuple[str, str]:
    """What the samples ``s`` are grouped by, and a join that it needs; `clips_of` is a table (key, clip_id).

    A sample has a column's value where all its clips have it: a sample of two channels is of neither.
    """
    if group in (None, "source_id"):
        return "s.source_id", ""
    column = _group_column(database, group, "clips")
    return "of_group.value", (
        "LEFT JOIN (SELECT o.key, CASE WHEN count(c.value) = count(*) AND min(c.value) = max(c.value) "
        f"THEN min(c.value) END AS value FROM {clips_of} AS o "
        f"LEFT JOIN (SELECT clip_id, {column} AS value FROM clips) AS c USING (clip_id) "
        "GROUP BY o.key) AS of_group ON of_group.key = s.key"
    )


def _sample_parents(database: Database, run: Run, receipts: list[str], group: str | None, summarised: bool) -> str:
    """Parents that are samples, by their receipts."""
    database.view_parquet("samples", receipts, empty=RECEIPT_SCHEMA, is_alike=True)
    clips_of = "(SELECT key, unnest(segments).clip_id AS clip_id FROM samples)"
    value, of_group = _value_of_samples(database, group, clips_of)
    summaries, join = _NO_SUMMARIES, ""
    if summarised:
        summaries = "t.text AS new_text, t.source_digest AS source_text_digest, t.scores"
        join = "JOIN summaries AS t ON t.parent_id = s.key AND t.source_digest = s.text_digest"
    frames = "".join(f", {name}: s.{name}" for name in _FRAMES_FACTS)
    return (
        f"SELECT s.key AS id, {value} AS group_value, s.source_id, s.segments[1].start_s AS start_s, "
        "s.segments[-1].end_s AS end_s, s.duration_s, s.text, s.segments, "
        "to_json({duration_s: s.duration_s, width_px: s.width_px, height_px: s.height_px, fps: s.fps, "
        f"codec: s.codec, media_extension: s.media_extension{frames}}})::VARCHAR AS facts, "
        f"{literal(run.layout.output_uri.rstrip('/') + '/')} || s.media_uri AS media_uri, s.media_offset_bytes, "
        f"s.media_size_bytes, {_NO_STAMP} AS media_stamp, false AS media_cut, {summaries} FROM samples AS s "
        f"{of_group} {join}"
    )


def find_long_texts(database: Database, run: Run, node: Node) -> None:
    """Make the table ``long_texts``: the parents of a `compress_text` node that this run summarises.

    Narrow: the summary's key, the parent's, and its rank by key; the rest is in the view ``samples``.
    """
    database.view_parquet("samples", current_receipts(run, node.parent or ""), empty=RECEIPT_SCHEMA, is_alike=True)
    _settled(database, run, node)
    if can_bar(run):
        use_clips(database, run)
    bar_samples(database, run)
    database.run("summarise_texts", granularity=node.name)


def current_receipts(run: Run, granularity: str) -> list[str]:
    """The receipts that count: those of published shards, and those that this very run has built."""
    published = run.published_receipts(granularity)
    found = [file.uri for file in storage.list_files(f"{run.layout.output_uri}/{granularity}/*.parquet")]
    known = set(published)
    new = [uri for uri in found if uri not in known]
    receipts = zip(new, storage.for_each(read_receipt, new), strict=True)
    return published + [uri for uri, receipt in receipts if receipt and receipt.plan_digest == run.run_id]


def measured_bytes_a_second(database: Database, run: Run) -> float:
    """Bytes of media a second of clip, from the index or from the sizes of a few files; a typical figure if unknown."""
    (indexed,) = database.query(
        "SELECT sum(media_size_bytes) AS size, sum(end_s - start_s) AS seconds FROM clips "
        "WHERE media_size_bytes IS NOT NULL"
    )
    if indexed["seconds"]:
        return float(indexed["size"]) / float(indexed["seconds"])
    if run.recipe.source.media.kind == "videos":
        return _TYPICAL_BYTES_A_SECOND
    size, seconds = 0, 0.0
    for row in database.query(
        f"SELECT media_uri, end_s - start_s AS seconds FROM clips ORDER BY clip_id LIMIT {_SIZED_FILES}"
    ):
        if (found := storage.info(row["media_uri"])) is not None:
            size, seconds = size + found.num_bytes, seconds + row["seconds"]
    return size / seconds if seconds else _TYPICAL_BYTES_A_SECOND


def publish_plan(database: Database, run: Run, node: Node) -> None:
    """Write the node's plan and what it leaves out; the plan last, since it says that both are there."""
    database.publish_table("excluded", run.layout.table(f"excluded-{node.name}", run.snapshot))
    database.drop("excluded", "left_out")  # the plan needs the memory
    database.publish_table("plan", run.layout.table(f"plan-{node.name}", run.snapshot))
