"""The files that a run reads: what a recipe's patterns find, with what tells whether a file changed.

A file is a dictionary of ``uri``, ``num_bytes`` and ``modified_s``; a tar of media has ``holds`` besides. They name the
run (`run_state`), and a snapshot notes them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.recipe import Recipe

InputFiles = tuple[dict[str, Any], ...]


def input_files(recipe: Recipe) -> InputFiles:
    """The metadata files the recipe names, and its tars of media; each once.

    Raises:
        GexError: a pattern finds nothing.
    """
    clips = recipe.source.clips
    patterns = [clips] if isinstance(clips, str) else list(clips)
    files = [file for pattern in patterns for file in _found(recipe.locate(pattern))]
    media = recipe.source.media
    if media.kind == "tars":
        files += [{**file, "holds": "media"} for file in _found(recipe.locate(media.uri))]
    return tuple({file["uri"]: file for file in files}.values())


def _found(pattern: str) -> list[dict[str, Any]]:
    found = storage.list_files(pattern)
    if not found:
        raise GexError(f"no file matches {pattern!r}")
    return [{**vars(file)} for file in found]


def metadata_uris(files: InputFiles) -> tuple[str, ...]:
    """Those with rows of clips."""
    return tuple(file["uri"] for file in files if "holds" not in file)


def noted(files: InputFiles, recipe: Recipe) -> InputFiles:
    """The files as a snapshot notes them: tars of media, of which there can be 100,000, as one entry."""
    tars = [file for file in files if "holds" in file]
    media = recipe.source.media
    if media.kind != "tars" or not tars:
        return files
    as_one = {
        "uri": recipe.locate(media.uri),
        "num_bytes": sum(file["num_bytes"] for file in tars),
        "modified_s": max(file["modified_s"] for file in tars),
        "num_files": len(tars),
        "digest": hashlib.sha256(json.dumps(tars, sort_keys=True).encode()).hexdigest(),
    }
    return (*(file for file in files if "holds" not in file), as_one)


def are_all_in(earlier: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> bool:
    """Whether the files that were there are there unchanged, whatever else has come."""
    as_text, and_now = ({json.dumps(file, sort_keys=True) for file in files} for files in (earlier, now))
    return as_text <= and_now
