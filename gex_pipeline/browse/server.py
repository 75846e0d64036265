"""Serves the pages until it is stopped: an open index and a place to listen in; nothing out."""

from __future__ import annotations

import ipaddress
import signal
import socket
from collections.abc import Callable
from contextlib import closing, suppress

import uvicorn

from gex_pipeline.browse.app import make_app
from gex_pipeline.browse.index import Index
from gex_pipeline.errors import GexError

_GRACE_S = 2  # for answers under way when the server is stopped; a video could go on for hours
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        GexError: the place cannot be listened on.
    """
    opened = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        # asyncio turns Nagle's delay off only where a socket tells its protocol
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(128)
    except (OSError, OverflowError) as error:
        if opened is not None:
            opened.close()
        raise GexError(f"cannot listen on {host!r}, port {port}: {error}") from error
    return opened


def is_loopback(listening: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


def address_of(listening: socket.socket, host: str) -> str:
    """The address to open in a browser; of a socket that listens everywhere under this machine's name."""
    bound, port = listening.getsockname()[:2]
    if ipaddress.ip_address(bound.partition("%")[0]).is_unspecified:
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def serve(index: Index, title: str, listening: socket.socket, host: str, begun: Callable[[], None]) -> None:
    """Answer requests until Ctrl-C or SIGTERM, the ways to end it; `begun` is called when it can be asked."""
    hosts = (*_LOOPBACK_NAMES, host.lower(), listening.getsockname()[0]) if is_loopback(listening) else None
    config = uvicorn.Config(
        make_app(index, title, hosts),
        access_log=False,
        date_header=False,
        lifespan="off",
        log_level="error",
        loop="asyncio",
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        ws="none",
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the scratch files are removed on the way out
    with closing(listening), suppress(KeyboardInterrupt):
        _Server(config, begun).run(sockets=[listening])


class _Server(uvicorn.Server):
    """Says when it can be asked: from then on a signal ends it in order."""

    def __init__(self, config: uvicorn.Config, begun: Callable[[], None]) -> None:
        super().__init__(config)
        self._begun = begun

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._begun()
