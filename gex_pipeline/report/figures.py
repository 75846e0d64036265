"""The figures of the report: a published output in, frozen dataclasses out (``report.json`` is the same as JSON).

Everything is counted in the manifest and in the tables and receipts it names, over all snapshots; accounts and
recipe are those of the newest one. Reads no video. One thread counts, so that equal outputs give equal digits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from gex_pipeline import registry, storage
from gex_pipeline.errors import GexError, RecipeError
from gex_pipeline.granularity import SOURCE_OPERATION, GranularityGraph, Node
from gex_pipeline.receipts import LOSS_SCHEMA, RECEIPT_SCHEMA
from gex_pipeline.rejects import NOT_RETRIED
from gex_pipeline.report.axis import Axis, value_axis
from gex_pipeline.shard_format import IMAGE_EXTENSIONS
from gex_pipeline.shards.manifest import Account, Manifest, read_manifest
from gex_pipeline.tables import Database, literal
from gex_pipeline.validate.settings import mixed_scores
from gex_pipeline.validate.statistics import STATISTICS, rounded

_NUM_EXAMPLES = 3
_NUM_BINS = 36
_NO_CLIPS = "SELECT 0::DOUBLE AS start_s, 0::DOUBLE AS end_s, 0::BIGINT AS num_words, '' AS source_id"


@dataclass(frozen=True)
class NodeFigures:
    """One granularity. Of the source these are the accepted clips, as their metadata say them."""

    name: str
    operation: str
    symbol: str
    parent: str | None
    media: str  # "clips", "video" or "image"
    samples: int
    sources: int
    shards: int
    num_bytes: int
    duration_s: float
    words: int
    made_by: dict[str, int]  # "copy", "encode", ... -> samples

    @property
    def mean_duration_s(self) -> float | None:
        """Seconds a sample; None for pictures and where there is no sample."""
        return self.duration_s / self.samples if self.samples and self.media != "image" else None

    @property
    def mean_words(self) -> float | None:
        """Words a sample."""
        return self.words / self.samples if self.samples else None


@dataclass(frozen=True)
class Distribution:
    """One quantity of one granularity, in bins that all granularities share."""

    quantity: str  # "duration_s" or "num_words"
    granularity: str
    is_source: bool  # the clips before the expansion
    statistics: dict[str, float | None]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Panel:
    """The distributions of one quantity and the axis they share."""

    quantity: str
    axis: Axis
    distributions: tuple[Distribution, ...]


@dataclass(frozen=True)
class ScoreFigures:
    """One score of one granularity; the statistics are those of its accepted samples."""

    granularity: str
    score: str
    statistics: dict[str, float | None]
    num_rejected: int
    axis: Axis
    accepted: tuple[int, ...]
    rejected: tuple[int, ...]
    gate_min: float | None
    gate_max: float | None
    is_long: bool = False  # whether the granularity is of the long videos that the paper's figures are of


@dataclass(frozen=True)
class LossFigures:
    """One reason why something is not in the data set."""

    granularity: str
    stage: str
    state: str
    reason: str
    num: int
    examples: tuple[dict[str, str], ...]  # id, source_id, detail, row


@dataclass(frozen=True)
class SnapshotFigures:
    """The balance of one snapshot."""

    snapshot: int
    created: str
    accounts: tuple[Account, ...]


@dataclass(frozen=True)
class Figures:
    """Everything the page says in numbers."""

    name: str
    nodes: tuple[NodeFigures, ...]  # the source's clips first
    panels: tuple[Panel, ...]
    scores: tuple[ScoreFigures, ...]
    mixed_scores: str  # a sentence where scores of several models or rules are in one figure
    losses: tuple[LossFigures, ...]
    snapshots: tuple[SnapshotFigures, ...]  # newest first
    recipe: dict[str, Any]
    recipe_hash: str
    software: dict[str, str]
    inputs: tuple[dict[str, Any], ...]
    shards: tuple[dict[str, Any], ...]

    def node(self, name: str) -> NodeFigures | None:
        """The published granularity of this name."""
        return next((node for node in self.nodes if node.name == name and node.media != "clips"), None)


def as_json(figures: Figures) -> dict[str, Any]:
    """The figures as plain values, with the means that the dataclasses compute."""
    content = asdict(figures)
    for item, node in zip(content["nodes"], figures.nodes, strict=True):
        item |= {"mean_duration_s": _rounded(node.mean_duration_s), "mean_words": _rounded(node.mean_words)}
    for item, snapshot in zip(content["snapshots"], figures.snapshots, strict=True):
        for row, account in zip(item["accounts"], snapshot.accounts, strict=True):
            row["difference"] = account.difference
    return content


def published_manifest(output_uri: str) -> Manifest:
    """The manifest of an output that has something to report.

    Raises:
        GexError: nothing is published there.
    """
    manifest = read_manifest(output_uri)
    if manifest is None or not manifest.snapshots:
        raise GexError(f"nothing is published at {output_uri!r}; run the recipe first, then report on its output")
    return manifest


@contextmanager
def open_tables(output_uri: str, manifest: Manifest) -> Iterator[Database]:
    """A database with the views ``clips`` and ``receipts`` over everything that is published."""
    with Database(threads=1) as database:
        database.view_parquet("clips", _table_uris(output_uri, manifest, "clips"), empty=_NO_CLIPS)
        receipts = [
            storage.join(output_uri, shard.receipt)
            for name in manifest.granularity_names()
            for shard in manifest.shards(name)
        ]
        database.view_parquet("receipts", receipts, empty=RECEIPT_SCHEMA, is_alike=True)
        yield database


def view_table(database: Database, output_uri: str, manifest: Manifest, name: str, *, numbered: bool = False) -> bool:
    """Make a view of what ``tables/{name}-*`` says of published samples, named by what stands before the first '-'.

    With `numbered`, it has the column ``snapshot``. False without any table.
    """
    there = replace(manifest, snapshots=tuple(one for one in manifest.snapshots if one.retired is None))
    uris = _table_uris(output_uri, there, name)
    if uris:
        database.view_parquet(name.partition("-")[0], uris, numbered=numbered)
    return bool(uris)


def collect_figures(output_uri: str, manifest: Manifest, database: Database) -> Figures:
    """Count everything; `database` comes from `open_tables`."""
    newest = manifest.snapshots[-1]
    graph = graph_of(newest.recipe, manifest)
    database.run("report_measured")
    return Figures(
        name=manifest.name,
        nodes=tuple(_nodes(database, manifest, graph)),
        panels=tuple(_panels(database, graph)),
        scores=tuple(one for name in graph.nodes for one in _scores(output_uri, manifest, database, graph, name)),
        mixed_scores=mixed_scores((one.recipe, one.software) for one in manifest.snapshots if one.retired is None),
        losses=tuple(_losses(output_uri, manifest, database)),
        snapshots=tuple(
            SnapshotFigures(entry.snapshot, entry.created, entry.accounts) for entry in reversed(manifest.snapshots)
        ),
        recipe=newest.recipe,
        recipe_hash=newest.recipe_hash,
        software=newest.software,
        inputs=newest.inputs,
        shards=tuple(asdict(shard) for name in manifest.granularity_names() for shard in manifest.shards(name)),
    )


def graph_of(recipe: Mapping[str, Any], manifest: Manifest) -> GranularityGraph:
    """The graph of the newest recipe, with granularities that only earlier snapshots published."""
    nodes = {
        name: Node(name, table.get("operation", SOURCE_OPERATION), table.get("from"))
        for name, table in recipe["granularity"].items()
    }
    for snapshot in manifest.snapshots:
        for name, entry in snapshot.granularities.items():
            if entry.operation != SOURCE_OPERATION:
                nodes.setdefault(name, Node(name, entry.operation, entry.parent))
    return GranularityGraph.from_nodes(nodes.values())


def are_long_videos(manifest: Manifest, graph: GranularityGraph, name: str) -> bool:
    """Whether a granularity has videos that `integrate` made, itself or what it was made from."""
    entries = [one.granularities[name] for one in manifest.snapshots if name in one.granularities]
    if any(entry.media_extension in IMAGE_EXTENSIONS for entry in entries):
        return False
    return any(node.operation == "integrate" for node in graph.lineage(name))


def _nodes(database: Database, manifest: Manifest, graph: GranularityGraph) -> Iterator[NodeFigures]:
    (clips,) = database.rows("report_clips")
    yield NodeFigures(
        name=graph.source.name,
        operation=SOURCE_OPERATION,
        symbol="",
        parent=None,
        media="clips",
        samples=clips["samples"],
        sources=clips["sources"],
        shards=0,
        num_bytes=0,
        duration_s=_round(clips["duration_s"]),
        words=clips["words"],
        made_by={},
    )
    published = {row["granularity"]: row for row in database.rows("report_nodes")}
    for node in graph.nodes.values():
        shards = manifest.shards(node.name)
        if node.name not in manifest.granularity_names():
            continue
        row = published.get(node.name, {})
        yield NodeFigures(
            name=node.name,
            operation=node.operation,
            symbol=_symbol(node.operation),
            parent=node.parent,
            media="image" if _extension(manifest, node.name) in IMAGE_EXTENSIONS else "video",
            samples=row.get("samples", 0),
            sources=row.get("sources", 0),
            shards=len(shards),
            num_bytes=sum(shard.num_bytes for shard in shards),
            duration_s=_round(row.get("duration_s", 0.0)),
            words=row.get("words", 0),
            made_by=dict(sorted(row.get("made_by", {}).items())),
        )


def _symbol(operation: str) -> str:
    """The operation's sign in the paper; its name where it has none or is not installed here."""
    try:
        return str(registry.load_operation(operation).symbol) or operation
    except (RecipeError, ImportError):
        return operation


def _extension(manifest: Manifest, name: str) -> str:
    return next(s.granularities[name].media_extension for s in manifest.snapshots if name in s.granularities)


def _panels(database: Database, graph: GranularityGraph) -> Iterator[Panel]:
    rows = database.rows("report_statistics")
    for quantity in ("duration_s", "num_words"):
        found = {row["granularity"]: row for row in rows if row["quantity"] == quantity}
        if not found:
            continue
        axis = value_axis(
            min(row["min"] for row in found.values()),
            max(row["max"] for row in found.values()),
            _NUM_BINS,
            whole=quantity == "num_words",
        )
        counts: dict[str | None, list[int]] = {name: [0] * axis.num_bins for name in found}
        for row in database.rows("report_bins", quantity=quantity, starts=list(axis.edges[:-1])):
            counts[row["granularity"]][row["bin"]] = row["n"]
        distributions = tuple(
            Distribution(
                quantity, name or graph.source.name, name is None, _statistics(found[name]), tuple(counts[name])
            )
            for name in (None, *graph.nodes)
            if name in found
        )
        yield Panel(quantity, axis, distributions)


def _scores(
    output_uri: str, manifest: Manifest, database: Database, graph: GranularityGraph, name: str
) -> Iterator[ScoreFigures]:
    if not view_table(database, output_uri, manifest, f"scores-{name}"):
        return
    gates = manifest.snapshots[-1].recipe["granularity"].get(name, {}).get("gates") or {}
    for row in database.rows("report_score_statistics"):
        axis = value_axis(min(row["lowest"], 0.0), max(row["highest"], 1.0), _NUM_BINS)
        counts = {True: [0] * axis.num_bins, False: [0] * axis.num_bins}
        for bin_row in database.rows("report_score_bins", score=row["score"], starts=list(axis.edges[:-1])):
            counts[bin_row["accepted"]][bin_row["bin"]] = bin_row["n"]
        gate = gates.get(row["score"]) or {}
        yield ScoreFigures(
            granularity=name,
            score=row["score"],
            statistics=_statistics(row),
            num_rejected=row["num_rejected"],
            axis=axis,
            accepted=tuple(counts[True]),
            rejected=tuple(counts[False]),
            gate_min=gate.get("min"),
            gate_max=gate.get("max"),
            is_long=are_long_videos(manifest, graph, name),
        )


def _losses(output_uri: str, manifest: Manifest, database: Database) -> Iterator[LossFigures]:
    """Rejects of every stage that were not tried again, and what the plans excluded by rule, each once."""
    columns = ", ".join(f'"{name}"' for name in LOSS_SCHEMA.names)
    selects: list[str] = []
    for snapshot in manifest.snapshots:
        for path in snapshot.tables:
            name = storage.name_of(path).rpartition("-")[0]
            if name != "rejects" and not name.startswith("excluded-"):
                continue
            view = f"loss table {len(selects)}"
            database.view_parquet(view, [storage.join(output_uri, path)])
            selects.append(
                f'SELECT {columns}, {snapshot.snapshot} AS snapshot, {literal(name)} AS "table" FROM "{view}"'
            )
    if not selects:
        return
    database.execute("CREATE OR REPLACE TEMP VIEW losses AS " + " UNION ALL ".join(selects))
    database.view_parquet("retried", _table_uris(output_uri, manifest, "retried"), empty=NOT_RETRIED, numbered=True)
    for row in database.rows("report_losses", num_examples=_NUM_EXAMPLES, last=manifest.snapshots[-1].snapshot):
        yield LossFigures(**{**row, "examples": tuple(row["examples"])})


def _table_uris(output_uri: str, manifest: Manifest, name: str) -> list[str]:
    return [
        storage.join(output_uri, path)
        for snapshot in manifest.snapshots
        for path in snapshot.tables
        if storage.name_of(path) == f"{name}-{snapshot.snapshot:06d}.parquet"
    ]


def _statistics(row: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: _rounded(row[name]) for name in STATISTICS}


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else _round(value)


def _round(value: float) -> float:
    return value if isinstance(value, int) else rounded(float(value))


def to_json_bytes(content: Mapping[str, Any]) -> bytes:
    """JSON that says the same for the same figures."""
    return json.dumps(content, indent=1, ensure_ascii=False, default=str).encode() + b"\n"
