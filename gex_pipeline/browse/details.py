"""What the page of one sample shows: an id in; its receipt's row, what it was made of, what was made of it, out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gex_pipeline.browse.index import EXCERPT_LETTERS, Index, media_kind
from gex_pipeline.browse.media import frame_places
from gex_pipeline.browse.queries import listed
from gex_pipeline.errors import GexError, TransientError
from gex_pipeline.shard_format import FRAMES_EXTENSION
from gex_pipeline.shards import foreign
from gex_pipeline.tables import Database

MAX_SHOWN = 200  # parents of one sample, and children, that are given; the numbers of all of them are said
_MAX_DEPTH = 16  # generations of lineage; a graph of granularities is shallow
_MAX_ANCESTORS = 2000  # of one sample in all, so that damaged parents, which may be a circle, come to an end
_SHOWN = (
    *("granularity", "key", "tar", "source_id", "text", "num_words", "duration_s", "width_px", "height_px", "fps"),
    *("codec", "made_by", "source_text_digest", "media_extension", "media_size_bytes", "media_uri"),
)


def sample(index: Index, database: Database, sample_id: int) -> dict[str, Any]:
    """One sample with its whole text and its segments."""
    row = index.row(database, sample_id)
    uri = row["media_uri"]
    return {
        **{name: row[name] for name in _SHOWN},
        "snapshot": index.snapshot_of(sample_id),
        "segments": row["segments"] or [],
        "num_parents": len(row["parents"] or ()),
        "frames": _frames(index, row) if uri else None,
        "kind": media_kind(row["media_extension"]) if uri else "none",
        "is_referenced": bool(uri) and index.target.manifest is not None and uri != row["tar"],
        "scores": _scores(row["scores"]),
    }


def _scores(text: str | None) -> dict[str, float]:
    """By name; none where a receipt that others wrote holds something else."""
    try:
        return dict(sorted(foreign.scores_of(foreign.read_json((text or "{}").encode())).items()))
    except ValueError:
        return {}


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
        "parents": _Ancestors(index, database).of(row["parents"] or (), 1),
        "num_children": children[0]["num"] if children else 0,
        "children": [listed(index, child) for child in children],
    }


class _Ancestors:
    """The tree above one sample, cut where it grows too large."""

    def __init__(self, index: Index, database: Database) -> None:
        self._index, self._database, self._num_left = index, database, _MAX_ANCESTORS

    def of(self, ids: Sequence[str], depth: int) -> list[dict[str, Any]]:
        """The first parents, in their order, each with its own."""
        shown = list(ids[: min(MAX_SHOWN, self._num_left)])
        self._num_left -= len(shown)
        clips: dict[str, dict[str, Any]] = {}
        if self._index.has_clips:
            clips = {row["clip_id"]: row for row in self._database.rows("browse_clips_of", ids=shown)}
        left = [item for item in shown if item not in clips]
        rows = self._database.rows("browse_by_key", keys=left, excerpt=EXCERPT_LETTERS) if left else []
        samples = {row["key"]: row for row in reversed(rows)}
        found: list[dict[str, Any]] = []
        for item in shown:
            if item in clips:
                found.append({"kind": "clip", "id": item, "clip": clips[item]})
            elif item in samples:
                found.append({"kind": "sample", "id": item, **self._sample(samples[item], depth)})
            else:
                found.append({"kind": "unknown", "id": item})
        return found

    def _sample(self, row: dict[str, Any], depth: int) -> dict[str, Any]:
        goes_on = depth < _MAX_DEPTH and self._num_left > 0
        above = (self._index.row(self._database, row["id"])["parents"] or ()) if goes_on else ()
        return {"sample": listed(self._index, row), "parents": self.of(above, depth + 1) if above else []}
