"""A site as the operating guide builds it: a Prefect server, a worker, a Ray cluster of two nodes, deployments.

Every daemon is a process of its own in a session of its own, on a port that was free, with its files below one folder;
all of them are ended when the site is left.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import yaml

from benchmarks.process_table import processes
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@dataclass(frozen=True)
class Site:
    """Everything is up; `raylets` are the process ids of the head's and of the second node's."""

    folder: Path
    environment: dict[str, str]
    ray_address: str
    raylets: tuple[int, int]

    def api(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """An answer of the server; None where it has no such thing."""
        request = Request(
            f"{self.environment['PREFECT_API_URL']}/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method or ("GET" if body is None else "POST"),
        )
        for patience_s in (0.5, 1.0, 2.0, 4.0, 0.0):
            try:
                with urlopen(request, timeout=30) as answer:
                    content = answer.read()
            except HTTPError as error:
                if error.code == 404:
                    return None
                if error.code != 503 or not patience_s:  # SQLite was busy for too long
                    raise AssertionError(f"{path}: {error.code} {error.read()[:500]!r}") from error
                time.sleep(patience_s)
            else:
                return json.loads(content) if content else None
        return None

    def prefect(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """One command of the guide."""
        return subprocess.run(
            [*PREFECT, *words],
            cwd=ROOT,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def deployment(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api(f"deployments/name/{name}")
        return found

    def run(self, name: str, **parameters: Any) -> str:
        """Ask for a run now, as a button of the page does; its id."""
        deployment = self.deployment(name)["id"]
        run = self.api(f"deployments/{deployment}/create_flow_run", {"parameters": {"parameters": parameters}})
        return str(run["id"])

    def state(self, run: str) -> dict[str, Any]:
        state: dict[str, Any] = self.api(f"flow_runs/{run}")["state"]
        return state

    def ended(self, run: str, seconds: float = 60) -> dict[str, Any]:
        """The final state of a run."""
        finals = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

        def final() -> dict[str, Any] | None:
            state = self.state(run)
            return state if state["type"] in finals else None

        found: dict[str, Any] = wait_for(final, seconds, f"the end of run {run}, which is {self.state(run)}")
        return found

    def runs(self, deployment: str, state: str) -> list[dict[str, Any]]:
        """Runs of a deployment in a state, oldest first."""
        chosen = {
            "flow_runs": {
                "deployment_id": {"any_": [self.deployment(deployment)["id"]]},
                "state": {"type": {"any_": [state]}},
            },
            "sort": "START_TIME_ASC",
        }
        found: list[dict[str, Any]] = self.api("flow_runs/filter", chosen)
        return found

    def artifacts(self, run: str) -> dict[str, str]:
        found = self.api("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
        return {artifact["key"]: artifact["data"] for artifact in found}

    def second_node_at_work(self) -> bool:
        return any(one.parent == self.raylets[1] and one.program.startswith("ray::Map") for one in processes())


@contextmanager
def daemon(name: str, command: list[str], environment: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended with its whole session."""
    with (
        (folder / f"{name}.log").open("wb") as log,
        subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if name == "ray" else log,
            stderr=log,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """SIGTERM, then SIGKILL to whatever is left of the session."""
    with suppress(ProcessLookupError):
        process.terminate()
    if process.stdin is not None:
        process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)
    for one in processes():
        if process.pid in (one.session, one.pid):
            with suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)
    process.wait(10)


@contextmanager
def site() -> Iterator[Site]:
    """Server, worker and cluster, in a folder with a short name, since Ray's sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="gexs-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        folder = Path(name)
        port = free_port()
        environment = {
            **os.environ,
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            # with the default, a run that is due while another is at work is cancelled ten seconds early
            "PREFECT_WORKER_PREFETCH_SECONDS": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
            "PYTHONPATH": str(ROOT),
            "RAY_TMPDIR": str(folder),
            "TMPDIR": str(folder),
        }
        # the first of the two commands of the guide, and a cluster beside it
        command = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        stack.enter_context(daemon("server", command, environment, folder))
        two_nodes = [sys.executable, str(ROOT / "benchmarks" / "two_nodes.py")]
        cluster = stack.enter_context(daemon("ray", two_nodes, environment, folder))
        wait_for(lambda: _answers(f"{environment['PREFECT_API_URL']}/health"), 90, "the server")
        # the second one
        command = [*PREFECT, "worker", "start", "--pool", "gex", "--type", "process", "--install-policy", "never"]
        stack.enter_context(daemon("worker", command, environment, folder))
        assert cluster.stdout is not None
        said = cluster.stdout.readline()
        assert said, (folder / "ray.log").read_text()[-2000:]
        nodes = json.loads(said)
        made = Site(folder, environment, nodes["address"], tuple(nodes["raylets"]))
        wait_for(lambda: made.api("work_pools/gex"), 60, "the work pool that the worker makes")
        yield made


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def deployments_with(folder: Path, name: str, schedules: list[dict[str, Any]]) -> Path:
    """The project's own prefect.yaml with other schedules for one deployment; nothing else is changed."""
    content = yaml.safe_load((ROOT / "flows" / "prefect.yaml").read_text(encoding="utf-8"))
    (chosen,) = [one for one in content["deployments"] if one["name"] == name]
    chosen["schedules"] = schedules
    path = folder / "prefect.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
