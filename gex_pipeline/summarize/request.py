"""What is asked and what came back: requests, answers and the digests that join them.

A request is identified by its key and the digest of the long text it is made from; an answer repeats
both, so that a mix-up is seen instead of published. The request digest covers everything that decides
the answer and nothing else, which makes it the key of the response cache.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from gex_pipeline.errors import Reason
from gex_pipeline.summarize.chat_template import chat_template_text
from gex_pipeline.summarize.model_identity import model_identity
from gex_pipeline.summarize.prompt import build_messages
from gex_pipeline.summarize.running import deciding_engine
from gex_pipeline.summarize.settings import SummarizerSettings

# Generation stops where a model starts to continue the prompt instead of answering it.
STOP = ("[captions", "[end ", "\nUSER:")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_LONGEST_CHARS = 20_000  # of an answer; far over any token limit that a summary may have


@dataclass(frozen=True)
class SummaryRequest:
    """One long text to compress; `captions` in time order, `text` as it is published."""

    key: str
    source_digest: str  # shard_format.text_digest of `text`
    captions: tuple[str, ...]
    text: str
    attempt: int = 0
    previous: Reason | None = None  # why the answer to the attempt before was not accepted


@dataclass(frozen=True)
class SummaryAnswer:
    """What a backend made of one request: `raw_text`, or an `error` with its kind."""

    request_digest: str
    key: str
    source_digest: str
    raw_text: str = ""
    error: str | None = None
    error_kind: Reason | None = None
    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0
    finish: Literal["stop", "length"] | None = None
    seconds: float = 0.0  # wall time of this answer, waiting in the engine included


def readable(answer: SummaryAnswer) -> SummaryAnswer:
    """The answer as tables can hold it; an error in its place when what came is no text."""
    if answer.error is not None:
        return answer
    if not isinstance(answer.raw_text, str):
        return _unreadable(answer, f"the answer is no text but {type(answer.raw_text).__name__}")
    if _HALF_CHARACTER.search(answer.raw_text):
        return _unreadable(answer, "the answer holds half of a character (a lone surrogate)")
    return replace(answer, raw_text=answer.raw_text[:_LONGEST_CHARS])


def _unreadable(answer: SummaryAnswer, what: str) -> SummaryAnswer:
    return replace(answer, raw_text="", error=what, error_kind=Reason.engine_error)


def sampling(request: SummaryRequest, settings: SummarizerSettings) -> dict[str, Any]:
    """Sampling parameters of one attempt: greedy by default at first, then warmer; the seed differs by text."""
    retry = request.attempt > 0
    return {
        "temperature": settings.retry_temperature if retry else settings.temperature,
        "top_p": 0.9 if retry else 1.0,
        "max_tokens": settings.max_tokens,
        "seed": (settings.seed + request.attempt + int(request.source_digest[:8], 16)) % 2**31,
        "stop": list(STOP),
    }


def request_digest(request: SummaryRequest, settings: SummarizerSettings) -> str:
    """SHA-256 (hex) of what decides the answer: model, prompt, sampling; not the key, the server or the machines."""
    parts = {
        "backend": settings.backend,
        "model": model_identity(settings.model, settings.revision) if settings.backend == "vllm" else settings.model,
        "revision": settings.revision,
        "messages": build_messages(request, settings),
        "sampling": sampling(request, settings),
        "attempt": request.attempt,
        "chat_template": chat_template_text(settings) if settings.backend == "vllm" else None,
        "engine": deciding_engine(settings.engine),
    }
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()
