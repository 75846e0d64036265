"""One granularity's receipts as mapped Arrow files: written once, then read a row at a time by any process.

A record batch a shard, in the manifest's order. One file has the rows, one the sources of every sample, as numbers:
those of its clips, whatever it was grouped by. The split reads them, and what keeps pairs of one source from being each
other's negatives. Receipts pass through memory a few at a time. Of a sample that has frames beside its video, the media
are its frames.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.shard_format import FRAMES_EXTENSION
from gex_pipeline.shards.manifest import ShardEntry
from trainer.order import Int64s, mixed

TRAINING, HELD_OUT, MIXED = np.int8(0), np.int8(1), np.int8(2)

_COLUMNS = ("key", "source_id", "text", "duration_s", "media_uri", "media_offset_bytes", "media_size_bytes")
_EXTENSION, _SOURCES = "media_extension", "segments.list.element.source_id"
_NUM_FRAMES = "frames.num"
_FRAMES = ("frames_offset_bytes", "frames_size_bytes")  # of frames beside a video
_RECEIPTS_AT_ONCE = 64  # what is in memory while the rows are written out
_KEPT_SHARDS = 64  # whose rows stay open: a worker goes through a window of them

ROWS_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("source_id", pa.string()),
        ("source_number", pa.int64()),
        ("text", pa.string()),
        ("duration_s", pa.float64()),
        ("media", pa.int32()),  # which URI; -1: none
        ("media_offset_bytes", pa.int64()),
        ("media_size_bytes", pa.int64()),
        ("extension", pa.int32()),
        ("start_s", pa.float64()),  # null: the whole file
        ("end_s", pa.float64()),
    ]
)
SOURCES_SCHEMA = pa.schema([("sources", pa.list_(pa.int64()))])


@dataclass(frozen=True)
class CatalogSample:
    """One sample: its text, and where its media lies; the URI is whole, and None where there is no media."""

    key: str
    granularity: str
    source_id: str
    source_number: int  # the first 64 bits of the source id's SHA-256, signed
    text: str
    duration_s: float
    media_uri: str | None
    media_offset_bytes: int
    media_size_bytes: int
    media_extension: str
    start_s: float | None = None
    """The part of the video that is meant, [start_s, end_s) from its first frame on; none: all of it."""
    end_s: float | None = None
    sources: tuple[int, ...] = field(default=(), compare=False)
    """The sources of its clips as such numbers, each once, ascending; of a sample that no catalogue holds, none."""


def source_number(source_id: str) -> int:
    """A source id as 64 signed bits, the same in every process and for ever."""
    return int.from_bytes(hashlib.sha256(source_id.encode()).digest()[:8], "big", signed=True)


@dataclass
class Rows:
    """The rows of one granularity: an Arrow file with a record batch a shard."""

    granularity: str
    path: Path
    uris: list[str]
    extensions: list[str]
    starts: Int64s  # the number of each shard's first sample; and of one more
    num_sources: int = 1  # the most that a sample has
    fewest_frames: int | None = None  # of samples that have frames; none: no sample has
    _readers: tuple[Any, ...] = field(default=(), repr=False, compare=False)
    _batches: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_readers": (), "_batches": {}}

    def sample(self, index: int) -> CatalogSample:
        """One sample by its number.

        Raises:
            IndexError: there is no such sample.
        """
        if not 0 <= index < self.starts[-1]:
            raise IndexError(f"sample {index} of {self.granularity}; there are {self.starts[-1]}")
        shard = bisect_right(self.starts, index) - 1
        row = {name: column[index - int(self.starts[shard])].as_py() for name, column in self._columns(shard).items()}
        media = row.pop("media")
        return CatalogSample(
            granularity=self.granularity,
            media_uri=None if media < 0 else self.uris[media],
            media_extension=self.extensions[row.pop("extension")],
            sources=tuple(row.pop("sources")),
            **row,
        )

    def sides(self, held_out_share: float, seed: int) -> NDArray[np.int8]:
        """For every sample, on which side of the split its sources are."""
        if not held_out_share:
            return np.zeros(int(self.starts[-1]), dtype=np.int8)
        with pa.memory_map(str(self.sources_path)) as file, pa.ipc.open_file(file) as reader:
            batches = (reader.get_batch(number).column(0) for number in range(reader.num_record_batches))
            parts = [sides_of(np.asarray(lists.flatten()), _offsets(lists), held_out_share, seed) for lists in batches]
        return np.concatenate(parts)

    @property
    def sources_path(self) -> Path:
        """The file with the sources of every sample."""
        return self.path.with_suffix(".sources")

    def _columns(self, shard: int) -> dict[str, Any]:
        """The columns of one shard; the last few shards are kept."""
        if shard not in self._batches:
            if not self._readers:
                files = (self.path, self.sources_path)
                self._readers = tuple(pa.ipc.open_file(pa.memory_map(str(file))) for file in files)
            if len(self._batches) >= _KEPT_SHARDS:
                self._batches.pop(next(iter(self._batches)))
            batches = [reader.get_batch(shard) for reader in self._readers]
            named = chain.from_iterable(zip(batch.schema.names, batch.columns, strict=True) for batch in batches)
            self._batches[shard] = dict(named)
        columns: dict[str, Any] = self._batches[shard]
        return columns


def write_rows(path: Path, dataset_uri: str, granularity: str, shards: Sequence[ShardEntry]) -> Rows:
    """Write the rows of these shards' receipts to Arrow files at and beside `path`.

    Raises:
        GexError: a receipt is missing, damaged, or not the one that was published.
    """
    uris: dict[str, int] = {}
    extensions: dict[str, int] = {}
    rows = Rows(granularity, path, [], [], np.cumsum([0, *(shard.num_samples for shard in shards)]))
    with pa.ipc.new_file(path, ROWS_SCHEMA) as out, pa.ipc.new_file(rows.sources_path, SOURCES_SCHEMA) as sources:
        for table in _receipts(dataset_uri, granularity, shards):
            out.write_batch(_row_batch(table, dataset_uri, uris, extensions))
            rows.fewest_frames = _fewest(rows.fewest_frames, table["frames"])
            lists = _sources_of(table)
            rows.num_sources = max(rows.num_sources, int(np.diff(_offsets(lists)).max(initial=1)))
            sources.write_batch(pa.RecordBatch.from_arrays([lists], schema=SOURCES_SCHEMA))
    rows.uris, rows.extensions = list(uris), list(extensions)
    return rows


def _receipts(dataset_uri: str, name: str, shards: Sequence[ShardEntry]) -> Iterator[pa.Table]:
    """The receipts' tables in order, some at a time."""

    def read(shard: ShardEntry) -> pa.Table:
        return _read_receipt(storage.join(dataset_uri, shard.receipt), name, shard.num_samples)

    for first in range(0, len(shards), _RECEIPTS_AT_ONCE):
        yield from storage.for_each(read, shards[first : first + _RECEIPTS_AT_ONCE])


def _read_receipt(uri: str, name: str, num_samples: int) -> pa.Table:
    content = storage.read_bytes(uri)
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        table = file.read(columns=[*_COLUMNS, _EXTENSION, _SOURCES, _NUM_FRAMES, *_FRAMES], use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise GexError(
            f"the receipt {uri!r} of {name} cannot be read ({error}); `gex shards verify` says what else is damaged"
        ) from error
    lacking = {*_COLUMNS, _EXTENSION, "segments", "frames", *_FRAMES}.difference(table.column_names)
    if lacking or table.num_rows != num_samples:
        why = f"lacks {', '.join(sorted(lacking))}" if lacking else f"lists {table.num_rows} samples"
        raise GexError(
            f"the receipt {uri!r} of {name} {why}, dataset.json says {num_samples} samples; "
            "it is not the one that was published: `gex shards verify` says what else is damaged"
        )
    return _prefer_frames(table)


def _prefer_frames(table: pa.Table) -> pa.Table:
    """The same rows, where a sample has frames beside its video with the frames as its media."""
    has_frames = pc.is_valid(table["frames_size_bytes"])
    places = zip(("media_offset_bytes", "media_size_bytes", _EXTENSION), (*_FRAMES, None), strict=True)
    for name, instead in places:
        chosen = pc.if_else(has_frames, table[instead] if instead else FRAMES_EXTENSION, table[name])
        table = table.set_column(table.column_names.index(name), name, chosen)
    return table


def _fewest(known: int | None, frames: pa.ChunkedArray) -> int | None:
    """The smaller of what is known and the fewest frames that a sample has."""
    found = pc.min(pc.struct_field(frames, "num")).as_py()
    return min((one for one in (known, found) if one is not None), default=None)


def _row_batch(table: pa.Table, dataset_uri: str, uris: dict[str, int], extensions: dict[str, int]) -> pa.RecordBatch:
    """One receipt as a batch of rows; new URIs and extensions are added to what is known."""

    def place(uri: str | None) -> int:
        return -1 if uri is None else uris.setdefault(storage.join(dataset_uri, uri), len(uris))

    def kind(extension: str | None) -> int:
        return extensions.setdefault(extension or "", len(extensions))

    columns = {
        "source_number": pa.array(_numbers_of(table["source_id"])),
        "media": pa.array(_numbered(table["media_uri"], place), pa.int32()),
        "extension": pa.array(_numbered(table[_EXTENSION], kind), pa.int32()),
        "text": _whole(table["text"]).fill_null(""),
        "media_offset_bytes": _whole(table["media_offset_bytes"]).fill_null(0),
        "media_size_bytes": _whole(table["media_size_bytes"]).fill_null(0),
        "start_s": pa.nulls(len(table), pa.float64()),
        "end_s": pa.nulls(len(table), pa.float64()),
    }
    arrays = [columns[name] if name in columns else _whole(table[name]) for name in ROWS_SCHEMA.names]
    return pa.RecordBatch.from_arrays(arrays, schema=ROWS_SCHEMA)


def _sources_of(table: pa.Table) -> pa.ListArray:
    """For every sample the sources of its clips, as ascending numbers, each once; its own where it names no clips."""
    segments, own = _whole(table["segments"]), _numbers_of(table["source_id"])
    numbers = _numbers_of(segments.flatten().field("source_id"))
    offsets = _offsets(segments)
    empty = np.flatnonzero(np.diff(offsets) == 0)
    numbers = np.insert(numbers, offsets[empty], own[empty])
    samples = np.repeat(np.arange(len(table)), np.maximum(np.diff(offsets), 1))
    order = np.lexsort((numbers, samples))
    samples, numbers = samples[order], numbers[order]
    is_new = np.ones(len(numbers), dtype=bool)
    is_new[1:] = (np.diff(samples) != 0) | (numbers[1:] != numbers[:-1])
    lengths = np.bincount(samples[is_new], minlength=len(table))
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(bounds), pa.array(numbers[is_new]))


def sides_of(sources: Int64s, bounds: Int64s, held_out_share: float, seed: int) -> NDArray[np.int8]:
    """For every sample, on which side its sources are; those of sample i are ``sources[bounds[i]:bounds[i + 1]]``."""
    held_out = mixed(sources.view(np.uint64), "held-out", seed) / 2.0**64 < held_out_share
    ends = np.concatenate([[0], np.cumsum(held_out)])
    num_held_out = ends[bounds[1:]] - ends[bounds[:-1]]
    sides = np.where(num_held_out == 0, TRAINING, np.where(num_held_out == np.diff(bounds), HELD_OUT, MIXED))
    return sides.astype(np.int8)


def _offsets(lists: pa.ListArray) -> Int64s:
    """Where each list begins among the members of all, and where the last one ends."""
    lengths = np.asarray(lists.value_lengths().fill_null(0))
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _numbers_of(ids: Any) -> Int64s:
    """Source ids as numbers."""
    return _numbered(_whole(ids).fill_null(""), source_number)


def _numbered(words: Any, number_of: Callable[[Any], int]) -> Int64s:
    """A column of words as numbers; each distinct one, and none, is asked for once."""
    encoded = _whole(words).dictionary_encode(null_encoding="encode")
    numbers = np.array([number_of(word) for word in encoded.dictionary.to_pylist()], dtype=np.int64)
    return numbers[encoded.indices.to_numpy(zero_copy_only=False)] if len(numbers) else numbers


def _whole(column: Any) -> pa.Array:
    """A column of a table as one array."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return whole.combine_chunks() if isinstance(whole, pa.ChunkedArray) else whole
