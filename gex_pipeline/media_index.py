"""Clips in WebDataset tars: member key → tar, offset, size. Each tar is read once, then by byte range.

Keys are member names without their media ending: video2dataset's keys may hold dots (InternVid's
timestamps do), which WebDataset's own rule would cut at the first one.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from gex_pipeline import storage
from gex_pipeline.receipts import write_table
from gex_pipeline.recipe import MediaTars
from gex_pipeline.run_state import Run
from gex_pipeline.tables import Database

_VIDEO_ENDINGS = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v")
_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("uri", pa.string()),
        ("offset_bytes", pa.int64()),
        ("size_bytes", pa.int64()),
        ("tar_bytes", pa.int64()),
        ("tar_modified_s", pa.float64()),
    ]
)


def media_index(database: Database, run: Run) -> None:
    """Make the table ``media_index`` (key, uri, offset_bytes, size_bytes, num_found) over the recipe's tars.

    Tars that an earlier snapshot indexed and that did not change are not read again.
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
    database.run("ingest_media_index")


def publish_index(database: Database, run: Run) -> None:
    """Write what this run indexed as the snapshot's ``media-index`` table, if it read tars."""
    if storage.exists(_local_part(database)):
        storage.publish_file(Path(_local_part(database)), run.layout.table("media-index", run.snapshot))


def _local_part(database: Database) -> str:
    return str(database.scratch / "media-index.parquet")


_EMPTY = (
    "SELECT NULL::VARCHAR AS key, NULL::VARCHAR AS uri, NULL::BIGINT AS offset_bytes, NULL::BIGINT AS size_bytes, "
    "NULL::BIGINT AS tar_bytes, NULL::DOUBLE AS tar_modified_s"
)


def index_tar(tar: storage.FileInfo) -> list[dict[str, Any]]:
    """The video members of one tar. A tar that breaks off gives the members before the break."""
    rows: list[dict[str, Any]] = []
    with storage.open_read(tar.uri) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                for member in archive:
                    name = member.name.removeprefix("./")
                    if member.isfile() and name.lower().endswith(_VIDEO_ENDINGS):
                        rows.append(_row(tar, name.rpartition(".")[0], member))
        except tarfile.ReadError:
            pass  # what was found so far is whole; clips behind the break end as media_missing
    # A member whose bytes run past the end of the file is not there.
    return [row for row in rows if row["offset_bytes"] + row["size_bytes"] <= tar.num_bytes]


def _row(tar: storage.FileInfo, key: str, member: tarfile.TarInfo) -> dict[str, Any]:
    return {
        "key": key,
        "uri": tar.uri,
        "offset_bytes": member.offset_data,
        "size_bytes": member.size,
        "tar_bytes": tar.num_bytes,
        "tar_modified_s": tar.modified_s,
    }
