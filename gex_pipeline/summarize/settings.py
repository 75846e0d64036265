"""How long texts are compressed (Θ_t): the part of a recipe that this room reads.

Imports pydantic only, so that a recipe can be checked without any model library.
"""

from __future__ import annotations

from typing import Any, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator


class SummarizerSettings(BaseModel):
    """Knobs of one `compress_text` edge; everything but the model has a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Literal["extractive", "vllm", "http"] = "vllm"
    """Who writes the summaries: an engine on Ray workers, a server, or no model at all."""
    model: str | None = None
    """Directory or hub id of the model (`vllm`), or its name on the server (`http`)."""
    revision: str | None = None
    """Revision of a hub model: branch, tag or commit."""
    url: str | None = None
    """Base URL of an OpenAI-compatible server (`http`), for example `http://host:8000/v1`."""
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the server's key; empty for a server without keys."""
    min_words: int = Field(default=8, ge=1)
    """Fewest words that are asked of the model; not under `accept_min_words`."""
    max_words: int = Field(default=20, ge=1)
    """Most words that are asked of the model, not over `accept_max_words`; the extractive backend never exceeds it."""
    accept_min_words: int = Field(default=5, ge=1)
    """Fewest words of an accepted summary."""
    accept_max_words: int = Field(default=30, ge=1)
    """Most words of an accepted summary."""
    min_grounding: float = Field(default=0.5, ge=0, le=1)
    """Smallest accepted share of the summary's content words that the captions contain."""
    max_attempts: int = Field(default=3, ge=1, le=10)
    """How often a request is put to the model before it is rejected."""
    temperature: float = Field(default=0.0, ge=0, le=2)
    """Sampling temperature of the first attempt."""
    retry_temperature: float = Field(default=0.7, ge=0, le=2)
    """Sampling temperature of later attempts."""
    max_tokens: int = Field(default=64, ge=1)
    """Most tokens an answer may have; a summary cut there is rejected as truncated."""
    max_prompt_words: int = Field(default=1000, ge=20)
    """Most caption words in a prompt; halved with every attempt, so that an over-long prompt gets another chance."""
    max_model_len: int | None = Field(default=None, ge=-1)
    """Context length of the engine in tokens (`vllm`); -1: what its memory has room for; none: the model's own."""
    seed: int = 0
    """Seed of the sampling; each request and attempt derives its own from it."""
    fallback: Literal["none", "extractive"] = "none"
    """What happens after the last attempt: rejection, or an extractive summary that is marked as such."""
    example: bool = True
    """Whether the prompt shows one solved example."""
    chat_template: str | None = None
    """`vicuna_v1.5`, a Jinja file or text; none: that for models with "vicuna" in the name, else their own (`vllm`)."""
    engine: dict[str, Any] = {}
    """More keyword arguments of the vLLM engine; they override ours."""
    concurrency: int = Field(default=1, ge=1)
    """Number of engines, all started at once (`vllm`)."""
    max_concurrency: int | None = Field(default=None, ge=1)
    """Most engines: while requests wait, more are started where there is room; none: no more (`vllm`)."""
    batch_size: int = Field(default=64, ge=1)
    """Requests handed to an engine at a time (`vllm`)."""
    engine_timeout_s: float = Field(default=1800, gt=0)
    """Longest time without any answer, an engine's start included, before it counts as stuck, in seconds (`vllm`)."""
    timeout_s: float = Field(default=60, gt=0)
    """Longest wait for one answer of the server, to its last byte, in seconds (`http`)."""
    max_retries: int = Field(default=3, ge=0)
    """Repetitions with backoff when the server is busy, failing or unreachable (`http`)."""
    max_in_flight: int = Field(default=16, ge=1)
    """Requests open at the server at a time (`http`)."""

    @property
    def engine_gpus(self) -> int:
        """GPUs of one engine, on a cluster that has any."""
        if self.backend != "vllm":
            return 0
        return int(self.engine.get("tensor_parallel_size", 1)) * int(self.engine.get("pipeline_parallel_size", 1))

    @property
    def most_engines(self) -> int:
        """Engines that may be at work at a time."""
        return (self.max_concurrency or self.concurrency) if self.backend == "vllm" else 1

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.backend in ("vllm", "http") and not self.model:
            raise ValueError(f"summarizer backend {self.backend!r} needs `model`; only 'extractive' works without one")
        if self.backend == "http":
            _check_url(self.url)
        if self.max_model_len == 0:
            raise ValueError("max_model_len = 0 is no context; leave it out for the model's own, -1 for what has room")
        if self.max_concurrency is not None and self.max_concurrency < self.concurrency:
            raise ValueError(f"max_concurrency = {self.max_concurrency} is under concurrency = {self.concurrency}")
        for low, high in (("min_words", "max_words"), ("accept_min_words", "accept_max_words")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} = {getattr(self, low)} is over {high} = {getattr(self, high)}")
        for low, high in (("accept_min_words", "min_words"), ("max_words", "accept_max_words")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(
                    f"{low} = {getattr(self, low)} is over {high} = {getattr(self, high)}: "
                    "a summary of a length that is asked for would be rejected"
                )
        return self


def _check_url(url: str | None) -> None:
    if not url:
        raise ValueError("summarizer backend 'http' needs `url`, for example 'http://localhost:8000/v1'")
    shown = url.partition("@")[2] or url
    try:
        parts = urlsplit(url)
    except ValueError:  # its words may repeat a password
        raise ValueError(f"url {shown!r} is not an http(s) URL") from None
    if parts.username or parts.password or parts.query:
        # The recipe is stored with the data set, so nothing secret may be in it; the value is not repeated either.
        raise ValueError("url must not hold a user, a password or a query; name the key's variable in `api_key_env`")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"url {shown!r} is not an http(s) URL")
    if not _has_usable_port(parts):
        raise ValueError(f"url {shown!r}: the port has to be a number from 1 to 65535")


def _has_usable_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False
