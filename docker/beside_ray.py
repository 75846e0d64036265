#!/usr/bin/env python3
"""Runs a command on a node of its own in a Ray cluster: ``beside-ray gex run recipe.toml``, with RAY_ADDRESS set.

A program that drives Ray needs a raylet on its machine. This starts one without CPUs, so that no work comes here, waits
until it has joined, and runs the command. SIGTERM and SIGINT reach the command; when it ends the node goes too, and
the exit code is the command's. When the node ends first, the command is told to stop and the exit code is 75: start
the container again.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

FAILED_FOR_NOW = 75
_AGENT = "127.0.0.1:52365"  # of the node
_JOIN_S = 120.0
_LOOK_S = 0.2
_STOP_S = 30.0  # that a command has to stop when its node is gone
_NODE_STOP_S = 5.0
_STORE_BYTES = 100_000_000  # of the node's object store: small figures only


def node_command(address: str) -> list[str]:
    """What starts the node."""
    return [
        *("ray", "start", f"--address={address}", "--num-cpus=0", "--num-gpus=0", "--block"),
        *(f"--object-store-memory={_STORE_BYTES}", "--disable-usage-stats", "--log-color=false"),
    ]


def has_joined() -> bool:
    """Whether the node's agent says that its raylet is well."""
    connection = http.client.HTTPConnection(_AGENT, timeout=2)
    try:
        connection.request("GET", "/api/local_raylet_healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def run_beside(node: Sequence[str], is_up: Callable[[], bool], command: Sequence[str]) -> int:
    """Start the node, wait until it is up, run the command; the exit code."""
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: told.append(received))
    raylet = subprocess.Popen(node, start_new_session=True)
    try:
        end_s = time.monotonic() + _JOIN_S
        while not is_up():
            if told:
                return 128 + told[0]
            if raylet.poll() is not None or time.monotonic() > end_s:
                sys.stderr.write("beside-ray: the node did not join the cluster; is its address and token right?\n")
                return FAILED_FOR_NOW
            time.sleep(_LOOK_S)
        return _run(raylet, command, told)
    finally:
        _stop(raylet, _NODE_STOP_S)


def _run(raylet: subprocess.Popen[bytes], command: Sequence[str], told: list[int]) -> int:
    worker = subprocess.Popen(command, start_new_session=True)  # so that a terminal's Ctrl-C arrives once
    while worker.poll() is None:
        while told:
            worker.send_signal(told.pop(0))
        if raylet.poll() is not None:
            sys.stderr.write("beside-ray: the node ended, so the command is told to stop\n")
            _stop(worker, _STOP_S)
            return FAILED_FOR_NOW
        time.sleep(_LOOK_S)
    return worker.returncode if worker.returncode >= 0 else 128 - worker.returncode


def _stop(process: subprocess.Popen[bytes], patience_s: float) -> None:
    """Tell a process to stop; end it with its group when it does not."""
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    if len(sys.argv) < 2 or "RAY_ADDRESS" not in os.environ:
        sys.exit("usage: RAY_ADDRESS=host:port beside-ray COMMAND ...")
    sys.exit(run_beside(node_command(os.environ["RAY_ADDRESS"]), has_joined, sys.argv[1:]))
