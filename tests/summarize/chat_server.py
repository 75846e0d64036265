"""A real HTTP server on the loopback that speaks chat completions, well or badly."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    text: str = ""
    status: int = 200
    body: str | None = None
    delay_s: float = 0.0
    id: str = "chatcmpl-1"
    finish: str = "stop"
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1  # how often the whole response is sent
    trickle_s: float = 0.0  # before each of ten pieces of the body
    sent_bytes: int | None = None  # of the body, whatever Content-Length says; then the connection ends

    def encoded(self) -> bytes:
        if self.body is not None:
            return self.body.encode()
        if self.status != 200:
            return json.dumps({"error": {"message": self.text, "type": "error", "code": self.status}}).encode()
        return json.dumps(
            {
                "id": self.id,
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": self.text},
                        "finish_reason": self.finish,
                    }
                ],
                "usage": {"prompt_tokens": 100, "completion_tokens": 12, "total_tokens": 112},
            }
        ).encode()


def captions_of(body: dict[str, Any]) -> list[str]:
    """The numbered captions of the last user message."""
    return re.findall(r"^\d+\. (.*)$", body["messages"][-1]["content"], flags=re.MULTILINE)


def joined_captions(body: dict[str, Any]) -> Reply:
    """A good answer: the first caption and the beginning of the last."""
    captions = captions_of(body)
    return Reply(f"{captions[0]} and {' '.join(captions[-1].split()[:7])}.")


class ChatServer:
    """`reply(body)` decides every answer; bodies and headers of all requests are kept."""

    def __init__(self, reply: Callable[[dict[str, Any]], Reply] = joined_captions) -> None:
        self.reply = reply
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.open_now = self.open_most = 0
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server.lock:
                    server.bodies.append(body)
                    server.headers.append({name.lower(): value for name, value in self.headers.items()})
                    server.open_now += 1
                    server.open_most = max(server.open_most, server.open_now)
                    reply = server.reply(body)
                time.sleep(reply.delay_s)
                with server.lock:
                    server.open_now -= 1
                with contextlib.suppress(ConnectionError):  # the client no longer waits
                    for _ in range(reply.times):
                        self._send(reply, reply.encoded())

            def _send(self, reply: Reply, content: bytes) -> None:
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", "retry-after-ms": "5", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if reply.trickle_s:
                    piece_bytes = len(content) // 10 + 1
                    for start in range(0, len(content), piece_bytes):
                        time.sleep(reply.trickle_s)
                        self.wfile.write(content[start : start + piece_bytes])
                    return
                self.wfile.write(content[: reply.sent_bytes])
                self.close_connection |= reply.sent_bytes is not None

            def log_message(self, *args: object) -> None:
                pass

        return Handler
