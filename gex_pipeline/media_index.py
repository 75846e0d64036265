"""Clips in WebDataset tars: member key → tar, offset, size. Each tar is read once, then by byte range.

Keys are member names without their media ending: video2dataset's keys may hold dots (InternVid's
timestamps do), which WebDataset's own rule would cut at the first one. What counts are the tars that are there now.

Rows go from the tars to files and from there to DuckDB; in memory are some thousands of them, however many there are.
A run keeps those files in ``cache/media-index`` of its output, each for some tars as they were then, so that whoever
comes after a run that broke off reads no such tar again. One whose tars are all published, changed or gone is removed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple
from itertools import islice
from pathlib import Path
from threading import Lock

import pyarrow as pa
import pyarrow.parquet as pq

from gex_pipeline import storage
from gex_pipeline.receipts import write_table
from gex_pipeline.recipe import MediaTars
from gex_pipeline.run_state import Run
from gex_pipeline.source_tars import index_tar
from gex_pipeline.storage_failures import explained
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
_TARS = pa.schema([("uri", pa.string()), ("num_bytes", pa.int64()), ("modified_s", pa.float64())])
_TARS_KEY = b"tars"  # of a file's Parquet metadata: the tars that were read for it, as JSON
_NAMED_TARS = 3
_ROWS_TOGETHER = 1024  # of one tar, in memory
_TARS_A_FILE, _MOST_FILES = 64, 1000


def media_index(database: Database, run: Run, *, keep: bool = False) -> str:
    """Make the tables ``media_index`` and ``tar_problems``; returns what is wrong with whole tars, in words.

    Tars that an earlier snapshot indexed, or a run that was not published, and that did not change are not read again.
    With `keep`, what is read is kept in the output at once; without, nothing is written there.

    Raises:
        GexError: a tar is compressed, or cannot be read.
    """
    media = run.recipe.source.media
    if not isinstance(media, MediaTars):
        raise AssertionError("only tars are indexed")
    tars = storage.list_files(run.recipe.locate(media.uri))
    database.view_parquet("indexed_before", run.previous_tables("media-index"), empty=_SCHEMA)
    known = {
        (row["uri"], row["tar_bytes"], row["tar_modified_s"])
        for row in database.query("SELECT DISTINCT uri, tar_bytes, tar_modified_s FROM indexed_before")
    }
    new = [tar for tar in tars if (tar.uri, tar.num_bytes, tar.modified_s) not in known]
    _view_tars(database, "present_tars", tars)
    _view_tars(database, "new_tars", new)
    kept = _kept_files(database, run, frozenset(new), remove=keep)
    found = frozenset[storage.FileInfo]().union(*kept.values())
    left = [tar for tar in new if tar not in found]
    _view_indexed(database, [*kept, *_read_tars(database, run, left, keep=keep)])
    for statement in ("ingest_media_index", "ingest_tar_problems"):
        database.run(statement)
    return _words(database)


def _view_tars(database: Database, view: str, tars: Sequence[storage.FileInfo]) -> None:
    path = str(database.scratch / f"{view}.parquet")
    write_table(path, pa.Table.from_pylist([vars(tar) for tar in tars], _TARS), {})
    database.view_parquet(view, [path])


def _kept_files(
    database: Database, run: Run, new: frozenset[storage.FileInfo], *, remove: bool
) -> dict[str, frozenset[storage.FileInfo]]:
    """The files of runs that were not published, with the tars of each that are wanted; others may be removed."""
    uris = [file.uri for file in storage.list_files(f"{run.layout.index_cache}/*.parquet")]
    found: dict[str, frozenset[storage.FileInfo]] = {}
    taken: set[storage.FileInfo] = set()
    for uri, path in zip(uris, database.local_files(uris), strict=True):
        wanted = _tars_of(path) & new
        if wanted and wanted.isdisjoint(taken):  # of a tar that is in two files every key would be ambiguous
            found[str(path)] = wanted
            taken |= wanted
        elif remove:
            storage.remove(uri)
    return found


def _tars_of(path: Path) -> frozenset[storage.FileInfo]:
    """The tars that were read for a file; none of one that cannot be read, or is of another version."""
    with suppress(pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        schema = pq.read_schema(path)
        if schema.equals(_SCHEMA):
            return frozenset(storage.FileInfo(*tar) for tar in json.loads(schema.metadata[_TARS_KEY]))
    return frozenset()


def _read_tars(database: Database, run: Run, tars: Sequence[storage.FileInfo], *, keep: bool) -> Iterator[str]:
    """Read tars into files, some tars a file; gives the files, each when it is kept."""
    num_together = max(_TARS_A_FILE, -(-len(tars) // _MOST_FILES))
    for start in range(0, len(tars), num_together):
        some = tars[start : start + num_together]
        said = json.dumps([astuple(tar) for tar in some]).encode()
        name = f"{hashlib.sha256(said).hexdigest()[:16]}.parquet"
        local = database.scratch / name
        with explained(str(local)):
            _write_rows(local, some, said)
        if keep:
            storage.publish_file(local, storage.join(run.layout.index_cache, name))
        yield str(local)


def _write_rows(path: Path, tars: Sequence[storage.FileInfo], said: bytes) -> None:
    turn = Lock()
    with pq.ParquetWriter(path, _SCHEMA.with_metadata({_TARS_KEY: said}), compression="zstd") as out:

        def write(tar: storage.FileInfo) -> None:
            rows = index_tar(tar)
            while some := list(islice(rows, _ROWS_TOGETHER)):
                batch = pa.RecordBatch.from_pylist(some, _SCHEMA)
                with turn:
                    out.write_batch(batch)

        storage.for_each(write, tars)


def _view_indexed(database: Database, files: Sequence[str]) -> None:
    """The views ``indexed_new``, of tars that no snapshot has, and ``indexed``, of all tars there ever were."""
    database.view_parquet("indexed_files", files, empty=_SCHEMA)
    database.execute(
        "CREATE OR REPLACE TEMP VIEW indexed_new AS SELECT i.* FROM indexed_files AS i SEMI JOIN new_tars AS t "
        "ON t.uri = i.uri AND t.num_bytes = i.tar_bytes AND t.modified_s = i.tar_modified_s"
    )
    database.execute(
        "CREATE OR REPLACE TEMP VIEW indexed AS "
        "SELECT * FROM indexed_before UNION ALL BY NAME SELECT * FROM indexed_new"
    )


def _words(database: Database) -> str:
    """What is wrong with whole tars, for the details of clips that are not found."""
    rows = database.rows("ingest_broken_tars", num_named=_NAMED_TARS)
    if not rows:
        return ""
    more = f", and {rows[0]['num_all'] - len(rows)} more" if rows[0]["num_all"] > len(rows) else ""
    return f"; of the tars, {', '.join(row['detail'] for row in rows)}{more}"


def publish_index(database: Database, run: Run) -> None:
    """Write what this run indexed, if it read tars."""
    if not isinstance(run.recipe.source.media, MediaTars):
        return
    uri = run.layout.table("media-index", run.snapshot)
    database.publish_table("indexed_new", uri, "uri, offset_bytes, key, detail")
