"""Receipts on disk: written last, read to know what exists. Uses pyarrow; no video bytes.

A receipt is ``{granularity}/{granularity}-NNNNNN.parquet``: a row a sample with text, segments, lineage
and the media's place in the tar; the shard's digest, size and plan stand in the Parquet metadata. What
a shard's plan asked for and did not get is written first, to ``tables/losses/``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gex_pipeline import storage
from gex_pipeline.errors import FileMissingError
from gex_pipeline.shard_format import Frames, Loss, Receipt, SampleRecord, text_digest

_METADATA_KEY = b"gex"
_FOOTER_BYTES = 64 << 10  # most footers are smaller; one with long texts in its statistics takes a second read
_TAIL_BYTES = 8  # a Parquet file ends with its footer's length in four bytes and with PAR1

SEGMENT_TYPE = pa.struct(
    [
        ("clip_id", pa.string()),
        ("source_id", pa.string()),
        ("offset_s", pa.float64()),
        ("duration_s", pa.float64()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("text", pa.string()),
    ]
)

FRAMES_TYPE = pa.struct([(name, pa.int64()) for name in Frames.__dataclass_fields__])

RECEIPT_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("granularity", pa.string()),
        ("shard", pa.int64()),
        ("source_id", pa.string()),
        ("parents", pa.list_(pa.string())),
        ("segments", pa.list_(SEGMENT_TYPE)),
        ("text", pa.string()),
        ("text_digest", pa.string()),
        ("source_text_digest", pa.string()),
        ("num_words", pa.int64()),
        ("duration_s", pa.float64()),
        ("width_px", pa.int64()),
        ("height_px", pa.int64()),
        ("fps", pa.float64()),
        ("codec", pa.string()),
        ("made_by", pa.string()),
        ("scores", pa.string()),  # JSON: which scores there are is the recipe's choice
        ("media_extension", pa.string()),
        ("media_uri", pa.string()),  # the tar the media lies in, relative to the output
        ("media_offset_bytes", pa.int64()),
        ("media_size_bytes", pa.int64()),
        ("frames", FRAMES_TYPE),
        ("frames_offset_bytes", pa.int64()),  # of frames beside a video, in the same tar; else the media is the frames
        ("frames_size_bytes", pa.int64()),
    ]
)

LOSS_SCHEMA = pa.schema([(name, pa.string()) for name in Loss.__dataclass_fields__])


def write_receipt(uri: str, receipt: Receipt, samples: Iterable[SampleRecord]) -> None:
    """Publish a shard's receipt; the shard exists from this moment on."""
    rows = [_receipt_row(sample, receipt) for sample in samples]
    if len(rows) != receipt.num_samples:
        raise AssertionError(f"receipt {receipt.name} counts {receipt.num_samples} samples and lists {len(rows)}")
    write_table(uri, pa.Table.from_pylist(rows, RECEIPT_SCHEMA), asdict(receipt))


def _receipt_row(sample: SampleRecord, receipt: Receipt) -> dict[str, Any]:
    row = asdict(sample)
    row["scores"] = json.dumps(sample.scores, sort_keys=True)
    row["segments"] = [asdict(segment) for segment in sample.segments]
    row |= {"shard": receipt.shard, "num_words": sample.num_words, "text_digest": text_digest(sample.text)}
    return row


def read_receipt(uri: str) -> Receipt | None:
    """The receipt at `uri`, or None when the shard does not exist (or its receipt cannot be read)."""
    try:
        footer = _read_footer(uri)
    except FileMissingError:
        return None
    try:
        # From memory, where an OSError (Arrow's word for a torn footer) is about the content and not about storage.
        metadata = pq.read_schema(pa.BufferReader(footer)).metadata or {}
        return Receipt(**json.loads(metadata[_METADATA_KEY]))
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError):
        return None


def _read_footer(uri: str) -> bytes:
    """The end of a Parquet file from the beginning of its footer, or before it, on."""
    with storage.open_read(uri) as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - _FOOTER_BYTES))
        footer = stream.read()
        needed = int.from_bytes(footer[-_TAIL_BYTES:-4], "little") + _TAIL_BYTES
        if len(footer) < needed <= size:  # else it is there, or what stands there is no length
            stream.seek(size - needed)
            footer = stream.read()
    return footer


def write_losses(uri: str, losses: Sequence[Loss]) -> None:
    """Publish what a shard's plan asked for and did not get."""
    write_table(uri, pa.Table.from_pylist([asdict(loss) for loss in losses], LOSS_SCHEMA), {})


def write_table(uri: str, table: pa.Table, metadata: dict[str, Any]) -> None:
    """Publish a table in one step; `metadata` is kept as JSON in the file."""
    table = table.replace_schema_metadata({_METADATA_KEY: json.dumps(metadata, sort_keys=True).encode()})
    with storage.scratch_folder() as folder:
        local = folder / "table.parquet"
        pq.write_table(table, local, compression="zstd")
        storage.publish_file(local, uri)
