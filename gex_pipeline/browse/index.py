"""A target's samples as a table made to be browsed: a target in, an open `Index` out.

Made once, when the page's server starts: a slim row a sample in a compressed scratch file, so that a million samples
fit in little memory. What a single sample's page needs besides is read out of its receipt when it is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gex_pipeline import storage
from gex_pipeline.errors import FileMissingError, GexError
from gex_pipeline.receipts import LOSS_SCHEMA, RECEIPT_SCHEMA
from gex_pipeline.rejects import NOT_RETRIED
from gex_pipeline.shard_format import FRAMES_EXTENSION, IMAGE_EXTENSIONS
from gex_pipeline.shards.samples import VIDEO_EXTENSIONS, Samples, open_samples, snapshot_tables
from gex_pipeline.shards.target import ShardRef, Target
from gex_pipeline.tables import Database, DatabaseError, files_to_read, literal

MAX_SCORES = 40  # names of scores that are offered; foreign JSON can have any number
EXCERPT_LETTERS = 280
_MEMORY_BYTES = 700_000_000
_ROW_BITS = 32  # of an id, for the row inside a receipt; the file's number stands above
_FILE_SCHEMA = pa.schema(
    [("path", pa.string()), ("number", pa.int64()), ("granularity", pa.string()), ("snapshot", pa.int64())]
)


@dataclass
class Index:
    """The open index. `only` is the one granularity that is listed, none: all; parents are looked up among all."""

    target: Target
    only: str | None
    database: Database
    files: list[tuple[ShardRef, Path]]
    notes: list[str]
    scores: tuple[str, ...] = ()
    has_clips: bool = False
    tars: dict[str, str] = field(default_factory=dict)  # name in a receipt -> URI: all that media are read from
    _losses: threading.Lock = field(default_factory=threading.Lock)
    _has_losses: bool = False

    @contextmanager
    def session(self) -> Iterator[Database]:
        """A connection for one request.

        Raises:
            GexError: a table went away or is damaged inside.
        """
        with self.database.cursor() as database:
            try:
                database.execute("USE browse")
                yield database
            except DatabaseError as error:
                raise GexError(f"a receipt or table cannot be read: {str(error).splitlines()[0]}") from error

    def row(self, database: Database, sample_id: int) -> dict[str, Any]:
        """Everything the receipt says about one sample, and `tar`, the name of its shard."""
        shard, file = self.files[sample_id >> _ROW_BITS]
        rows = database.query(
            f"SELECT * FROM read_parquet({files_to_read([file])}, file_row_number = true) WHERE file_row_number = $row",
            {"row": sample_id & ((1 << _ROW_BITS) - 1)},
        )
        if not rows:
            raise GexError(f"the receipt of {shard.name} is not what it was when this page's server was started")
        return rows[0] | {"tar": shard.name, "granularity": shard.granularity or rows[0]["granularity"] or ""}

    def find(self, database: Database, granularity: str, key: str, tar: str | None = None) -> int:
        """The id of a sample; `tar` chooses where a key stands in several.

        Raises:
            FileMissingError: there is no such sample.
        """
        for row in database.rows("browse_place_of", granularity=granularity, key=key):
            if tar is None or self.tar_of(row["id"]) == tar:
                return int(row["id"])
        raise FileMissingError(f"there is no sample {key!r} of granularity {granularity!r}")

    def tar_of(self, sample_id: int) -> str:
        """The name of the shard that a sample is in."""
        return self.files[sample_id >> _ROW_BITS][0].name

    def snapshot_of(self, sample_id: int) -> int | None:
        """The snapshot that published a sample."""
        return self.files[sample_id >> _ROW_BITS][0].snapshot

    def with_losses(self, database: Database) -> Database:
        """The same connection, with the table ``losses`` there: it is made when it is first asked for."""
        with self._losses:
            if not self._has_losses:
                _make_losses(self.target, database)
                self._has_losses = True
        return database


@contextmanager
def open_index(target: Target, only: str | None = None) -> Iterator[Index]:
    """Open the index of everything in a target.

    Raises:
        GexError: storage refuses, or a receipt or table is damaged inside.
    """
    with open_samples(target) as samples:
        database = samples.database
        database.execute(f"SET memory_limit = '{_MEMORY_BYTES}B'")
        database.execute(f"ATTACH {literal(str(database.scratch / 'browse.duckdb'))} AS browse")
        index = Index(target, only, database, samples.files, samples.notes)
        index.tars = _tars(target)
        index.scores = tuple(row["name"] for row in database.rows("browse_score_names", num=MAX_SCORES))
        index.has_clips = bool(samples.clip_files)
        _view_rows(samples)
        database.run("browse_ranks")
        database.run("browse_entries", pointers=[_pointer(name) for name in index.scores])
        database.run("browse_edges")
        database.drop("ranks")
        if samples.clip_files:
            clips = files_to_read(samples.clip_files)
            database.execute(f"CREATE VIEW browse.clips AS SELECT * FROM read_parquet({clips}, union_by_name = true)")
        yield index


def _tars(target: Target) -> dict[str, str]:
    """The only tars that media are read from: of an output those of its manifest."""
    if target.manifest is None:
        return {shard.uri: shard.uri for shard in target.shards}
    paths = [shard.path for name in target.manifest.granularity_names() for shard in target.manifest.shards(name)]
    return {path: storage.join(target.uri, path) for path in paths}


def _view_rows(samples: Samples) -> None:
    """The view ``numbered_receipts``: every row with its file and its number there; ``receipt_files``: the files."""
    database = samples.database
    rows = [
        {"path": str(file), "number": number, "granularity": shard.granularity, "snapshot": shard.snapshot}
        for number, (shard, file) in enumerate(samples.files)
    ]
    empty, listed = database.scratch / "browse-none.parquet", database.scratch / "browse-files.parquet"
    pq.write_table(RECEIPT_SCHEMA.empty_table(), empty)
    pq.write_table(pa.Table.from_pylist(rows, _FILE_SCHEMA), listed)
    database.view_parquet("receipt_files", [str(listed)])
    files = files_to_read([empty, *(file for _, file in samples.files)])
    database.execute(
        "CREATE OR REPLACE TEMP VIEW numbered_receipts AS SELECT * FROM "
        f"read_parquet({files}, filename = true, file_row_number = true)"
    )


def _pointer(name: str) -> str:
    """A JSON pointer to a member, whatever its name."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


def _make_losses(target: Target, database: Database) -> None:
    """Make the table ``losses`` out of the tables of rejects and exclusions up to the target's snapshot."""
    empty = database.scratch / "browse-no-losses.parquet"
    pq.write_table(LOSS_SCHEMA.empty_table(), empty)
    selects = [_loss_rows([empty], 0, 0, is_rejects=False)]
    last = 0
    for entry in target.manifest.snapshots if target.manifest else ():
        if target.snapshot is not None and entry.snapshot > target.snapshot:
            continue
        last = entry.snapshot
        for path in entry.tables:
            name = storage.name_of(path).rpartition("-")[0]
            if name == "rejects" or name.startswith("excluded-"):
                files = database.local_files([storage.join(target.uri, path)])
                selects.append(_loss_rows(files, entry.snapshot, len(selects), is_rejects=name == "rejects"))
    database.execute("CREATE OR REPLACE TEMP VIEW loss_rows AS " + " UNION ALL ".join(selects))
    database.view_parquet("retried", snapshot_tables(target, "retried"), empty=NOT_RETRIED, numbered=True)
    database.run("browse_losses", last=last)


def _loss_rows(files: list[Path], snapshot: int, table: int, *, is_rejects: bool) -> str:
    return (
        'SELECT granularity, stage, state, reason, detail, id AS loss_id, source_id, "row", '
        f'{snapshot} AS snapshot, {table}::BIGINT AS "table", {is_rejects} AS is_rejects, file_row_number AS place '
        f"FROM read_parquet({files_to_read(files)}, file_row_number = true)"
    )


def media_kind(extension: str | None) -> str:
    """``video``, ``image``, ``frames`` or ``none``: what a page can do with a sample's media."""
    if extension == FRAMES_EXTENSION:
        return "frames"
    if extension in VIDEO_EXTENSIONS:
        return "video"
    return "image" if extension in IMAGE_EXTENSIONS else "none"
