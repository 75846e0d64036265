"""A proxy on loopback in front of an object store that does to chosen requests what networks and stores do.

A `Fault` says which requests it is for, how often it strikes and what it does; it counts what it did, so that a test
can assert that the fault really happened. Requests without a fault pass unchanged.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_ERROR = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{text}</Message></Error>'
_NOT_PASSED = frozenset({"connection", "transfer-encoding", "content-length", "server", "date"})
_PIECES = 20  # of a slow body, a second
ALWAYS = 10**9


@dataclass
class Fault:
    """What happens to the next `times` requests of `method` (any when empty) whose path and query hold `part`."""

    kind: str  # answer, hang, cut, slow, close, reset, half
    method: str = ""
    part: str = ""
    times: int = 1
    status: int = 500  # of an answer
    code: str = "InternalError"  # of an answer, in S3's words
    text: str = "injected"
    bytes_a_s: int = 1  # of a slow body
    num_done: int = 0
    paths: list[str] = field(default_factory=list)  # of the requests it struck


class FaultyStore:
    """The proxy. `requests` has every request as (method, path with query), faulty or not."""

    def __init__(self, backend_url: str) -> None:
        self.backend = urlsplit(backend_url).netloc
        self.requests: list[tuple[str, str]] = []
        self.over = threading.Event()  # the end of a block of faults: what still hangs or dribbles is ended
        self._faults: list[Fault] = []
        self._turn = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"store": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextlib.contextmanager
    def faults(self, *faults: Fault) -> Any:
        """These faults for the time of a block; yields the list of requests made inside it."""
        first = len(self.requests)
        self.over = threading.Event()
        self._faults = list(faults)
        seen: list[tuple[str, str]] = []
        try:
            yield seen
        finally:
            self._faults = []
            self.over.set()
            seen += self.requests[first:]

    def strike(self, method: str, path: str) -> Fault | None:
        """The fault this request meets, counted; None for most."""
        with self._turn:
            self.requests.append((method, path))
            for fault in self._faults:
                if fault.num_done < fault.times and fault.method in ("", method) and fault.part in path:
                    fault.num_done += 1
                    fault.paths.append(path)
                    return fault
        return None

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    store: FaultyStore
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()
            return
        self.close_connection = True

    def _serve(self) -> None:
        fault = self.store.strike(self.command, self.path)
        kind = fault.kind if fault else ""
        if kind == "hang":
            self.store.over.wait(60)
        if kind in ("hang", "close"):
            self.close_connection = True
            return
        if kind == "reset":
            self.rfile.read(int(self.headers.get("Content-Length", "0")) // 2)
            self._reset()
            return
        body = self._body()
        if fault is not None and kind == "answer":
            content = _ERROR.format(code=fault.code, text=fault.text).encode()
            self._answer(fault.status, [("Content-Type", "application/xml")], content, fault)
            return
        self._answer(*self._ask_store(body), fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        content = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return content

    def _ask_store(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.store.backend, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "transfer-encoding", "content-length", "expect"):
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            self.length = answer.headers.get("Content-Length")
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _NOT_PASSED]
            return answer.status, headers, answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, fault: Fault | None) -> None:
        kind = fault.kind if fault else ""
        sent = body[: len(body) // 2] if kind == "cut" else body
        is_head = self.command == "HEAD"
        length = (getattr(self, "length", None) or "0") if is_head else str(len(body))
        if kind == "half":  # the store says that it holds half of the object
            length = str(int(length) // 2)
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", length)
        self.end_headers()
        if is_head:
            return
        if fault is not None and kind == "slow":
            self._send_slowly(sent, fault.bytes_a_s)
        else:
            self.wfile.write(sent)
        if kind == "cut":
            self.close_connection = True

    def _send_slowly(self, body: bytes, bytes_a_s: int) -> None:
        step = max(1, bytes_a_s // _PIECES)
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            if self.store.over.wait(step / bytes_a_s):
                self.close_connection = True
                return

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
