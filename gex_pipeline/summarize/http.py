"""Summaries from an OpenAI-compatible server: bounded concurrency, one answer or one error a request.

A failing request costs itself; a wrong key, an unknown model or a server that is gone ends the run,
since it would cost all of them. The key is read from the environment and appears in no message.
Requests carry their digest as `X-Request-Id`; a response that repeats another one's is an error. Every request has a
connection of its own: on a kept one, a server that answers twice answers the next request with the second.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from gex_pipeline.errors import GexError, MissingExtraError, Reason, TransientError
from gex_pipeline.summarize.prompt import build_messages
from gex_pipeline.summarize.request import SummaryAnswer, SummaryRequest, request_digest, sampling
from gex_pipeline.summarize.settings import SummarizerSettings

TOO_LONG = re.compile(
    r"context[_ ]length|context window|max_model_len|maximum (?:model|input|prompt) length|prompt is too long"
    r"|too many tokens|longer than the maximum",
    re.IGNORECASE,
)
_ID_PREFIX = "gex-"
_OUR_ID = re.compile(_ID_PREFIX + r"[0-9a-f]{32}")
_QUEUE_SECONDS = 1.0  # how often a waiting side looks whether the other one is still there


class HttpBackend:
    """Asks a chat-completions endpoint."""

    name = "http"

    def __init__(self, settings: SummarizerSettings) -> None:
        self.max_attempts = settings.max_attempts

    def check_ready(self, settings: SummarizerSettings) -> None:
        """Raises GexError when the client or the key is missing."""
        if importlib.util.find_spec("openai") is None:
            raise MissingExtraError("openai", "http")
        _api_key(settings)

    def answer(self, requests: Iterable[SummaryRequest], settings: SummarizerSettings) -> Iterator[SummaryAnswer]:
        """One answer a request, as they arrive; at most `max_in_flight` are open.

        Raises:
            GexError: the server refuses the key or does not know the model or the path.
            TransientError: nothing answers at the URL.
        """
        self.check_ready(settings)
        exchange = _Exchange(iter(requests), settings)
        with ThreadPoolExecutor(1, "gex-http-summaries") as executor:
            done = executor.submit(exchange.run)
            try:
                while (answer := exchange.answers.get()) is not None:
                    yield answer
                done.result()
            finally:
                exchange.cancel()


def _api_key(settings: SummarizerSettings) -> str:
    if not settings.api_key_env:
        return "none"  # the client wants one; servers without keys ignore it
    key = os.environ.get(settings.api_key_env, "").strip()
    if not key:
        raise GexError(
            f"environment variable {settings.api_key_env} is not set; it has to hold the key of {settings.url} "
            '(a server without keys: api_key_env = "")'
        )
    return key


@dataclass
class _Exchange:
    """Everything between the caller's thread and the event loop in ours; None in `answers` is the end."""

    requests: Iterator[SummaryRequest]
    settings: SummarizerSettings
    answers: queue.Queue[SummaryAnswer | None] = field(default_factory=lambda: queue.Queue(1024))
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    unreachable_in_row: int = 0
    not_connected: str = ""  # how the last connection failed that never came to be
    cancel_loop: Callable[[], object] = lambda: None

    def run(self) -> None:
        try:
            asyncio.run(self._all())
        finally:
            self._put(None)

    def cancel(self) -> None:
        """End all open requests; for a caller that wants no more answers."""
        self.stop.set()
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self.cancel_loop()

    async def _all(self) -> None:
        from openai import AsyncOpenAI

        settings = self.settings
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        if task is not None:
            self.cancel_loop = functools.partial(loop.call_soon_threadsafe, task.cancel)
        async with AsyncOpenAI(
            api_key=_api_key(settings),
            base_url=settings.url,
            timeout=settings.timeout_s,
            max_retries=settings.max_retries,
        ) as client:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(settings.max_in_flight):
                        group.create_task(self._worker(client))
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
        if self.not_connected:
            # No request's fault: rejected for it, a text would never be asked for again.
            raise TransientError(f"{settings.url}: {self.not_connected}; look after the server and run again")

    async def _worker(self, client: Any) -> None:
        while not self.stop.is_set():
            request = await asyncio.to_thread(self._next)
            if request is None:
                return
            answer = await self._ask(client, request)
            await asyncio.to_thread(self._put, answer)

    def _next(self) -> SummaryRequest | None:
        with self.lock:
            return next(self.requests, None)

    def _put(self, item: SummaryAnswer | None) -> None:
        while not self.stop.is_set():
            try:
                self.answers.put(item, timeout=_QUEUE_SECONDS)
            except queue.Full:
                continue
            return

    async def _ask(self, client: Any, request: SummaryRequest) -> SummaryAnswer:
        import openai

        digest = request_digest(request, self.settings)
        empty = SummaryAnswer(digest, request.key, request.source_digest)
        started_s = time.perf_counter()
        try:
            answer = _read_response(await _send(client, request, digest, self.settings), empty)
        except openai.APIConnectionError as error:
            answer = self._unreachable(error, empty)
        except openai.APIError as error:
            answer = self._refused(error, empty)
        except (ValueError, TypeError, AttributeError) as error:  # a body that is not what the protocol says
            answer = _failed(empty, Reason.engine_error, f"unreadable response: {type(error).__name__}: {error}")
            self.unreachable_in_row = 0
        else:
            self.unreachable_in_row = 0
        if answer.error is not None:
            # A server may repeat what it was sent; errors end in tables.
            answer = replace(answer, error=answer.error.replace(_api_key(self.settings), "***"))
        return replace(answer, seconds=time.perf_counter() - started_s)

    def _refused(self, error: Any, empty: SummaryAnswer) -> SummaryAnswer:
        """The server answered with an error: of this request, or one that all others would get too."""
        self.unreachable_in_row = 0
        settings, status = self.settings, getattr(error, "status_code", None)
        key = settings.api_key_env or "api_key_env"
        # The server's own words may repeat part of the key, so only the status is passed on here.
        meaning = {
            401: f"does not accept the key in {key}",
            403: f"does not allow this with the key in {key}",
            404: f"knows no model {settings.model!r}, or the path of the URL is wrong",
        }.get(status or 0)
        if meaning:
            raise GexError(f"the server at {settings.url} {meaning} (HTTP {status})")
        too_long = status in (400, 413, 422) and TOO_LONG.search(f"{error} {getattr(error, 'body', '')}")
        return _failed(empty, Reason.prompt_too_long if too_long else Reason.engine_error, str(error))

    def _unreachable(self, error: BaseException, empty: SummaryAnswer) -> SummaryAnswer:
        """No answer came; when none comes for a while, the server is gone and not the request bad."""
        import openai

        settings = self.settings
        self.unreachable_in_row += 1
        slow = isinstance(error, openai.APITimeoutError)
        what = (
            f"no answer within {settings.timeout_s:g} s" if slow else f"connection failed: {error.__cause__ or error}"
        )
        # By name: the client's transport is one of two packages, as its version is.
        if type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout"):
            self.not_connected = what
        limit = max(8, 2 * settings.max_in_flight)
        if self.unreachable_in_row >= limit:
            raise TransientError(
                f"{settings.url}: {what}, {limit} requests in a row with {settings.max_retries + 1} tries each; "
                "look after the server and run again"
            )
        return _failed(empty, Reason.no_answer if slow else Reason.engine_error, what)


async def _send(client: Any, request: SummaryRequest, digest: str, settings: SummarizerSettings) -> tuple[Any, Any]:
    """The parsed completion and the response's headers."""
    ours = _ID_PREFIX + digest[:32]
    raw = await client.chat.completions.with_raw_response.create(
        model=settings.model,
        messages=build_messages(request, settings),
        extra_headers={"X-Request-Id": ours, "Connection": "close"},
        **sampling(request, settings),
    )
    return raw.parse(), raw.headers


def _read_response(response: tuple[Any, Any], empty: SummaryAnswer) -> SummaryAnswer:
    completion, headers = response
    # vLLM repeats our id in the completion's id, proxies in the header; servers with ids of their own repeat nothing.
    ours = _ID_PREFIX + empty.request_digest[:32]
    for value in (str(getattr(completion, "id", "")), headers.get("x-request-id", "")):
        if (found := _OUR_ID.search(value)) and found.group() != ours:
            return _failed(empty, Reason.engine_error, f"the answer carries id {found.group()}, asked was {ours}")
    choices = getattr(completion, "choices", None)
    if not choices:
        return _failed(empty, Reason.engine_error, f"unreadable response: no choices in {str(completion)[:200]!r}")
    message, usage = choices[0].message, completion.usage
    return replace(
        empty,
        raw_text=message.content or getattr(message, "refusal", None) or "",
        num_prompt_tokens=int(usage.prompt_tokens or 0) if usage else 0,
        num_generated_tokens=int(usage.completion_tokens or 0) if usage else 0,
        # A filter cuts an answer as the token limit does.
        finish="length" if choices[0].finish_reason in ("length", "content_filter") else "stop",
    )


def _failed(empty: SummaryAnswer, kind: Reason, text: str) -> SummaryAnswer:
    return replace(empty, error=" ".join(text.split())[:500], error_kind=kind)
