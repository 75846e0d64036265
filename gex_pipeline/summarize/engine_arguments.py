"""Which keyword arguments an engine of vLLM takes: read from its source, since importing vLLM loads PyTorch.

Says nothing where vLLM is not installed, or where its source no longer looks like this.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
from collections.abc import Iterable
from pathlib import Path

from gex_pipeline.errors import RecipeError

_CLASSES = ("EngineArgs", "AsyncEngineArgs")  # the second adds to the first


def check_arguments(names: Iterable[str]) -> None:
    """Engines find a wrong name only when they start, which is after other granularities have been built.

    Raises:
        RecipeError: vLLM takes no argument of that name.
    """
    known = argument_names()
    for name in names:
        if known and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise RecipeError(f"summarizer: engine.{name} is no argument of a vLLM engine{meant}")


@functools.lru_cache(maxsize=1)
def argument_names() -> frozenset[str]:
    """The fields of `vllm.AsyncEngineArgs`; none where they cannot be known."""
    spec = importlib.util.find_spec("vllm")
    file = Path(spec.origin).parent / "engine" / "arg_utils.py" if spec and spec.origin else None
    if file is None or not file.is_file():
        return frozenset()
    classes = [node for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    return frozenset(
        line.target.id
        for node in classes
        if node.name in _CLASSES
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    )
