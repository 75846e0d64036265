"""moto's S3 on loopback, with a note of who asked for what."""

from __future__ import annotations

import threading
import urllib.request
from collections import Counter
from collections.abc import Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


class ObjectStore:
    """Every request is written down as (method, path); `sent` has the bytes that went out, by path."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.sent: Counter[str] = Counter()
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            if environ["REQUEST_METHOD"] == "GET":
                sizes = [int(value) for name, value in headers if name.lower() == "content-length"]
                self.sent[environ["PATH_INFO"]] += sum(sizes)
            return start_response(status, headers, *more)

        return self._app(environ, start)

    def make_bucket(self, name: str) -> str:
        request = urllib.request.Request(f"{self.url}/{name}", data=b"", method="PUT")
        with urllib.request.urlopen(request, timeout=10):
            return f"s3://{name}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
