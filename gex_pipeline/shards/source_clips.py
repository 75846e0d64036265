"""The source clips of every shard of a target, for looking deep: receipts and tables of clips in, one file out.

The tables are read once, however many shards there are: each shard's clips stand side by side in the file, and a check
reads its own. Where the tar of a clip was written anew, its newest place counts. Reads no media, changes nothing.
"""

from __future__ import annotations

import io
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gex_pipeline import storage
from gex_pipeline.registry import BUILT_IN
from gex_pipeline.shards.manifest import Manifest
from gex_pipeline.shards.samples import clip_tables, snapshot_tables
from gex_pipeline.shards.target import ShardRef, Target
from gex_pipeline.tables import Database

_WANTED = pa.schema([("shard", pa.int64()), ("clip_id", pa.string())])
_NO_CLIPS = (
    "SELECT NULL::VARCHAR AS clip_id, NULL::DOUBLE AS start_s, NULL::DOUBLE AS end_s, NULL::VARCHAR AS media_uri, "
    "NULL::BIGINT AS media_offset_bytes, NULL::BIGINT AS media_size_bytes, NULL::VARCHAR AS media_stamp, "
    "NULL::INTEGER AS snapshot"
)
_NUM_TOGETHER = 64  # receipts in memory


@dataclass(frozen=True)
class SourceClips:
    """The clips of one shard: rows of a file on this machine, or `content`, which travels. Pickles small without."""

    path: str
    shard: int  # its place among the shards of the target
    content: bytes = b""
    are_shown: bool = True  # whether samples show what their clips do, as those of built-in operations do

    def carried(self) -> SourceClips:
        """The same for another machine."""
        content = io.BytesIO()
        pq.write_table(self._table(), content, compression="zstd")
        return replace(self, path="", content=content.getvalue())

    def by_id(self) -> dict[str, dict[str, Any]]:
        """What the tables say of each clip, and where it lies now."""
        return {row["clip_id"]: row for row in self._table().to_pylist()}  # the last row of a clip is the newest

    def _table(self) -> pa.Table:
        if self.content:
            return pq.read_table(pa.BufferReader(self.content))
        file, ends = _opened(self.path)
        first, end = bisect_left(ends, self.shard), bisect_right(ends, self.shard) + 1
        table = file.read_row_groups(range(first, min(end, len(ends))))
        return table.filter(pc.equal(table["shard"], self.shard))


def not_built_in(manifest: Manifest) -> frozenset[str]:
    """The granularities in which an operation that is not built in had a hand: it can change time and pictures."""
    entries = [item for snapshot in manifest.snapshots for item in snapshot.granularities.items()]
    found = {name for name, entry in entries if entry.operation not in BUILT_IN}
    while more := {name for name, entry in entries if entry.parent in found} - found:
        found |= more
    return frozenset(found)


@lru_cache(maxsize=1)
def _opened(path: str) -> tuple[pq.ParquetFile, list[int]]:
    """The file of clips, and the last shard in each of its row groups. Its footer is read once, not once a shard."""
    file = pq.ParquetFile(path, memory_map=True)
    column = file.schema_arrow.get_field_index("shard")
    groups = (file.metadata.row_group(number) for number in range(file.num_row_groups))
    return file, [group.column(column).statistics.max for group in groups]


@contextmanager
def sorted_clips(target: Target) -> Iterator[list[SourceClips]]:
    """The clips of each shard of an output, in the order of its shards; they can be read until the block ends.

    Raises:
        DatabaseError: a table of clips is damaged.
        GexError: storage refuses.
    """
    with tempfile.TemporaryDirectory(prefix="gex-clips-") as folder:
        path = Path(folder) / "source-clips.parquet"
        with Database() as database:
            wanted = database.scratch / "wanted.parquet"
            _write_wanted(target.shards, wanted)
            database.view_parquet("wanted", [str(wanted)])
            database.view_parquet("clips_written", clip_tables(target), empty=_NO_CLIPS, numbered=True)
            moved = snapshot_tables(target, "media-moved")
            database.view_parquet("clips_moved", moved, empty=_NO_CLIPS, numbered=True)
            database.run("shards_source_clips")
            database.publish_table("source_clips", str(path), "shard, written, moved NULLS FIRST")
        own = not_built_in(target.manifest) if target.manifest else frozenset()
        names = [shard.granularity for shard in target.shards]
        try:
            yield [SourceClips(str(path), number, are_shown=name not in own) for number, name in enumerate(names)]
        finally:
            _opened.cache_clear()  # an open file keeps its space on the disk


def _write_wanted(shards: Sequence[ShardRef], path: Path) -> None:
    """Which clips each shard's segments name."""
    with pq.ParquetWriter(path, _WANTED) as writer:
        for start in range(0, len(shards), _NUM_TOGETHER):
            found = storage.for_each(_clip_ids, shards[start : start + _NUM_TOGETHER])
            for number, ids in enumerate(found, start):
                column = pa.array([number] * len(ids), pa.int64())
                writer.write_table(pa.table([column, ids], _WANTED))


def _clip_ids(shard: ShardRef) -> pa.Array:
    """The clips of a shard, each once; none where its receipt cannot be read, which its check tells."""
    uri = shard.receipt_uri or ""
    none = pa.array([], pa.string())
    if not storage.exists(uri):
        return none
    content = storage.read_bytes(uri)
    try:
        table = pq.read_table(pa.BufferReader(content), columns=["segments"])
        if not table.num_columns:
            return none
        segments = pc.list_flatten(table.column(0).combine_chunks())
        return pc.unique(pc.struct_field(segments, "clip_id")).drop_null().cast(pa.string())
    except (pa.ArrowException, OSError):
        return none
