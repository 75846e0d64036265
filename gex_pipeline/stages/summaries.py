"""Θ_t before the shards: every new long text gets an accepted summary or a reason why not.

Results are written in parts as they come, so that a killed run asks again only for what it had not
written; answers of language models are in the response cache besides. Of the texts, sorted on disk, a few thousand are
in memory at a time, and those that are being answered. When all results are there the parts become three tables:
summaries, scores, losses. A fourth, answering, says how fast a model answered.
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
from gex_pipeline.model_places import scores_of, summarizer_of
from gex_pipeline.planning import find_long_texts
from gex_pipeline.progress import progress
from gex_pipeline.ray_jobs import ScorerPool, cluster_of
from gex_pipeline.ray_scorer import CLIP_VIDEO_NAMES, VideoScores, VideoToScore
from gex_pipeline.receipts import write_table
from gex_pipeline.recipe import Bound
from gex_pipeline.run_state import Run, check_held
from gex_pipeline.summarize.backends import backend
from gex_pipeline.summarize.cache import ResponseCache
from gex_pipeline.summarize.compress import Compression, Progress, SummaryResult, summarise
from gex_pipeline.summarize.pending import Pending, done, in_turn
from gex_pipeline.summarize.request import SummaryRequest
from gex_pipeline.tables import Database, literal

_PART_ROWS = 1000
_PART_SECONDS = 60.0
_TEXTS_READ = 2048  # at a time; what DuckDB writes as one piece at the least
_LONG_WAIT = 0.1  # of the time of answering: worth a word
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
        find_long_texts(database, run, node)
        _view_parts(database, run, node)
        texts = _Texts(database)
        if texts.num_texts:
            _summarise_texts(run, node, texts)
        _publish_tables(database, run, node)


def _summarise_texts(run: Run, node: Node, texts: _Texts) -> None:
    """Write a result for each text, in parts."""
    progress().stage(f"{node.name} summarise", texts.num_texts, "texts")
    engine_gpus = run.recipe.granularity[node.name].summarizer.engine_gpus
    with ScorerPool(scores_of(run.recipe), run.recipe.ray, engine_gpus) as pool:
        counted = _Counted()
        results = _results(run, node, texts.requests(), pool, counted)
        parts = ([_row(result, texts.take(result.key)) for result in part] for part in _batched(results))
        scored = in_turn(_score_videos(run, node, rows, pool) for rows in parts)
        for number, rows in enumerate(scored, start=_num_parts(run, node)):
            _write_part(run, node, number, rows)
            progress().advance(len(rows))
    _publish_pace(run, node, counted.last)


class _Texts:
    """The long texts without a result, in the order of their summaries' keys; read from disk as they are asked for."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[str, dict[str, Any]] = {}  # what a result needs to know of its text, by key
        file = database.scratch / "long-texts.parquet"
        database.run("summarise_pending")
        database.execute(
            f"COPY (SELECT * FROM pending ORDER BY number) TO {literal(str(file))} "
            f"(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE {_TEXTS_READ})"
        )
        database.view_parquet("asked", [str(file)])
        self.num_texts = database.count("asked")

    def requests(self) -> Iterator[SummaryRequest]:
        """What is asked, text by text."""
        for first in range(0, self.num_texts, _TEXTS_READ):
            for row in self._database.rows("summarise_some", first=first, end=first + _TEXTS_READ):
                captions = tuple(row.pop("captions"))
                self._waiting[row["key"]] = row
                yield SummaryRequest(row["key"], row["text_digest"], captions, row["text"])

    def take(self, key: str) -> dict[str, Any]:
        """What is known of a text whose result is there; it is forgotten."""
        return self._waiting.pop(key)


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
    if counted.waiting_s > _LONG_WAIT * counted.answering_s:
        progress().note(
            f"{node.name}: {counted.waiting_s:.0f} s of waiting for scores, in which nothing was answered; more "
            "[ray] scorers make that less"
        )


def _results(
    run: Run, node: Node, requests: Iterator[SummaryRequest], pool: ScorerPool, counted: _Counted
) -> Iterator[SummaryResult]:
    gates = run.recipe.granularity[node.name].gates

    def score(asked: list[SummaryRequest], candidates: list[str]) -> Pending[list[dict[str, float]]]:
        return pool.score_texts(candidates, [request.text for request in asked]).then(
            lambda rows: [{name: round(value, _SCORE_DIGITS) for name, value in row.items()} for row in rows]
        )

    settings = summarizer_of(run.recipe, node.name)
    compression = Compression(
        settings=settings,
        cache=ResponseCache(run.layout.response_cache),
        score=score,
        gate=lambda scores: failing_gates(gates, scores),
        on_progress=counted.keep,
        backend=backend(settings, cluster_of(run.recipe.ray)),
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


def _score_videos(run: Run, node: Node, rows: list[dict[str, Any]], pool: ScorerPool) -> Pending[list[dict[str, Any]]]:
    """Add video-text cosines to accepted rows, as far as the recipe wants them, and gate what a model wrote by them."""
    settings, gates = run.recipe.scores, run.recipe.granularity[node.name].gates
    if settings.clip_model is None:
        return done(rows)
    chosen = [row for row in rows if row["state"] == "accepted"]
    if not _on_videos(gates):  # a gate is for every summary, and not for the first ones
        chosen = [row for row in chosen if row["parent"]["clip_rank"] <= settings.clip_videos]

    def add(found: list[VideoScores]) -> list[dict[str, Any]]:
        for row, seen in zip(chosen, found, strict=True):
            _add_video_scores(row, seen, gates)
        _note_unseen(node, chosen, found)
        return rows

    return pool.score_videos([_to_score(run, row) for row in chosen]).then(add)


def _add_video_scores(row: dict[str, Any], seen: VideoScores, gates: dict[str, Bound]) -> None:
    taken = {name: round(value, _SCORE_DIGITS) for name, value in seen.scores.items()}
    row["scores"] |= taken
    # An accepted row with a reason is a fallback: scored, but not gated away. The text's own gates were open.
    failing = _failing_by_video(gates, taken, seen.refusal) if row["reason"] is None else []
    if failing:
        detail = f"{'; '.join(failing)}: {row['text']}"[:2000]
        row |= {"state": "rejected", "reason": str(Reason.gate_failed), "detail": detail, "text": None}


def _on_videos(gates: dict[str, Bound]) -> list[str]:
    """The gates for which a video has to be looked at."""
    return [name for name in gates if name in CLIP_VIDEO_NAMES]


def _to_score(run: Run, row: dict[str, Any]) -> VideoToScore:
    parent = row["parent"]
    return VideoToScore(
        storage.join(run.layout.output_uri, parent["media_uri"]),
        parent["media_offset_bytes"],
        parent["media_size_bytes"],
        parent["media_extension"],
        parent["text"],
        row["text"],
    )


def _failing_by_video(gates: dict[str, Bound], taken: dict[str, float], refusal: str) -> list[str]:
    """The gates that fail by a sample's video, in words; where it could not be looked at, none of them is passed."""
    if refusal:
        return [f"{name} cannot be taken ({refusal})" for name in _on_videos(gates)]
    return failing_gates(gates, taken)


def _note_unseen(node: Node, chosen: list[dict[str, Any]], found: list[VideoScores]) -> None:
    unseen = [(row, seen.refusal) for row, seen in zip(chosen, found, strict=True) if seen.refusal]
    if unseen:
        row, refusal = unseen[0]
        progress().note(
            f"{node.name}: {len(unseen)} videos cannot be looked at and have no score; first {row['key']}: {refusal}"
        )


def _num_parts(run: Run, node: Node) -> int:
    return len(storage.list_files(run.layout.part_glob(f"summaries-{node.name}", run.snapshot)))


def _write_part(run: Run, node: Node, number: int, rows: list[dict[str, Any]]) -> None:
    check_held(run)  # parts of two runs would be counted together
    uri = run.layout.part(f"summaries-{node.name}", run.snapshot, f"part-{number:06d}")
    plain = [{**row, "scores": json.dumps(row["scores"], sort_keys=True)} for row in rows]
    for row in plain:
        del row["parent"]
    write_table(uri, pa.Table.from_pylist(plain, _PART_SCHEMA), {})


def _view_parts(database: Database, run: Run, node: Node) -> None:
    """Make the view ``parts`` over the results that are written."""
    uris = [file.uri for file in storage.list_files(run.layout.part_glob(f"summaries-{node.name}", run.snapshot))]
    database.view_parquet("parts", uris, empty=_PART_SCHEMA)


def _publish_tables(database: Database, run: Run, node: Node) -> None:
    """The parts as tables; every text asked for must have ended exactly once."""
    _view_parts(database, run, node)
    (found,) = database.rows("summary_balance")
    if found["num_unasked"] or not found["num_texts"] == found["num_results"] == found["num_keys"]:
        raise BalanceError(
            f"{node.name}: {found['num_texts']} texts were to be summarised and {found['num_results']} results "
            f"({found['num_keys']} different) came. Nothing is published; this is a defect of GEX"
        )
    for name, order in (("summaries", "key"), ("scores", "key, score"), ("losses", "id")):
        database.run(f"summary_{name}", **({"granularity": node.name} if name == "losses" else {}))
        database.publish_table(f"summary_{name}", run.layout.table(f"{name}-{node.name}", run.snapshot), order)
