from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gex_pipeline.cli.main import main
from tests.shards.damage import copy_of, make_whole


@dataclass(frozen=True)
class Done:
    """What a command left: exit code and the two streams."""

    code: int
    out: str
    err: str
    content: Any = field(default=None)

    def checks(self, key: str | None = None) -> dict[str, set[str]]:
        """Of `verify`: shards by the check that found something, notes left out."""
        found: dict[str, set[str]] = {}
        for finding in self.content["findings"]:
            if not finding["is_note"] and key in (None, finding["key"]):
                found.setdefault(finding["check"], set()).add(finding["shard"])
        return found

    def findings(self, check: str) -> list[dict[str, Any]]:
        return [finding for finding in self.content["findings"] if finding["check"] == check]


@pytest.fixture
def gex(capsys):
    """`gex shards` in this process; with --json what it printed must parse."""

    def run(*arguments: Any) -> Done:
        try:
            code = main(["shards", *map(str, arguments)])
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        content = json.loads(out) if "--json" in arguments and out else None
        return Done(code, out, err, content)

    return run


@pytest.fixture
def verify(gex):
    return lambda *arguments: gex("verify", *arguments, "--jobs", 1, "--json")


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Path:
    """An output with nothing wrong. Read only."""
    return make_whole(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def output(whole, tmp_path) -> Path:
    """The same, to be damaged."""
    return copy_of(whole, tmp_path)
