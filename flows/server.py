"""Prefect's server for the time of a command, out of reach of the signals that end the command.

In: nothing. Out: an address that Prefect takes in this process, where nobody has set one (`PREFECT_API_URL`). Prefect
would start a server too, but as a child that Ctrl-C in a terminal, a hang-up or systemd's SIGTERM to all processes end
with the first of them: who is told to stop then asks for minutes for a server that is gone. This one is the same
application by the same command; it hears no signal and ends when the pipe to it is closed, however this process ends.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prefect.context import refresh_global_settings_context
from prefect.settings import get_current_settings

from gex_pipeline.errors import TransientError

_END_S = 5.0  # to write down what has come; as long as Prefect gives its own
_NOT_ITS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class TemporaryServer:
    """A server that comes up; it takes connections already, and answers them when it is there."""

    process: subprocess.Popen[bytes]
    url: str

    def wait(self) -> None:
        """Until it answers.

        Raises:
            TransientError: it ended, or did not come up in Prefect's time for it.
        """
        patience_s = get_current_settings().server.ephemeral.startup_timeout_seconds
        try:
            httpx.get(f"{self.url}/health", timeout=patience_s).raise_for_status()
        except httpx.HTTPError as error:
            code = self.process.poll()
            what = f"gave no answer in {patience_s} s" if code is None else f"ended with {code} while it started"
            raise TransientError(
                f"the Prefect server of this run {what} ({error}). Run the same command again, or with the address of "
                "another one in PREFECT_API_URL"
            ) from error


def start_server() -> TemporaryServer | None:
    """Start a server that lives as long as this process; none where an address is set, or Prefect may start none."""
    settings = get_current_settings()
    if settings.api.url or not settings.server.ephemeral.enabled:
        return None
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # For uvicorn a socket that it was given is no TCP; without this, answers wait for the other side's 40 ms.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        process = _spawn(listening)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
    # Before Prefect's own: at the end it is asked last, when all that is to be told is told.
    atexit.register(_end, process)
    os.environ["PREFECT_API_URL"] = url
    refresh_global_settings_context()
    return TemporaryServer(process, url)


def _spawn(listening: socket.socket) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(Path(__file__).parents[1])]
    command += ["--factory", "flows.server:application", "--fd", str(listening.fileno()), "--log-level", "error"]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_ITS)  # what is started meanwhile never gets them
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listening.fileno()])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.communicate(timeout=_END_S)  # which closes the pipe to it
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def application() -> Any:
    """In the server's process: what uvicorn serves, until nobody holds the other end of the pipe."""
    from prefect.server.api.server import create_app

    threading.Thread(target=_end_with_the_command, name="gex-command", daemon=True).start()
    return create_app(ephemeral=True, final=True)


def _end_with_the_command() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    signal.raise_signal(signal.SIGTERM)  # uvicorn's word for an end in order
    time.sleep(2 * _END_S)
    os._exit(1)
