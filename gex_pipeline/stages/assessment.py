"""Assesses summarisers: tasks and candidates in; a row a task and candidate, figures and a recommendation out.

Every candidate goes the summarise stage's own way: the same requests, retries, cleaning, checks and gates. Its result
is written when it is finished, and a repetition takes it from there; a candidate that was stopped begins again, since
answers from a cache take no time. Summaries are scored against the reference; a task without one counts as 0 wherever
candidates are compared. Paper: GEXIA appendix A, table 7.
"""

from __future__ import annotations

import functools
import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from gex_pipeline import storage
from gex_pipeline.errors import GexError, TransientError
from gex_pipeline.progress import progress
from gex_pipeline.ray_jobs import cluster_of, ray_session
from gex_pipeline.receipts import write_table
from gex_pipeline.stages.assessment_recipe import AssessmentRecipe, Candidate, Task, tasks_digest
from gex_pipeline.stages.summaries import failing_gates
from gex_pipeline.summarize.backends import backend
from gex_pipeline.summarize.chat_template import chat_template_text
from gex_pipeline.summarize.compress import Compression, Progress, SummaryResult, summarise
from gex_pipeline.summarize.model_identity import model_identity
from gex_pipeline.summarize.pending import Pending, done
from gex_pipeline.summarize.request import SummaryRequest
from gex_pipeline.summarize.settings import SummarizerSettings
from gex_pipeline.validate.bootstrap import CONFIDENCE, difference_interval, mean_interval
from gex_pipeline.validate.rouge import ROUGE_NAMES
from gex_pipeline.validate.scorers import TextScorers
from gex_pipeline.validate.settings import ScorerSettings
from gex_pipeline.validate.statistics import rounded
from gex_pipeline.validate.statistics import summarise as statistics_of

BERTSCORE_F1 = "bertscore_f1"
SCORES = (*ROUGE_NAMES, BERTSCORE_F1)
COMPARED = {"rougeL": "ROUGE-L", BERTSCORE_F1: "BERTScore-F1"}  # the scores that the recommendation is about
FEW_TASKS = 100  # under so many, an interval says little
_ROW_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("candidate", pa.string()),
        ("text", pa.string()),
        ("reference", pa.string()),
        ("state", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("backend", pa.string()),
        ("attempts", pa.int64()),
        *((name, pa.float64()) for name in SCORES),
        ("seconds", pa.float64()),
        ("num_prompt_tokens", pa.int64()),
        ("num_generated_tokens", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Assessment:
    """What came out; `content` is ``assessment.json``, `rows` is ``assessment.parquet``."""

    content: dict[str, Any]
    rows: list[dict[str, Any]]
    errors: dict[str, GexError]  # by candidate: those that did not run; they are asked again next time

    def failure(self, page: str) -> GexError | None:
        """What the assessment ends with where a candidate did not run; transient where each of them may run yet."""
        if not self.errors:
            return None
        what = "; ".join(f"{name} did not run: {error}" for name, error in self.errors.items())
        kind = TransientError if all(error.transient for error in self.errors.values()) else GexError
        return kind(f"{what}. What ran is in {page}; run again for what is missing")


def assess(recipe: AssessmentRecipe, tasks: Sequence[Task], folder_uri: str) -> Assessment:
    """Run what is not there yet, compare, write ``assessment.json`` and ``assessment.parquet``.

    Raises:
        GexError: a result that is there is damaged.
    """
    about, results = tasks_digest(list(tasks)), {}
    errors: dict[str, GexError] = {}
    for name in recipe.candidate:
        digest = _digest(recipe, name, about)
        found = _stored(folder_uri, name, digest)
        if found is None:
            try:
                found = _run(recipe, name, tasks)
            except GexError as error:
                errors[name] = error
                progress().note(f"{name} did not run: {error}")
                continue
            _store(folder_uri, name, {**found, "figures": {**found["figures"], "digest": digest}})
        results[name] = found
    rows = [row for found in results.values() for row in found["rows"]]
    content = {
        "name": recipe.name,
        "seed": recipe.seed,
        "num_tasks": len(tasks),
        "tasks_digest": about,
        "confidence": CONFIDENCE,
        "candidates": [_told(found) for found in results.values()],
        "failed": {name: str(error) for name, error in errors.items()},
        "recommendation": recommend(results, recipe.seed),
    }
    storage.publish_bytes(_json_bytes(content), storage.join(folder_uri, "assessment.json"))
    write_table(storage.join(folder_uri, "assessment.parquet"), pa.Table.from_pylist(rows, _ROW_SCHEMA), {})
    return Assessment(content, rows, errors)


def recommend(results: dict[str, dict[str, Any]], seed: int) -> dict[str, Any]:
    """The recommended candidate, or None, with the rule and what was compared."""
    names = [name for name, found in results.items() if found["figures"]["num_summaries"]]
    compared = [score for score in COMPARED if all(score in results[name]["figures"]["scores"] for name in names)]
    if not names or not compared:
        why = "no candidate wrote a summary that was scored"
        return {"rule": _rule(()), "candidate": None, "why": why, "compared": {}}
    lists = {name: {score: _or_zero(results[name]["rows"], score) for score in compared} for name in names}
    against: dict[str, dict[str, Any]] = {name: {} for name in names}
    for score in compared:
        means = {name: sum(lists[name][score]) / len(lists[name][score]) for name in names}
        best = max(names, key=lambda name: means[name])
        for name in names:
            low, high = difference_interval(lists[name][score], lists[best][score], seed)
            against[name][score] = {
                "best": best,
                "difference": rounded(means[name] - means[best]),
                "interval": [rounded(low), rounded(high)],
                "as_good": high >= 0,
            }
    as_good = [name for name in names if all(item["as_good"] for item in against[name].values())]
    chosen = min(as_good, key=lambda name: (results[name]["figures"]["seconds_a_task"], name), default=None)
    return {"rule": _rule(compared), "candidate": chosen, "why": _why(chosen, as_good, results), "compared": against}


def _rule(compared: Sequence[str]) -> str:
    """How a candidate is chosen, by the scores that were compared."""
    where = f", in {' and in '.join(COMPARED[score] for score in compared)}" if compared else ""
    return (
        "The fastest of the candidates that are not worse than the best: those for which the 95 % bootstrap interval "
        "of the mean difference to the candidate with the best mean, task by task, does not lie under "
        f"0{where}. A task without a summary counts as 0."
    )


def _why(chosen: str | None, as_good: list[str], results: dict[str, dict[str, Any]]) -> str:
    if chosen is None:
        return "none is as good as the best in every score that is compared; the table has to decide"
    seconds = results[chosen]["figures"]["seconds_a_task"]
    others = [name for name in as_good if name != chosen]
    why = f"{chosen}, with {seconds:.3g} s a task, "
    why += f"is the fastest of {', '.join([chosen, *others])}" if others else "is the only one as good as the best"
    num_tasks = len(results[chosen]["rows"])
    if num_tasks >= FEW_TASKS:
        return why
    few = f"{num_tasks} task{'s are' if num_tasks != 1 else ' is'} few to tell candidates apart"
    return f"{why}; {few}: a difference of 0.05 in ROUGE-L may go unseen"


def _or_zero(rows: Sequence[dict[str, Any]], score: str) -> list[float]:
    return [row[score] or 0.0 for row in rows]


def _run(recipe: AssessmentRecipe, name: str, tasks: Sequence[Task]) -> dict[str, Any]:
    """One candidate over all tasks: its rows and figures."""
    candidate, summarizer = recipe.candidate[name], recipe.summarizer_of(name)
    writer = backend(summarizer, cluster_of(recipe.ray))
    writer.check_ready(summarizer)
    progress().stage(f"assess {name}", len(tasks), "tasks")
    counted = Progress()

    def keep(now: Progress) -> None:
        nonlocal counted
        progress().advance(now.num_done - counted.num_done)
        counted = now

    job = Compression(
        settings=summarizer,
        score=_gate_scorer(recipe, candidate),
        gate=lambda scores: failing_gates(candidate.gates, scores),
        on_progress=keep,
        backend=writer,
    )
    needs_ray = summarizer.backend == "vllm"
    with ray_session(recipe.ray) if needs_ray else nullcontext():
        results = {result.key: result for result in summarise([task.request for task in tasks], job)}
    progress().stage(f"score {name}", len(tasks), "tasks")
    taken = {"rouge": True, "sentence_model": None, "clip_model": None}
    scorers = _scorers(recipe.placed_scores.model_copy(update=taken), _score_device(recipe))
    rows = list(_rows(name, tasks, results, scorers))
    progress().advance(len(rows))
    figures = _figures(recipe, name, rows, counted)
    return {"rows": rows, "figures": {**figures, "models": scorers.signatures() if figures["num_summaries"] else {}}}


@functools.lru_cache(maxsize=4)
def _scorers(settings: ScorerSettings, device: str | None) -> TextScorers:
    """Models are loaded once for all candidates."""
    return TextScorers(settings, device=device)


def _score_device(recipe: AssessmentRecipe) -> str | None:
    """The CPU where an engine has to start: it wants nearly all of a GPU, and models of scores stay where they are."""
    in_engine = any(candidate.summarizer.backend == "vllm" for candidate in recipe.candidate.values())
    return "cpu" if in_engine else None


def _gate_scorer(recipe: AssessmentRecipe, candidate: Candidate) -> Any:
    """Scores against the long text, no more of them than the gates ask for; None where there is nothing to ask."""
    wanted, scores = set(candidate.gates), recipe.placed_scores
    settings = scores.model_copy(
        update={
            "rouge": scores.rouge and bool(wanted & set(ROUGE_NAMES)),
            "sentence_model": scores.sentence_model if "sentence_cosine" in wanted else None,
            "bertscore_model": scores.bertscore_model if any(n.startswith("bertscore") for n in wanted) else None,
            "clip_model": scores.clip_model if "clip_text_cosine" in wanted else None,
        }
    )
    scorers = _scorers(settings, _score_device(recipe))
    if not scorers.names():
        return None

    def score(asked: list[SummaryRequest], candidates: list[str]) -> Pending[list[dict[str, float]]]:
        return done(scorers.score(candidates, [request.text for request in asked]))

    return score


def _rows(
    name: str, tasks: Sequence[Task], results: dict[str, SummaryResult], scorers: TextScorers
) -> Iterator[dict[str, Any]]:
    told = [task for task in tasks if results[task.request.key].text is not None]
    texts = [results[task.request.key].text or "" for task in told]
    scored = scorers.score(texts, [task.reference for task in told])
    scores = {task.request.key: row for task, row in zip(told, scored, strict=True)}
    for task in tasks:
        result = results[task.request.key]
        yield {
            "id": result.key,
            "candidate": name,
            "text": result.text,
            "reference": task.reference,
            "state": result.state,
            "reason": str(result.reason) if result.reason else None,
            "detail": result.detail,
            "backend": result.backend,
            "attempts": result.attempts,
            **{score: rounded(scores.get(result.key, {}).get(score)) for score in SCORES},
            "seconds": rounded(result.seconds),
            "num_prompt_tokens": result.num_prompt_tokens,
            "num_generated_tokens": result.num_generated_tokens,
        }


def _figures(recipe: AssessmentRecipe, name: str, rows: list[dict[str, Any]], counted: Progress) -> dict[str, Any]:
    """Figures of a candidate; seconds are those of answering, every attempt in them and engines' starts left out."""
    settings, num_tasks = recipe.candidate[name].summarizer, len(rows)
    told = [row for row in rows if row["text"] is not None]
    scores = {}
    for score in SCORES:
        values = [row[score] for row in told if row[score] is not None]
        if values:
            found = statistics_of(values)
            low, high = mean_interval(values, recipe.seed)
            scores[score] = {
                "mean": rounded(found["mean"]),
                "std": rounded(found["std"]),
                "interval": [rounded(low), rounded(high)],
                "mean_over_all": rounded(sum(values) / num_tasks),
            }
    in_tokens = counted.num_prompt_tokens > 0  # without a model nobody counts tokens
    return {
        "name": name,
        "backend": settings.backend,
        "model": settings.model,
        "num_tasks": num_tasks,
        "num_summaries": len(told),
        "num_fallback": sum(row["backend"] != settings.backend for row in told),
        "rejected": dict(sorted(Counter(row["reason"] for row in rows if row["text"] is None).items())),
        "num_attempts": sum(row["attempts"] for row in rows),
        "seconds_a_task": rounded(counted.answering_s / num_tasks),
        "startup_s": round(counted.startup_s, 3),
        "prompt_tokens_a_task": round(counted.num_prompt_tokens / num_tasks, 1) if in_tokens else None,
        "generated_tokens_a_task": round(counted.num_generated_tokens / num_tasks, 1) if in_tokens else None,
        "tokens_per_s": round(counted.tokens_per_s, 1) if counted.tokens_per_s else None,
        "scores": scores,
    }


def _told(found: dict[str, Any]) -> dict[str, Any]:
    """What ``assessment.json`` says of a candidate: its figures, and the median seconds of one of its summaries."""
    figures = {name: value for name, value in found["figures"].items() if name != "digest"}
    # Attempts of one task are added up, as they follow each other; a fallback is not the candidate's own.
    own = [row for row in found["rows"] if row["text"] is not None and row["backend"] == figures["backend"]]
    return {**figures, "latency_s": rounded(statistics.median(row["seconds"] for row in own)) if own else None}


def _digest(recipe: AssessmentRecipe, name: str, tasks: str) -> str:
    """SHA-256 (hex) of what decides a candidate's result: the weights and the template behind their names among it."""
    candidate, summarizer = recipe.candidate[name], recipe.summarizer_of(name)
    in_engine = summarizer.backend == "vllm"
    identity = model_identity(summarizer.model, summarizer.revision) if in_engine else None
    parts: list[Any] = [
        _code(),
        candidate.model_dump(mode="json"),
        identity,
        recipe.scores.model_dump(mode="json"),
        tasks,
    ]
    parts.append(recipe.seed)
    if in_engine and (template := _template(summarizer)) is not None:
        parts.append(template)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@functools.cache
def _code() -> str:
    """SHA-256 (hex) of the code that writes, checks and scores summaries: results of two versions do not compare."""
    package = Path(__file__).parent.parent
    files = [*(package / "summarize").glob("*.py"), *(package / "validate").glob("*.py"), Path(__file__)]
    digest = hashlib.sha256()
    for file in sorted([*files, package / "stages" / "summaries.py"]):
        digest.update(file.name.encode() + b"\n" + file.read_bytes())
    return digest.hexdigest()


def _template(summarizer: SummarizerSettings) -> str | None:
    """The template's text; none where it is the model's own, or cannot be found, which is said when it is needed."""
    with suppress(GexError):
        return chat_template_text(summarizer)
    return None


def _stored(folder_uri: str, name: str, digest: str) -> dict[str, Any] | None:
    """A candidate's finished result, when it was made of the same tasks with the same settings."""
    uri = storage.join(folder_uri, "candidates", f"{name}.json")
    if not storage.exists(uri):
        return None
    try:
        found = json.loads(storage.read_bytes(uri))
        return found if found["figures"]["digest"] == digest else None
    except (ValueError, KeyError, TypeError) as error:
        raise GexError(f"{uri} is damaged ({error}); delete it and run again") from error


def _store(folder_uri: str, name: str, result: dict[str, Any]) -> None:
    storage.publish_bytes(_json_bytes(result), storage.join(folder_uri, "candidates", f"{name}.json"))


def _json_bytes(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"
