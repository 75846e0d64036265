"""The hard limits: a file has at most 400 lines, a function at most 60. There is no list of exceptions."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(
    file for folder in ("gex_pipeline", "flows", "trainer", "benchmarks") for file in (ROOT / folder).rglob("*.py")
)


def test_there_are_files_to_measure():
    assert len(FILES) > 50


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_and_its_functions_are_short(file):
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    long = {
        node.name: lines
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (lines := (node.end_lineno or 0) - node.lineno + 1) > 60
    }
    assert not long


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_the_limits_are_not_suppressed(file):
    rules = ("C901", "PLR0911", "PLR0912", "PLR0913", "PLR0915", "PLR0917")
    for line in file.read_text(encoding="utf-8").splitlines():
        _, mark, codes = line.partition("# noqa")
        assert not mark or codes.startswith(":"), f"a blanket noqa: {line}"
        assert not any(rule in codes for rule in rules), line
