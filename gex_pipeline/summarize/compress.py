"""The loop of Θ_t: ask, join, clean, check, score, gate, ask again; one result for every request.

An answer counts only when its key, the digest of its long text and its request digest are those of an
open request; anything else is dropped and the request it should have answered ends as `no_answer`.
Results come as they are ready and in any order. What is done with them is the caller's business.
Who scores does so behind the answers: while a batch is scored, the next ones are answered and cached.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from gex_pipeline.errors import BalanceError, GexError, Reason
from gex_pipeline.summarize.backends import Backend
from gex_pipeline.summarize.cache import ResponseCache
from gex_pipeline.summarize.checks import check_summary, new_numbers
from gex_pipeline.summarize.clean import clean_summary
from gex_pipeline.summarize.extractive import ExtractiveBackend
from gex_pipeline.summarize.pending import Pending, done, in_turn
from gex_pipeline.summarize.request import SummaryAnswer, SummaryRequest, readable, request_digest
from gex_pipeline.summarize.settings import SummarizerSettings

Scores = dict[str, float]
Scorer = Callable[[list[SummaryRequest], list[str]], Pending[list[Scores]]]
Gate = Callable[[Scores], list[str]]
_LOST_CHARACTER = "\ufffd"
_BATCH_S = 60.0  # a slower batch is handed on when it is this old
_MEMORY_SHARE = 0.25  # of the memory there is, for requests that are being answered
Answered = list[tuple[SummaryRequest, SummaryAnswer | None]]


@dataclass(frozen=True)
class SummaryResult:
    """How one request ended. Tokens and seconds are sums over its attempts, cached ones included."""

    key: str
    source_digest: str
    text: str | None  # None when rejected
    backend: str  # who wrote the text, or the last rejected one
    attempts: int
    state: Literal["accepted", "rejected"]
    reason: Reason | None = None  # an accepted fallback keeps the model's reason here
    detail: str = ""
    scores: Scores = field(default_factory=dict)
    raw_text: str = ""
    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0
    seconds: float = 0.0


@dataclass
class Progress:
    """Counts of a running compression; handed to `on_progress` after every batch."""

    num_done: int = 0
    num_answers: int = 0  # from the backend
    num_cached: int = 0  # answers that the cache gave
    num_prompt_tokens: int = 0  # of the backend's answers
    num_generated_tokens: int = 0
    startup_s: float = 0.0  # until the backend began with a first request, over all passes: engines starting
    answering_s: float = 0.0  # from there to its last answer
    waiting_s: float = 0.0  # for scores, while nothing was asked

    def add_waiting(self, seconds: float) -> None:
        """Count seconds of waiting for scores."""
        self.waiting_s += seconds

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens read and written a second of answering; None where no model counted any."""
        num_tokens = self.num_prompt_tokens + self.num_generated_tokens
        return num_tokens / self.answering_s if self.num_prompt_tokens and self.answering_s else None


class _Stopwatch:
    """Divides one pass over a backend into start and answering, as its answers come."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._before_s = (progress.startup_s, progress.answering_s)
        self._started_s = time.monotonic()
        self._first_s: float | None = None

    def saw(self, answer: SummaryAnswer) -> None:
        now_s = time.monotonic()
        # Answers may be handed on in blocks, long after the first of a block was there; its slowest was there just now.
        asked_s = max(self._started_s, now_s - answer.seconds)
        self._first_s = asked_s if self._first_s is None else min(self._first_s, asked_s)
        startup_s, answering_s = self._before_s
        self._progress.startup_s = startup_s + self._first_s - self._started_s
        self._progress.answering_s = answering_s + now_s - self._first_s


@dataclass(frozen=True)
class Compression:
    """What `summarise` works with; `score` sees only sentences that pass the text checks."""

    settings: SummarizerSettings
    backend: Backend
    cache: ResponseCache | None = None
    score: Scorer | None = None
    gate: Gate | None = None  # scores -> descriptions of the gates they fail
    on_progress: Callable[[Progress], None] | None = None
    chunk_size: int = 50_000  # requests in memory at a time
    pass_size: int = 500_000  # as many for each engine, where there is room: every attempt over them starts it once
    batch_size: int = 1000  # answers that are cached, scored and yielded together


def summarise(requests: Iterable[SummaryRequest], job: Compression) -> Iterator[SummaryResult]:
    """Exactly one result a request.

    Raises:
        GexError: the backend cannot work at all, or a key comes twice; what was answered until then is cached.
    """
    progress = Progress()
    keys: set[str] = set()
    remaining = iter(requests)
    while chunk := _chunk(remaining, job):
        for request in chunk:
            if request.key in keys:
                raise GexError(
                    f"key {request.key!r} comes twice among the requests; keys of one granularity are unique"
                )
            keys.add(request.key)
        num_results = 0
        for results in _chunk_results(chunk, job, progress):
            num_results += len(results)
            progress.num_done += len(results)
            if job.on_progress:
                job.on_progress(replace(progress))
            yield from results
        if num_results != len(chunk):
            raise BalanceError(f"{len(chunk)} summary requests gave {num_results} results")


def _chunk(remaining: Iterator[SummaryRequest], job: Compression) -> list[SummaryRequest]:
    """The next requests; where engines have to start for them, as many as are worth it and memory has room for."""
    chunk = list(itertools.islice(remaining, job.chunk_size))
    most = job.pass_size * job.settings.most_engines if job.settings.backend == "vllm" else job.chunk_size
    room_bytes = _memory_bytes() * _MEMORY_SHARE - sum(map(_memory_of, chunk))
    while len(chunk) < most and room_bytes > 0:
        request = next(remaining, None)
        if request is None:
            break
        chunk.append(request)
        room_bytes -= _memory_of(request)
    return chunk


def _memory_of(request: SummaryRequest) -> int:
    """Bytes that a request holds here until it has ended; measured with texts of five captions, 3.3 kB."""
    return 2000 + 4 * len(request.text)


def _memory_bytes() -> int:
    """Of this machine, or of the container."""
    num_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no container, or one without a limit ("max")
        num_bytes = min(num_bytes, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return num_bytes


@dataclass(frozen=True)
class _Judged:
    """A request after one attempt; accepted exactly when `reason` is None."""

    request: SummaryRequest
    result: SummaryResult


def _chunk_results(chunk: list[SummaryRequest], job: Compression, progress: Progress) -> Iterator[list[SummaryResult]]:
    """Results of one chunk, batch by batch; attempts over what failed before, then the fallback."""
    pending: list[_Judged | SummaryRequest] = list(chunk)
    num_attempts = min(job.settings.max_attempts, job.backend.max_attempts)
    for attempt in range(num_attempts):
        before = {item.request.key: item.result for item in pending if isinstance(item, _Judged)}
        asked = [_next_attempt(item, attempt) if isinstance(item, _Judged) else item for item in pending]
        pending = []
        judging = (_judge(batch, job, before) for batch in _answers(asked, job, progress))
        for judged in in_turn(judging, progress.add_waiting):
            pending.extend(item for item in judged if item.result.state == "rejected")
            yield [item.result for item in judged if item.result.state == "accepted"]
        if not pending:
            return
    failed = [item for item in pending if isinstance(item, _Judged)]
    falls_back = job.settings.fallback == "extractive" and job.backend.name != ExtractiveBackend.name
    batches = (failed[i : i + job.batch_size] for i in range(0, len(failed), job.batch_size))
    ended = (_fall_back(batch, job) if falls_back else done(batch) for batch in batches)
    for batch in in_turn(ended, progress.add_waiting):
        yield [item.result for item in batch]


def _next_attempt(item: _Judged, attempt: int) -> SummaryRequest:
    return replace(item.request, attempt=attempt, previous=item.result.reason)


def _answers(requests: list[SummaryRequest], job: Compression, progress: Progress) -> Iterator[Answered]:
    """Every request with its answer, from the cache or the backend, or with None; in batches."""
    # A model-free summary is made faster than it is looked up.
    cache = job.cache if job.backend.name != ExtractiveBackend.name else None
    digests = {request.key: request_digest(request, job.settings) for request in requests}
    stored = cache.lookup(list(digests.values())) if cache else {}
    found = [(request, stored[digests[request.key]]) for request in requests if digests[request.key] in stored]
    # Damaged answers were once stored; they are asked for again.
    known = [(request, answer) for request, answer in found if _undamaged(answer, request).error is None]
    progress.num_cached += len(known)
    for i in range(0, len(known), job.batch_size):
        yield [(request, replace(answer, key=request.key)) for request, answer in known[i : i + job.batch_size]]
    answered = {request.key for request, _ in known}
    missing = [request for request in requests if request.key not in answered]
    if not missing:
        return
    for batch in _joined(missing, digests, job, progress):
        if cache:
            cache.add(answer for _, answer in batch if answer is not None)
        yield batch


def _joined(
    missing: list[SummaryRequest], digests: dict[str, str], job: Compression, progress: Progress
) -> Iterator[Answered]:
    """The backend's answers with the requests they belong to, then the requests without one."""
    waiting = {(request.key, request.source_digest, digests[request.key]): request for request in missing}
    batch: Answered = []
    batch_started_s = time.monotonic()
    stopwatch = _Stopwatch(progress)
    complete = False
    try:
        for answer in job.backend.answer(missing, job.settings):
            stopwatch.saw(answer)
            request = waiting.pop((answer.key, answer.source_digest, answer.request_digest), None)
            if request is None:
                continue
            progress.num_answers += 1
            progress.num_prompt_tokens += answer.num_prompt_tokens
            progress.num_generated_tokens += answer.num_generated_tokens
            batch.append((request, _undamaged(readable(answer), request)))
            if len(batch) >= job.batch_size or time.monotonic() - batch_started_s > _BATCH_S:
                full, batch, batch_started_s = batch, [], time.monotonic()
                yield full
        complete = True
    finally:
        # Answers of an engine that then broke are as good as any; the next run does not ask for them again.
        if not complete and job.cache and job.backend.name != ExtractiveBackend.name:
            job.cache.add(answer for _, answer in batch if answer is not None)
    batch.extend((request, None) for request in waiting.values())
    if batch:
        yield batch


def _undamaged(answer: SummaryAnswer, request: SummaryRequest) -> SummaryAnswer:
    """The answer; an error in its place when its sentence lost characters that nothing else accounts for."""
    if answer.error is not None or answer.finish == "length" or _LOST_CHARACTER in request.text:
        return answer
    if _LOST_CHARACTER not in answer.raw_text or _LOST_CHARACTER not in (text := clean_summary(answer.raw_text).text):
        return answer
    what = f"characters were lost on the way: {text}"[:2000]
    return replace(answer, error=what, error_kind=Reason.engine_error)


def _judge(batch: Answered, job: Compression, before: dict[str, SummaryResult]) -> Pending[list[_Judged]]:
    """Clean, check, score and gate one batch."""
    judged = [_check(request, answer, job, job.backend.name, before.get(request.key)) for request, answer in batch]
    return _scored(judged, job, gated=True)


def _check(
    request: SummaryRequest,
    answer: SummaryAnswer | None,
    job: Compression,
    writer_name: str,
    before: SummaryResult | None,
) -> _Judged:
    result = SummaryResult(
        key=request.key,
        source_digest=request.source_digest,
        text=None,
        backend=writer_name,
        attempts=request.attempt + 1,
        state="rejected",
        num_prompt_tokens=before.num_prompt_tokens if before else 0,
        num_generated_tokens=before.num_generated_tokens if before else 0,
        seconds=before.seconds if before else 0.0,
    )
    if answer is None:
        return _Judged(request, replace(result, reason=Reason.no_answer, detail="the backend gave no answer"))
    result = replace(
        result,
        raw_text=answer.raw_text,
        num_prompt_tokens=result.num_prompt_tokens + answer.num_prompt_tokens,
        num_generated_tokens=result.num_generated_tokens + answer.num_generated_tokens,
        seconds=result.seconds + answer.seconds,
    )
    if answer.error is not None:
        return _Judged(request, replace(result, reason=answer.error_kind or Reason.engine_error, detail=answer.error))
    candidate = clean_summary(answer.raw_text)
    reasons = check_summary(candidate.text, request, job.settings, None if candidate.ended else answer.finish)
    if reasons:
        added = new_numbers(candidate.text, request, job.settings) if Reason.summary_ungrounded in reasons else []
        what = f" (no caption says {', '.join(added)})" if added else ""
        detail = f"{', '.join(reasons)}{what}: {candidate.text or answer.raw_text!r}"
        return _Judged(request, replace(result, reason=reasons[0], detail=detail[:2000]))
    return _Judged(request, replace(result, text=candidate.text, state="accepted"))


def _scored(judged: list[_Judged], job: Compression, *, gated: bool) -> Pending[list[_Judged]]:
    """The same items in the same order, those with a text scored and, where asked, gated."""
    passed = [(item, item.result.text) for item in judged if item.result.text is not None]
    if job.score is None or not passed:
        return done(judged)
    scoring = job.score([item.request for item, _ in passed], [text for _, text in passed])
    gate = job.gate if gated else None
    return scoring.then(lambda rows: _with_scores(judged, rows, gate))


def _with_scores(judged: list[_Judged], rows: list[Scores], gate: Gate | None) -> list[_Judged]:
    scores = iter(rows)
    out = []
    for item in judged:
        if item.result.text is None:
            out.append(item)
            continue
        result = replace(item.result, scores=next(scores))
        failing = gate(result.scores) if gate else []
        if failing:
            detail = f"{'; '.join(failing)}: {result.text}"
            result = replace(result, text=None, state="rejected", reason=Reason.gate_failed, detail=detail[:2000])
        out.append(_Judged(item.request, result))
    return out


def _fall_back(failed: list[_Judged], job: Compression) -> Pending[list[_Judged]]:
    """Extractive summaries of what the model could not do; checked and scored, but not gated away."""
    writer = ExtractiveBackend()
    requests = [item.request for item in failed]
    out = []
    for item, answer in zip(failed, writer.answer(requests, job.settings), strict=True):
        new = _check(item.request, answer, job, writer.name, None).result
        if new.text is None:
            out.append(item)
            continue
        result = replace(
            item.result,
            text=new.text,
            backend=writer.name,
            state="accepted",
            detail=f"instead of {item.result.detail}"[:2000],
            raw_text=new.raw_text,
            scores={},
        )
        out.append(_Judged(item.request, result))
    return _scored(out, job, gated=False)
