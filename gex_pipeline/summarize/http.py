"""Summaries from an OpenAI-compatible server: bounded concurrency, one answer or one error a request.

A failing request costs itself; a wrong key, an unknown model, a quota that is used up or a server that is gone or
busy ends the run, since it would cost all of them. Whether a failure is the server's or the text's is asked of the
server: it is the text's where a short request of ours is answered. The key is read from the environment and appears in
no message.
Requests carry their digest as `X-Request-Id`; a response that repeats another one's is an error. Every request has a
connection of its own: on a kept one, a server that answers twice answers the next request with the second.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
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
from gex_pipeline.shard_format import text_digest
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
_BUSY = 429
_MAX_BYTES = 4 << 20  # of one answer, unpacked; the longest that models give are a tenth of it
_MAX_WHY = 80  # characters of why an answer cannot be read
_MAX_SAID = 200  # characters of a server's own words in a message
_OF_TRANSPORT = frozenset({"content-encoding", "content-length", "transfer-encoding"})
_CONNECT_SHARE = 0.9  # of the wait for an answer; a connection that comes later than that would bring none
_KEY_PART = 6  # characters of a key that give it away
_CAPTIONS = ("a dog runs over a meadow", "a child throws a ball")
_PROBE = SummaryRequest("probe", text_digest(". ".join(_CAPTIONS)), _CAPTIONS, ". ".join(_CAPTIONS))


class _NoCompletionError(Exception):
    """An answer with a status of success that holds no chat completion; says what it holds, without the key."""


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
            GexError: the server refuses the key, its quota is used up, or model or path are unknown there.
            TransientError: nothing answers at the URL, or errors only, or the server stays busy.
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
    if not (key.isascii() and key.isprintable()) or " " in key:
        # No header can hold it, and what the client says of that would repeat it.
        raise GexError(
            f"environment variable {settings.api_key_env} holds a line end, a space or another character that no key "
            f"has; it has to hold the key of {settings.url} and nothing else"
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
    failing_in_row: int = 0  # answers that may be the server's fault, since the last that were not
    failure: str = ""  # the last of them
    num_tries: int = 1  # how often the last of them was asked for
    no_fault: str = ""  # the last that is no text's fault: no connection came to be, or the server was busy
    probing: asyncio.Lock = field(default_factory=asyncio.Lock)
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
        from openai import AsyncOpenAI, Timeout

        settings = self.settings
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        if task is not None:
            self.cancel_loop = functools.partial(loop.call_soon_threadsafe, task.cancel)
        async with AsyncOpenAI(
            api_key=_api_key(settings),
            base_url=settings.url,
            timeout=Timeout(settings.timeout_s, connect=_CONNECT_SHARE * settings.timeout_s),
            max_retries=settings.max_retries,
            http_client=_bounded_transport(settings.timeout_s),
        ) as client:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(settings.max_in_flight):
                        group.create_task(self._worker(client))
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
            if not self.stop.is_set():
                await self._check_server(client, at_least=1)
        if self.no_fault:
            # No request's fault: rejected for it, a text would never be asked for again.
            raise TransientError(f"{settings.url}: {self.no_fault}; look after the server and run again")

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
            answer = _read_response(await _send(client, request, digest, self.settings), empty, self.settings)
        except openai.APIConnectionError as error:
            answer = self._unreachable(error, empty)
        except openai.APIError as error:
            answer = self._refused(error, empty)
        except _NoCompletionError as error:  # of this text, or of a proxy that answers in the server's place
            self._note_failure(str(error), num_tries=1)  # the client repeats none that succeeded
            answer = _failed(empty, Reason.engine_error, self.failure)
        else:
            self.failing_in_row = 0
        await self._check_server(client, at_least=max(8, 2 * self.settings.max_in_flight))
        if answer.error is not None:
            # A server may repeat what it was sent; errors end in tables.
            answer = replace(answer, error=_without_key(answer.error, self.settings))
        return replace(answer, seconds=time.perf_counter() - started_s)

    def _refused(self, error: Any, empty: SummaryAnswer) -> SummaryAnswer:
        """The server answered with an error: of this request, of the server, or one that all others would get too."""
        settings, status = self.settings, getattr(error, "status_code", None) or 0
        key = settings.api_key_env or "api_key_env"
        # The server's own words may repeat part of the key, so only the status is passed on here.
        meaning = {
            401: f"does not accept the key in {key}",
            402: f"wants to be paid before it answers the key in {key}",
            403: f"does not allow this with the key in {key}",
            404: f"knows no model {settings.model!r}, or the path of the URL is wrong",
        }.get(status)
        if 300 <= status < 400:  # where to may be an inner address, and a server's word is no leave to go there
            meaning = "sends elsewhere; put the address that answers into url"
        if "insufficient_quota" in (getattr(error, "code", None), getattr(error, "type", None)):
            meaning = f"answers no more, since the quota of the key in {key} is used up: insufficient_quota"
        if meaning:
            raise GexError(f"the server at {settings.url} {meaning} (HTTP {status})")
        if not _is_of_server(status):
            self.failing_in_row = 0
            too_long = status in (400, 413, 422) and TOO_LONG.search(f"{error} {getattr(error, 'body', '')}")
            return _failed(empty, Reason.prompt_too_long if too_long else Reason.engine_error, str(error))
        self._note_failure(f"HTTP {status}: {_said(error, settings)}", settings.max_retries + 1)
        if status == _BUSY:
            self.no_fault = self.failure
        return _failed(empty, Reason.engine_error, self.failure)

    def _unreachable(self, error: BaseException, empty: SummaryAnswer) -> SummaryAnswer:
        """No answer came, or half of one."""
        import openai

        slow = isinstance(error, openai.APITimeoutError)
        # A server that speaks no HTTP is quoted there, and may repeat what it was sent.
        said = _without_key(_one_line(str(error.__cause__ or error)), self.settings)[:_MAX_SAID]
        failure = f"no answer within {self.settings.timeout_s:g} s" if slow else f"connection failed: {said}"
        self._note_failure(failure, self.settings.max_retries + 1)
        # By name: the client's transport is one of two packages, as its version is.
        if type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout"):
            self.no_fault = self.failure
        return _failed(empty, Reason.no_answer if slow else Reason.engine_error, self.failure)

    def _note_failure(self, failure: str, num_tries: int) -> None:
        self.failing_in_row += 1
        self.failure, self.num_tries = failure, num_tries

    async def _check_server(self, client: Any, *, at_least: int) -> None:
        """After so many failures in a row, ask whether the server answers anything.

        Raises:
            TransientError: it does not, or what failed last was no text's fault.
        """
        if self.failing_in_row < at_least:
            return
        async with self.probing:
            num_failing = self.failing_in_row
            if num_failing < at_least:  # another worker has asked meanwhile
                return
            if not self.no_fault and await self._answers(client):
                self.failing_in_row = 0  # so those failures were the texts' own
                return
        tries = f"{self.num_tries} tries" if self.num_tries > 1 else "1 try"
        often = f"{num_failing} requests in a row with {tries} each" if num_failing > 1 else tries
        raise TransientError(f"{self.settings.url}: {self.failure}, {often}; look after the server and run again")

    async def _answers(self, client: Any) -> bool:
        """Whether the server answers a short request that no text can spoil, be it with words or a complaint."""
        import openai

        digest = request_digest(_PROBE, self.settings)
        empty = SummaryAnswer(digest, _PROBE.key, _PROBE.source_digest)
        try:
            _read_response(await _send(client, _PROBE, digest, self.settings), empty, self.settings)
        except (openai.APIConnectionError, _NoCompletionError):
            return False
        except openai.APIStatusError as error:
            return not _is_of_server(error.status_code)
        except openai.APIError:
            return True  # no completion, but an answer
        return True


def _is_of_server(status: int) -> bool:
    """Whether an HTTP status may say nothing about the request: busy, failing, or a proxy before a server that is."""
    return status in (408, _BUSY) or status >= 500


def _said(error: Any, settings: SummarizerSettings) -> str:
    """What the server said of an error, and when it wants to be asked again; in one bounded line, without the key."""
    body = getattr(error, "body", None)
    said = body.get("message") if isinstance(body, dict) else body
    line = _without_key(_one_line(str(said or error)), settings)[:_MAX_SAID]
    response = getattr(error, "response", None)
    wait = _one_line(response.headers.get("retry-after", ""))[:_MAX_SAID] if response is not None else ""
    return f"{line} (Retry-After: {wait})" if wait else line


def _one_line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _without_key(text: str, settings: SummarizerSettings) -> str:
    """A text without the key, and without words that hold its beginning."""
    if not settings.api_key_env:
        return text
    key = _api_key(settings)
    text = text.replace(key, "***")
    return re.sub(rf"\S*{re.escape(key[:_KEY_PART])}\S*", "***", text) if len(key) > 2 * _KEY_PART else text


def _bounded_transport(timeout_s: float) -> Any:
    """The client's own transport, each try of which ends after `timeout_s` or so many bytes, and follows nowhere.

    By itself it waits so long for every piece, and unpacks what grows a thousandfold.
    """
    from openai import DefaultAsyncHttpxClient

    transport: Any = DefaultAsyncHttpxClient(follow_redirects=False)
    # httpx or its successor, as the client's version is; only their own errors are tries that it repeats.
    package = importlib.import_module(DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0])
    send = transport.send

    async def send_bounded(request: Any, **how: Any) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await _read_bounded(await send(request, **{**how, "stream": True}), package)
        except TimeoutError as error:
            raise package.ReadTimeout(f"no whole answer within {timeout_s:g} s", request=request) from error

    transport.send = send_bounded
    return transport


async def _read_bounded(response: Any, package: Any) -> Any:
    """The response with its content read, or with a word in its place where there is too much of it."""
    content = b""
    try:
        async for piece in response.aiter_bytes():
            content += piece
            if len(content) > _MAX_BYTES:
                content = f"an answer of more than {_MAX_BYTES:,} bytes".encode()
                break
    finally:
        await response.aclose()
    headers = [(name, value) for name, value in response.headers.items() if name.lower() not in _OF_TRANSPORT]
    return package.Response(response.status_code, headers=headers, content=content, request=response.request)


async def _send(client: Any, request: SummaryRequest, digest: str, settings: SummarizerSettings) -> Any:
    """The response, of which nothing is read yet."""
    ours = _ID_PREFIX + digest[:32]
    return await client.chat.completions.with_raw_response.create(
        model=settings.model,
        messages=build_messages(request, settings),
        extra_headers={"X-Request-Id": ours, "Connection": "close", "Accept-Encoding": "identity"},
        **sampling(request, settings),
    )


def _read_response(response: Any, empty: SummaryAnswer, settings: SummarizerSettings) -> SummaryAnswer:
    """The answer that a response holds.

    Raises:
        _NoCompletionError: it holds none.
    """
    try:
        return _read_completion(response.parse(), response.headers, empty)
    except (ValueError, TypeError, AttributeError, LookupError) as error:  # not what the protocol says
        why, said = (_without_key(_one_line(text), settings) for text in (str(error), response.text))
        what = f"HTTP {response.status_code} without a chat completion ({why[:_MAX_WHY]})"
        raise _NoCompletionError(f"{what}: {said[:_MAX_SAID] or 'no words'}") from error


def _read_completion(completion: Any, headers: Any, empty: SummaryAnswer) -> SummaryAnswer:
    # vLLM repeats our id in the completion's id, proxies in the header; servers with ids of their own repeat nothing.
    ours = _ID_PREFIX + empty.request_digest[:32]
    for value in (str(getattr(completion, "id", "")), headers.get("x-request-id", "")):
        if (found := _OUR_ID.search(value)) and found.group() != ours:
            return _failed(empty, Reason.engine_error, f"the answer carries id {found.group()}, asked was {ours}")
    choices = getattr(completion, "choices", None)
    if not choices:
        raise ValueError("no choices")
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
