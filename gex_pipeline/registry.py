"""Operations by name. One of a third party is one file and one entry point in the group ``gex.operations``.

The recipe asks for an operation's parameter model, the stages for its code; both get the same class.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from gex_pipeline.errors import RecipeError

GROUP = "gex.operations"
# Named here and not as entry points, so that they work from a source checkout that is not installed.
BUILT_IN = {
    "source": "gex_pipeline.operations.source:Source",
    "integrate": "gex_pipeline.operations.integrate:Integrate",
    "compress_text": "gex_pipeline.operations.compress_text:CompressText",
    "compress_video": "gex_pipeline.operations.compress_video:CompressVideo",
}


@cache
def _known() -> dict[str, EntryPoint]:
    built_in = [EntryPoint(name, target, GROUP) for name, target in BUILT_IN.items()]
    return {point.name: point for point in [*entry_points(group=GROUP), *built_in]}


def operation_names() -> tuple[str, ...]:
    """The operations a recipe can name."""
    return tuple(sorted(name for name in _known() if name != "source"))


def load_operation(name: str) -> Any:
    """The operation class registered under `name`.

    Raises:
        RecipeError: there is none, or its package is broken.
    """
    point = _known().get(name) if isinstance(name, str) else None
    if point is None:
        raise RecipeError(f"operation = {name!r} is not known; there are: {', '.join(operation_names())}")
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise RecipeError(f"operation = {name!r} cannot be loaded from {point.value}: {error}") from error
