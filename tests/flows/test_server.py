"""Prefect's server for the time of a command: real signals to a real one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE, temporary_settings

from flows.server import TemporaryServer, start_server
from gex_pipeline.errors import TransientError

ROOT = Path(__file__).parents[2]
COMMAND = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda *_: None)
from flows.server import start_server
server = start_server()
server.wait()
import prefect.settings
print(server.process.pid, prefect.settings.PREFECT_API_URL.value(), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def command(tmp_path):
    """A command with a server, in a group of their own."""
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    environment |= {"PREFECT_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    (tmp_path / "flows").mkdir()  # a package of this name where the command is started is not ours
    (tmp_path / "flows" / "__init__.py").write_text("raise SystemExit('another package')\n")
    with subprocess.Popen(
        [sys.executable, "-P", "-c", COMMAND],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        yield process
        process.kill()


def has_ended(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_for_end(pid: int) -> None:
    for _ in range(150):
        if has_ended(pid):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError("the server outlived its command")


@pytest.mark.slow
@pytest.mark.parametrize("is_killed", [False, True])
def test_the_server_hears_no_signal_of_the_group_and_ends_with_its_command_however_that_ends(command, is_killed):
    """Ctrl-C in a terminal ended it before the run that needs it to end; and after SIGKILL to a run it lived on."""
    pid, url = command.stdout.readline().split()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        os.killpg(command.pid, number)
        os.kill(int(pid), number)
    time.sleep(0.5)
    assert httpx.post(f"{url}/flows/filter", json={}, timeout=30).json() == []
    assert not has_ended(int(pid))
    if is_killed:
        command.kill()
    command.communicate("\n")
    wait_for_end(int(pid))
    assert command.returncode == (-signal.SIGKILL if is_killed else 0)


def test_none_is_started_where_there_is_one_or_none_may_be():
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        assert start_server() is None
    with temporary_settings({PREFECT_API_URL: None, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False}):
        assert start_server() is None


def test_a_server_that_ends_while_it_starts_is_told_in_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(3)"]) as process:
        process.wait()
        with pytest.raises(TransientError, match=r"^the Prefect server of this run ended with 3 while it started \("):
            TemporaryServer(process, f"http://127.0.0.1:{port}/api").wait()
