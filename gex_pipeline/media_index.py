"""Clips in WebDataset tars: member key → tar, offset, size. Each tar is read once, then by byte range.

Keys are member names without their media ending: video2dataset's keys may hold dots (InternVid's
timestamps do), which WebDataset's own rule would cut at the first one. What counts are the tars that are there now:
a clip whose tar was written anew since an earlier snapshot is listed with its new place.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from gex_pipeline import storage
from gex_pipeline.receipts import write_table
from gex_pipeline.recipe import MediaTars
from gex_pipeline.run_state import Run
from gex_pipeline.source_tars import index_tar
from gex_pipeline.tables import Database

_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("uri", pa.string()),
        ("offset_bytes", pa.int64()),
        ("size_bytes", pa.int64()),
        ("tar_bytes", pa.int64()),
        ("tar_modified_s", pa.float64()),
        ("stamp", pa.string()),
        ("problem", pa.string()),  # a reason, or "tar" for what is wrong with the tar itself; null: the video is there
        ("detail", pa.string()),
    ]
)
_EMPTY = "SELECT " + ", ".join(
    f"NULL::{'BIGINT' if field.type == pa.int64() else 'DOUBLE' if field.type == pa.float64() else 'VARCHAR'} "
    f"AS {field.name}"
    for field in _SCHEMA
)
_NAMED_TARS = 3


def media_index(database: Database, run: Run) -> str:
    """Make the tables ``media_index``, ``tar_problems`` and ``moved_clips``; returns what is wrong with tars, in words.

    Tars that an earlier snapshot indexed and that did not change are not read again.

    Raises:
        GexError: a tar is compressed, or cannot be read.
    """
    media = run.recipe.source.media
    if not isinstance(media, MediaTars):
        raise AssertionError("only tars are indexed")
    tars = storage.list_files(run.recipe.locate(media.uri))
    database.view_parquet("indexed_before", run.previous_tables("media-index"), empty=_EMPTY)
    known = {
        (row["uri"], row["tar_bytes"], row["tar_modified_s"])
        for row in database.query("SELECT DISTINCT uri, tar_bytes, tar_modified_s FROM indexed_before")
    }
    new = [tar for tar in tars if (tar.uri, tar.num_bytes, tar.modified_s) not in known]
    rows = [row for found in storage.for_each(index_tar, new) for row in found]
    part = _local_part(database)  # published with the clips: a dry run writes nothing to the output
    write_table(part, pa.Table.from_pylist(rows, _SCHEMA), {})
    database.view_parquet("indexed", [*run.previous_tables("media-index"), part])
    present = str(database.scratch / "tars.parquet")
    write_table(present, pa.Table.from_pylist([vars(tar) for tar in tars], _TARS), {})
    database.view_parquet("present_tars", [present])
    for statement in ("ingest_media_index", "ingest_tar_problems"):
        database.run(statement)
    view_placed(database, "known_places", run.previous_tables("clips"), run.previous_tables("media-moved"))
    database.run("ingest_moved_clips")
    return _words(database)


_TARS = pa.schema([("uri", pa.string()), ("num_bytes", pa.int64()), ("modified_s", pa.float64())])
_NO_PLACES = (
    "SELECT NULL::VARCHAR AS clip_id, NULL::VARCHAR AS media_uri, NULL::BIGINT AS media_offset_bytes, "
    "NULL::BIGINT AS media_size_bytes, NULL::VARCHAR AS media_stamp"
)


def view_placed(database: Database, view: str, clips: list[str], moved: list[str]) -> None:
    """Make a view over clips tables in which clips that `moved` tables list are at their newest place."""
    if not moved:
        database.view_parquet(view, clips, empty=_NO_PLACES)
        return
    database.view_parquet(f"{view}_as_written", clips)
    database.view_parquet(f"{view}_moved", moved, numbered=True)
    places = ", ".join(
        f"CASE WHEN m.clip_id IS NULL THEN c.{name} ELSE m.{name} END AS {name}"
        for name in ("media_uri", "media_offset_bytes", "media_size_bytes", "media_stamp")
    )
    database.execute(
        f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT c.* REPLACE ({places}) FROM {view}_as_written AS c LEFT JOIN "
        f"(SELECT * FROM {view}_moved QUALIFY row_number() OVER (PARTITION BY clip_id ORDER BY snapshot DESC) = 1) "
        "AS m ON m.clip_id = c.clip_id"
    )


def _words(database: Database) -> str:
    """What is wrong with whole tars, for the details of clips that are not found."""
    rows = database.rows("ingest_broken_tars", num_named=_NAMED_TARS)
    if not rows:
        return ""
    more = f", and {rows[0]['num_all'] - len(rows)} more" if rows[0]["num_all"] > len(rows) else ""
    return f"; of the tars, {', '.join(row['detail'] for row in rows)}{more}"


def publish_index(database: Database, run: Run) -> None:
    """Write what this run indexed, and which known clips it found elsewhere, if it read tars."""
    if not storage.exists(_local_part(database)):
        return
    storage.publish_file(Path(_local_part(database)), run.layout.table("media-index", run.snapshot))
    if database.count("moved_clips"):
        database.publish_table("moved_clips", run.layout.table("media-moved", run.snapshot), "clip_id")


def _local_part(database: Database) -> str:
    return str(database.scratch / "media-index.parquet")
