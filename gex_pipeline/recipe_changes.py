"""In what the recipe of an output differs from the one of its last snapshot, and what must never differ."""

from __future__ import annotations

import json
from typing import Any

from gex_pipeline.errors import RecipeError
from gex_pipeline.recipe import Recipe
from gex_pipeline.shards.manifest import Manifest

_MAX_SHOWN = 120  # characters of a value in a sentence


def check_same_nodes(recipe: Recipe, manifest: Manifest) -> None:
    """A name stands for one kind of sample: what made it once makes it for ever."""
    for snapshot in manifest.snapshots:
        for name, entry in snapshot.granularities.items():
            settings = recipe.granularity.get(name)
            if settings is None:
                continue
            if (settings.operation, settings.parent) != (entry.operation, entry.parent):
                raise RecipeError(
                    f"granularity.{name}: its published samples were made by {entry.operation} from {entry.parent}, "
                    f"and the recipe says {settings.operation} from {settings.parent}; give the new kind another name"
                )


def changes_in(old: Any, new: Any, path: str = "") -> list[str]:
    """The keys that differ, each with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        return [
            change for key in keys for change in changes_in(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
        ]
    return [] if old == new else [f"{path} was {_short(old)}, is {_short(new)}"]


def _short(value: Any) -> str:
    if value is None:
        return "not there"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"
