from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gex_pipeline.report.build import build_report
from tests.report.outputs import make_output
from tests.report.page import Page


@pytest.fixture(scope="session")
def output_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A published output with all kinds of granularities, and its report."""
    uri = make_output(tmp_path_factory.mktemp("report"))
    build_report(uri)
    return uri


@pytest.fixture(scope="session")
def html(output_uri: str) -> str:
    return Path(output_uri, "report", "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def page(html: str) -> Page:
    return Page(html)


@pytest.fixture(scope="session")
def content(output_uri: str) -> dict[str, Any]:
    return json.loads(Path(output_uri, "report", "report.json").read_bytes())
