from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.summarize.chat_server import ChatServer, Reply


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ChatServer]]:
    """Start chat servers that end with the test; their key is in the environment."""
    monkeypatch.setenv("GEX_TEST_KEY", "sk-secret-4711")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    servers: list[ChatServer] = []

    def start(*reply: Callable[[dict[str, Any]], Reply]) -> ChatServer:
        servers.append(ChatServer(*reply))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
