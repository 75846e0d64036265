"""Where known clips lie now: in ``clips`` tables is where each was found first, in ``media-moved`` tables where since.

A clip is the same one wherever its video lies, and what is not published yet is made from where it lies now. Published
samples stay as they are. For clips in tars `media_index` finds out which have moved; here it is the metadata's word.
"""

from __future__ import annotations

import pyarrow as pa

from gex_pipeline.run_state import Run
from gex_pipeline.tables import Database

PLACES = pa.schema(
    [
        ("clip_id", pa.string()),
        ("media_uri", pa.string()),
        ("media_offset_bytes", pa.int64()),  # of a clip in a tar, as what follows
        ("media_size_bytes", pa.int64()),
        ("media_stamp", pa.string()),
    ]
)


def view_placed(database: Database, view: str, clips: list[str], moved: list[str]) -> None:
    """Make a view over clips tables in which clips that `moved` tables list are at their newest place."""
    if not moved:
        database.view_parquet(view, clips, empty=PLACES)
        return
    database.view_parquet(f"{view}_as_written", clips)
    database.view_parquet(f"{view}_moved", moved, numbered=True)
    place = ", ".join(f"{name}: {name}" for name in PLACES.names[1:])
    newest = f"SELECT clip_id, unnest(arg_max({{{place}}}, snapshot)) FROM {view}_moved GROUP BY clip_id"
    _view_at(database, view, f"{view}_as_written", f"({newest})")


def view_known_now(database: Database) -> None:
    """Make the view ``known_now``: the known clips, where what ingest has just read says that they are."""
    _view_at(database, "known_now", "known_places", "moved_clips")


def _view_at(database: Database, view: str, clips: str, moved: str) -> None:
    places = ", ".join(f"CASE WHEN m.clip_id IS NULL THEN c.{n} ELSE m.{n} END AS {n}" for n in PLACES.names[1:])
    database.execute(
        f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT c.* REPLACE ({places}) FROM {clips} AS c "
        f"LEFT JOIN {moved} AS m ON m.clip_id = c.clip_id"
    )


def no_clip_moved(database: Database) -> None:
    """Make the table ``moved_clips`` with nothing in it."""
    columns = ", ".join(PLACES.names)
    database.execute(f"CREATE OR REPLACE TEMP TABLE moved_clips AS SELECT {columns} FROM known_places WHERE false")


def publish_moved(database: Database, run: Run) -> None:
    """Write which known clips lie elsewhere now, if any do."""
    if database.count("moved_clips"):
        database.publish_table("moved_clips", run.layout.table("media-moved", run.snapshot), "clip_id")
