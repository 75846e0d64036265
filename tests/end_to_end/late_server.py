"""A chat server that has an address before it listens there."""

from __future__ import annotations

import threading
from http.server import ThreadingHTTPServer

from tests.summarize.chat_server import ChatServer


class LateChatServer(ChatServer):
    """Connections are refused until `open_again`."""

    def __init__(self) -> None:
        super().__init__()
        self.port = self._server.server_port
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def open_again(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
