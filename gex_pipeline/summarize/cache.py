"""Answers that were paid for once: append-only Parquet parts, found by request digest.

A part is named by the hash of its rows and published in one step, so killed runs leave whole parts or
none. Errors are never stored. An answer serves every request with the same digest, whatever its key.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.summarize.request import SummaryAnswer

_SCHEMA = pa.schema(
    [
        ("request_digest", pa.string()),
        ("key", pa.string()),
        ("source_digest", pa.string()),
        ("raw_text", pa.string()),
        ("num_prompt_tokens", pa.int64()),
        ("num_generated_tokens", pa.int64()),
        ("finish", pa.string()),
        ("seconds", pa.float64()),
    ]
)


class ResponseCache:
    """The parts below one folder or URI; safe for several writers, since nothing is ever rewritten."""

    def __init__(self, folder_uri: str) -> None:
        self._folder_uri = folder_uri
        # Digests a part holds, so that a later look-up reads only the parts with hits.
        self._digests: dict[str, Any] = {}

    def lookup(self, digests: Sequence[str]) -> dict[str, SummaryAnswer]:
        """Stored answers by digest; `key` is the one they were first asked under.

        Raises:
            GexError: a part is damaged.
        """
        wanted = pa.array(sorted(set(digests)), pa.string())
        found: dict[str, SummaryAnswer] = {}
        if not len(wanted):
            return found

        def rows_of(uri: str) -> list[dict[str, Any]]:
            table = self._read(uri)
            self._digests[uri] = table["request_digest"]
            rows: list[dict[str, Any]] = table.filter(pc.is_in(table["request_digest"], wanted)).to_pylist()
            return rows

        parts = storage.list_files(storage.join(self._folder_uri, "part-*.parquet"))
        for rows in storage.for_each(rows_of, self._to_read([part.uri for part in parts], wanted)):
            for row in rows:
                found.setdefault(row["request_digest"], SummaryAnswer(**row))
        return found

    def _to_read(self, uris: list[str], wanted: pa.Array) -> list[str]:
        """The parts that hold a wanted digest, and those of which it is not known."""

        def has_any(digests: pa.ChunkedArray) -> bool:
            return bool(pc.any(pc.is_in(digests, wanted)).as_py())

        known = [chunk for uri in uris if uri in self._digests for chunk in self._digests[uri].chunks]
        # Mostly nothing is wanted that is known, and one look at all of them is cheaper than thousands of small ones.
        is_any = has_any(pa.chunked_array(known, pa.string()))
        return [uri for uri in uris if uri not in self._digests or (is_any and has_any(self._digests[uri]))]

    def add(self, answers: Iterable[SummaryAnswer]) -> None:
        """Store the answers that are no errors, as one part."""
        rows = [dataclasses.asdict(answer) for answer in answers if answer.error is None]
        if not rows:
            return
        table = pa.Table.from_pylist([{name: row[name] for name in _SCHEMA.names} for row in rows], _SCHEMA)
        digest = hashlib.sha256()
        for row in rows:
            digest.update(f"{row['request_digest']}\0{row['key']}\0{row['raw_text']}\0".encode(errors="replace"))
        name = f"part-{digest.hexdigest()[:32]}.parquet"
        with tempfile.TemporaryDirectory(prefix="gex-") as folder:
            local = Path(folder) / name
            pq.write_table(table, local)
            storage.publish_file(local, storage.join(self._folder_uri, name))

    def _read(self, uri: str) -> pa.Table:
        try:
            with storage.local_copy(uri) as path:
                # read_table would look at the folder's name for partitions
                return pq.ParquetFile(path).read().cast(_SCHEMA)
        except (pa.ArrowInvalid, ValueError) as error:
            raise GexError(
                f"cached answers in {uri!r} are damaged ({error}); delete that file and run again"
            ) from error
