"""What the page of one sample shows: an id in; its receipt's row, what it was made of, what was made of it, out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from gex_pipeline.browse.index import EXCERPT_LETTERS, Index, media_kind
from gex_pipeline.browse.media import frame_places
from gex_pipeline.browse.queries import listed
from gex_pipeline.errors import GexError, TransientError
from gex_pipeline.shard_format import FRAMES_EXTENSION
from gex_pipeline.tables import Database

MAX_SHOWN = 200  # parents of one sample, and children, that are given; the numbers of all of them are said
_MAX_DEPTH = 16  # generations of lineage; a graph of granularities is shallow
_SHOWN = (
    *("granularity", "key", "tar", "source_id", "text", "num_words", "duration_s", "width_px", "height_px", "fps"),
    *("codec", "made_by", "source_text_digest", "media_extension", "media_size_bytes", "media_uri"),
)


def sample(index: Index, database: Database, sample_id: int) -> dict[str, Any]:
    """One sample with its whole text and its segments."""
    row = index.row(database, sample_id)
    scores = json.loads(row["scores"] or "{}")
    uri = row["media_uri"]
    return {
        **{name: row[name] for name in _SHOWN},
        "snapshot": index.snapshot_of(sample_id),
        "segments": row["segments"] or [],
        "num_parents": len(row["parents"] or ()),
        "frames": _frames(index, row) if uri else None,
        "kind": media_kind(row["media_extension"]) if uri else "none",
        "is_referenced": bool(uri) and index.target.manifest is not None and uri != row["tar"],
        "scores": {name: scores[name] for name in sorted(scores) if math.isfinite(scores[name])},
    }


def _frames(index: Index, row: dict[str, Any]) -> dict[str, Any] | None:
    """How many frames a sample has, and what they are as far as it says; none where it has none that can be read."""
    stated = row.get("frames") or {}
    if not stated and row["media_extension"] != FRAMES_EXTENSION and row.get("frames_size_bytes") is None:
        return None
    try:
        return {**stated, "num": len(frame_places(index, row))}
    except TransientError:
        raise
    except GexError as error:
        return {**stated, "num": 0, "error": str(error)}


def lineage(index: Index, database: Database, sample_id: int) -> dict[str, Any]:
    """What a sample was made of, as a tree, and the samples made of it."""
    row = index.row(database, sample_id)
    children = database.rows("browse_children", parent=row["key"], num=MAX_SHOWN, excerpt=EXCERPT_LETTERS)
    return {
        "num_parents": len(row["parents"] or ()),
        "parents": _parents(index, database, row["parents"] or (), 1),
        "num_children": children[0]["num"] if children else 0,
        "children": [listed(index, child) for child in children],
    }


def _parents(index: Index, database: Database, ids: Sequence[str], depth: int) -> list[dict[str, Any]]:
    """The first parents, in their order, each with its own."""
    shown = list(ids[:MAX_SHOWN])
    clips: dict[str, dict[str, Any]] = {}
    if index.has_clips:
        clips = {row["clip_id"]: row for row in database.rows("browse_clips_of", ids=shown)}
    left = [item for item in shown if item not in clips]
    rows = database.rows("browse_by_key", keys=left, excerpt=EXCERPT_LETTERS) if left else []
    samples = {row["key"]: row for row in reversed(rows)}
    found: list[dict[str, Any]] = []
    for item in shown:
        if item in clips:
            found.append({"kind": "clip", "id": item, "clip": clips[item]})
        elif item in samples:
            above = index.row(database, samples[item]["id"])["parents"] or ()
            is_deep = depth >= _MAX_DEPTH
            parents = [] if is_deep else _parents(index, database, above, depth + 1)
            found.append({"kind": "sample", "id": item, "sample": listed(index, samples[item]), "parents": parents})
        else:
            found.append({"kind": "unknown", "id": item})
    return found
