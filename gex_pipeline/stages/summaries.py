"""Θ_t before the shards: every new long text gets an accepted summary or a reason why not.

Results are written in parts as they come, so that a killed run asks again only for what it had not
written; answers of language models are in the response cache besides. When all are there the parts
become three tables: summaries, scores, losses. A fourth, answering, says how fast a model answered.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from gex_pipeline import storage
from gex_pipeline.errors import BalanceError, Reason
from gex_pipeline.granularity import Node
from gex_pipeline.planning import new_long_texts
from gex_pipeline.progress import progress
from gex_pipeline.ray_jobs import ScorerPool, VideoToScore
from gex_pipeline.receipts import write_table
from gex_pipeline.recipe import Bound
from gex_pipeline.run_state import Run
from gex_pipeline.shard_format import make_key
from gex_pipeline.summarize.cache import ResponseCache
from gex_pipeline.summarize.compress import Compression, Progress, SummaryResult, summarise
from gex_pipeline.summarize.request import SummaryRequest
from gex_pipeline.tables import Database

_PART_ROWS = 1000
_PART_SECONDS = 60.0
_SCORE_DIGITS = 4  # a model's last digits depend on what else is in its batch

_PART_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("parent_id", pa.string()),
        ("source_id", pa.string()),
        ("text", pa.string()),
        ("source_digest", pa.string()),
        ("backend", pa.string()),
        ("attempts", pa.int64()),
        ("state", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("scores", pa.string()),
        ("raw_text", pa.string()),
        ("num_prompt_tokens", pa.int64()),
        ("num_generated_tokens", pa.int64()),
        ("seconds", pa.float64()),
    ]
)

_PACE_SCHEMA = pa.schema(
    [
        ("num_answers", pa.int64()),
        ("num_cached", pa.int64()),
        ("num_prompt_tokens", pa.int64()),
        ("num_generated_tokens", pa.int64()),
        ("startup_s", pa.float64()),
        ("answering_s", pa.float64()),
        ("tokens_per_s", pa.float64()),
    ]
)


def summarise_node(run: Run, node: Node) -> None:
    """Make the tables ``summaries-``, ``scores-`` and ``losses-`` of one granularity, once.

    Raises:
        GexError: the backend cannot work at all.
    """
    if storage.exists(run.layout.table(f"losses-{node.name}", run.snapshot)):
        return  # written last
    with Database() as database:
        texts = new_long_texts(database, run, node)
    parents = {make_key(node.name, [text["parent_id"]]): text for text in texts}
    done = _read_parts(run, node)
    requests = [_request(key, text) for key, text in sorted(parents.items()) if key not in done]
    if requests:
        progress().stage(f"{node.name} summarise", len(requests), "texts")
        with ScorerPool(run.recipe.scores, run.recipe.ray) as pool:
            counted = _Counted()
            results = _results(run, node, requests, pool, counted)
            for number, part in enumerate(_batched(results), start=_num_parts(run, node)):
                rows = _score_videos(run, node, [_row(result, parents[result.key]) for result in part], pool)
                _write_part(run, node, number, rows)
                progress().advance(len(part))
        _publish_pace(run, node, counted.last)
    _publish_tables(run, node, parents)


def _request(key: str, text: dict[str, Any]) -> SummaryRequest:
    captions = tuple(segment["text"] for segment in text["segments"])
    return SummaryRequest(key=key, source_digest=text["text_digest"], captions=captions, text=text["text"])


class _Counted:
    """Remembers the last counts of a compression."""

    def __init__(self) -> None:
        self.last = Progress()

    def keep(self, now: Progress) -> None:
        self.last = now


def _publish_pace(run: Run, node: Node, counted: Progress) -> None:
    """Tokens a second of what answered in this session; nothing where no model counted tokens."""
    if counted.tokens_per_s is None:
        return
    row = {name: getattr(counted, name) for name in _PACE_SCHEMA.names}
    table = pa.Table.from_pylist([row], _PACE_SCHEMA)
    write_table(run.layout.table(f"answering-{node.name}", run.snapshot), table, {})
    progress().note(
        f"{node.name}: {counted.num_answers} answers, {counted.tokens_per_s:,.0f} tokens/s for "
        f"{counted.answering_s:.1f} s after {counted.startup_s:.1f} s of starting"
    )


def _results(
    run: Run, node: Node, requests: list[SummaryRequest], pool: ScorerPool, counted: _Counted
) -> Iterator[SummaryResult]:
    settings = run.recipe.granularity[node.name]

    def score(asked: list[SummaryRequest], candidates: list[str]) -> list[dict[str, float]]:
        rows = pool.score_texts(candidates, [request.text for request in asked])
        return [{name: round(value, _SCORE_DIGITS) for name, value in row.items()} for row in rows]

    compression = Compression(
        settings=settings.summarizer,
        cache=ResponseCache(run.layout.response_cache),
        score=score,
        gate=lambda scores: failing_gates(settings.gates, scores),
        on_progress=counted.keep,
        batch_size=_PART_ROWS,
    )
    return summarise(requests, compression)


def failing_gates(gates: dict[str, Bound], scores: dict[str, float]) -> list[str]:
    """The gates a sample fails, in words; a gate on a score that was not taken does not close."""
    return [
        f"{name} {what}"
        for name, bound in gates.items()
        if name in scores and (what := bound.broken_by(scores[name])) is not None
    ]


def _batched(results: Iterator[SummaryResult]) -> Iterator[list[SummaryResult]]:
    """Results in parts: full ones, or what a minute brought."""
    part: list[SummaryResult] = []
    started = time.monotonic()
    for result in results:
        part.append(result)
        if len(part) >= _PART_ROWS or time.monotonic() - started > _PART_SECONDS:
            yield part
            part, started = [], time.monotonic()
    if part:
        yield part


def _row(result: SummaryResult, parent: dict[str, Any]) -> dict[str, Any]:
    row = {name: getattr(result, name) for name in _PART_SCHEMA.names if hasattr(result, name)}
    row |= {"parent_id": parent["parent_id"], "source_id": parent["source_id"], "parent": parent}
    row["reason"] = str(result.reason) if result.reason else None
    row["scores"] = dict(result.scores)
    return row


def _score_videos(run: Run, node: Node, rows: list[dict[str, Any]], pool: ScorerPool) -> list[dict[str, Any]]:
    """Add video-text cosines to accepted rows, as far as the recipe wants them, and gate by them."""
    settings, gates = run.recipe.scores, run.recipe.granularity[node.name].gates
    if settings.clip_model is None:
        return rows
    chosen = [row for row in rows if row["state"] == "accepted" and row["parent"]["clip_rank"] <= settings.clip_videos]
    videos = [
        VideoToScore(
            storage.join(run.layout.output_uri, row["parent"]["media_uri"]),
            row["parent"]["media_offset_bytes"],
            row["parent"]["media_size_bytes"],
            row["parent"]["media_extension"],
            row["parent"]["text"],
            row["text"],
        )
        for row in chosen
    ]
    for row, scores in zip(chosen, pool.score_videos(videos), strict=True):
        row["scores"] |= {name: round(value, _SCORE_DIGITS) for name, value in scores.items()}
        failing = failing_gates(gates, row["scores"])
        if failing:
            detail = f"{'; '.join(failing)}: {row['text']}"
            row |= {"state": "rejected", "reason": str(Reason.gate_failed), "detail": detail, "text": None}
    return rows


def _num_parts(run: Run, node: Node) -> int:
    return len(storage.list_files(run.layout.part_glob(f"summaries-{node.name}", run.snapshot)))


def _write_part(run: Run, node: Node, number: int, rows: list[dict[str, Any]]) -> None:
    uri = run.layout.part(f"summaries-{node.name}", run.snapshot, f"part-{number:06d}")
    plain = [{**row, "scores": json.dumps(row["scores"], sort_keys=True)} for row in rows]
    for row in plain:
        del row["parent"]
    write_table(uri, pa.Table.from_pylist(plain, _PART_SCHEMA), {})


def _read_parts(run: Run, node: Node) -> set[str]:
    uris = [file.uri for file in storage.list_files(run.layout.part_glob(f"summaries-{node.name}", run.snapshot))]
    if not uris:
        return set()
    with Database() as database:
        database.view_parquet("parts", uris)
        return {row["key"] for row in database.query("SELECT key FROM parts")}


def _publish_tables(run: Run, node: Node, parents: dict[str, dict[str, Any]]) -> None:
    """The parts as tables; every text asked for must have ended exactly once."""
    uris = [file.uri for file in storage.list_files(run.layout.part_glob(f"summaries-{node.name}", run.snapshot))]
    empty = "SELECT " + ", ".join(
        f"NULL::{'BIGINT' if field.type == pa.int64() else 'DOUBLE' if field.type == pa.float64() else 'VARCHAR'}"
        f" AS {field.name}"
        for field in _PART_SCHEMA
    )
    with Database() as database:
        database.view_parquet("parts", uris, empty=empty)
        keys = [row["key"] for row in database.query("SELECT key FROM parts")]
        if len(keys) != len(set(keys)) or set(keys) != set(parents):
            raise BalanceError(
                f"{node.name}: {len(parents)} texts were to be summarised and {len(keys)} results ({len(set(keys))} "
                "different) came. Nothing is published; this is a defect of GEX"
            )
        for name, order in (("summaries", "key"), ("scores", "key, score"), ("losses", "id")):
            database.run(f"summary_{name}", **({"granularity": node.name} if name == "losses" else {}))
            database.publish_table(f"summary_{name}", run.layout.table(f"{name}-{node.name}", run.snapshot), order)
