from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from gex_pipeline.cli.main import main
from tests.browse import many
from tests.browse.chromium import Chromium
from tests.shards.damage import copy_of, make_whole

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "gex_pipeline.cli.main", "shards", "browse")


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> Any:
        return json.loads(self.body)


class Site:
    """`gex shards browse` as a process of its own, asked over its socket with addresses as they are given."""

    def __init__(self, *arguments: Any, environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
        )
        said = ""
        for line in self.process.stdout:
            said += line
            if line == "}\n":
                break
        if not said:
            raise RuntimeError(self.process.stderr.read())
        self.address = json.loads(said)["address"]
        self.host, self.port = urlsplit(self.address).hostname, urlsplit(self.address).port

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host="Host" in headers)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            return Answer(
                response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
            )
        finally:
            connection.close()

    def json(self, path: str, **parameters: Any) -> Any:
        answer = self.ask(f"{path}?{urlencode(parameters)}" if parameters else path)
        assert answer.status == 200, answer.body
        return answer.content

    def all_samples(self, **parameters: Any) -> list[dict[str, Any]]:
        """Every page of a request after the other."""
        found: list[dict[str, Any]] = []
        after = None
        while True:
            page = self.json("/api/samples", **parameters, **({"after": after} if after else {}))
            found += page["samples"]
            after = page["after"]
            if after is None:
                return found
            assert page["samples"]

    def stop(self, how: int = signal.SIGINT) -> tuple[int, str]:
        """(exit code, what was said on the error stream)"""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            _, errors = self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode, errors


@pytest.fixture
def browse():
    """Start sites that end with the test."""
    sites: list[Site] = []

    def start(*arguments: Any, **more: Any) -> Site:
        sites.append(Site(*arguments, **more))
        return sites[-1]

    yield start
    for site in sites:
        site.stop()


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Path:
    """An output with nothing wrong. Read only."""
    return make_whole(tmp_path_factory.mktemp("browsed"))


@pytest.fixture
def output(whole, tmp_path) -> Path:
    """The same, to be damaged."""
    return copy_of(whole, tmp_path)


@pytest.fixture(scope="session")
def site(whole):
    """A site over the output with nothing wrong."""
    found = Site(whole)
    yield found
    found.stop()


@pytest.fixture(scope="session")
def crowd(tmp_path_factory):
    """A site over many samples without media, and these samples."""
    output = tmp_path_factory.mktemp("crowd") / "out"
    records = many.make_output(output)
    found = Site(output)
    yield found, records
    found.stop()


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    found = Chromium(tmp_path_factory.mktemp("chromium"))
    yield found
    found.close()


@pytest.fixture
def page(window):
    """A window in which nothing has gone wrong, and nothing has when the test is over."""
    window.size(1360, 860)
    window.open("about:blank")
    window.errors.clear()
    window.requests.clear()
    yield window
    assert window.errors == []


@pytest.fixture
def gex(capsys):
    """`gex shards` in this process, for what ends by itself."""
    return lambda *arguments: run_here(capsys, arguments)


@dataclass
class Done:
    code: int
    err: str


def run_here(capsys, arguments: tuple[Any, ...]) -> Done:
    try:
        code = main(["shards", *map(str, arguments)])
    except SystemExit as stop:
        code = int(stop.code or 0)
    return Done(code, capsys.readouterr().err)
