"""Vectors of videos and texts as a Parquet file: written in row groups and published whole, read in blocks.

The file's metadata say what the vectors are of: the model (a digest of its files), and of each granularity the samples
(a digest of its published shards), frames and #iter. Whoever reads them for another model or another state of the data
set is refused. Vectors are unit vectors in 32-bit floats. Encodes nothing.
"""

# Arrays: B rows of a block, D embedding.

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.shards.manifest import published_manifest
from trainer.data_settings import GranularitySettings
from trainer.pretrained import CARD, CLIP, find_model

Floats = NDArray[np.float32]

VIDEO, TEXT = "video_vector", "text_vector"
_METADATA = b"gex.vectors"
_FORMAT = 1
_ROW_GROUP = 8192
_PIECE_BYTES = 1 << 22


def model_digest(uri: str) -> str:
    """SHA-256 of the files that make a model's vectors: configuration, weights, CLIP's configuration and tokenizer.

    Raises:
        GexError: there is no model.
    """
    folder, digest = find_model(uri), hashlib.sha256()
    files = [f"{folder}/*", storage.join(folder, CLIP, "*")]
    for file in (file for pattern in files for file in storage.list_files(pattern)):
        if storage.name_of(file.uri) == CARD:
            continue
        digest.update(f"{storage.name_of(file.uri)}\0{file.num_bytes}\0".encode())
        with storage.open_read(file.uri) as stream:
            while piece := stream.read(_PIECE_BYTES):
                digest.update(piece)
    return digest.hexdigest()


def dataset_digest(dataset_uri: str, granularity: str) -> str:
    """SHA-256 of the names and digests of a granularity's published shards: the same samples in the same order.

    Raises:
        GexError: no data set is published there.
    """
    manifest = published_manifest(dataset_uri)
    lines = [f"{shard.path} {shard.sha256}\n" for shard in manifest.shards(granularity)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class Facts(NamedTuple):
    """What the vectors of a file are of."""

    model: str
    """Digest of the model."""
    granularities: dict[str, dict[str, Any]]
    """By name: frames, #iter and, of a data set, the digest of its shards."""


def facts_of(granularity: GranularitySettings, digest: str | None = None) -> dict[str, Any]:
    """How one granularity's vectors were made."""
    found: dict[str, Any] = granularity.model_dump(include={"num_frames", "n_iter_video", "n_iter_text"})
    return found if digest is None else {**found, "dataset": digest}


class VectorWriter:
    """Takes rows and writes them to a local file, a row group as soon as it is full."""

    def __init__(self, path: Path, columns: Mapping[str, pa.DataType], facts: Facts) -> None:
        metadata = {_METADATA: json.dumps({"format": _FORMAT, **facts._asdict()}).encode()}
        self._schema = pa.schema(list(columns.items()), metadata=metadata)
        plain = [name for name in columns if name in (VIDEO, TEXT)]
        # vectors neither repeat nor compress; as they are they can be read from where they lie
        others = [name for name in columns if name not in plain]
        codec = dict.fromkeys(others, "zstd") | {f"{name}.list.element": "none" for name in plain}
        self._file = pq.ParquetWriter(path, self._schema, compression=codec, use_dictionary=others)
        self._waiting: list[pa.RecordBatch] = []
        self.num_rows = 0

    def add(self, columns: Mapping[str, Sequence[Any] | Floats]) -> None:
        """Rows by column; vectors as an array (B, D)."""
        arrays = [_array(columns[field.name], field.type) for field in self._schema]
        self._waiting.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self.num_rows += len(arrays[0])
        if sum(batch.num_rows for batch in self._waiting) >= _ROW_GROUP:
            self._write()

    def close(self) -> None:
        """Write what is left."""
        self._write()
        self._file.close()

    def _write(self) -> None:
        if self._waiting:
            table = pa.Table.from_batches(self._waiting)
            self._file.write_table(table, row_group_size=len(table))
        self._waiting = []


@contextmanager
def publishing(uri: str, columns: Mapping[str, pa.DataType], facts: Facts) -> Iterator[VectorWriter]:
    """A writer whose file is put at `uri` in one step at the end; nothing is there when the block fails.

    Raises:
        GexError: it cannot be written.
    """
    with storage.scratch_folder("gex-vectors-") as folder:
        writer = VectorWriter(folder / "vectors.parquet", columns, facts)
        try:
            yield writer
        finally:
            writer.close()
        storage.publish_file(folder / "vectors.parquet", uri)


def vector_type(dim: int) -> pa.DataType:
    """A vector in Arrow."""
    return pa.list_(pa.float32(), dim)


class Block(NamedTuple):
    """Some rows of a file, or of a data set that is encoded while it is read."""

    numbers: NDArray[np.int64]
    """Of the samples in the granularity."""
    keys: list[str]
    video_BD: Floats


class VectorFile:
    """The vectors of `gex embed`, opened for one model and data set."""

    def __init__(self, path: Path, uri: str) -> None:
        """Open a local file; `uri` is its name in messages.

        Raises:
            GexError: it holds no vectors of a data set's videos.
        """
        self.uri = uri
        try:
            self._file = pq.ParquetFile(path, memory_map=True)
            content = json.loads((self._file.schema_arrow.metadata or {})[_METADATA])
            if content["format"] != _FORMAT:
                raise GexError(f"{uri!r} has format {content['format']}; this version reads format {_FORMAT}")
            self.facts = Facts(content["model"], content["granularities"])
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise GexError(f"{uri!r} is not a file of vectors that gex embed wrote: {error}") from error
        if not {"number", "key", "granularity", VIDEO} <= set(self._file.schema_arrow.names):
            raise GexError(f"{uri!r} holds no vectors of a data set; make them with gex embed MODEL DATASET")

    def check(self, model: str, granularity: str, wanted: Mapping[str, Any]) -> None:
        """Whether the vectors of a granularity are those that this model would make.

        Raises:
            GexError: they are not.
        """
        again = "make them again with gex embed"
        if self.facts.model != model:
            raise GexError(f"{self.uri!r} holds vectors of another model ({self.facts.model[:12]}...); {again}")
        found = self.facts.granularities.get(granularity)
        if found is None:
            names = ", ".join(self.facts.granularities)
            raise GexError(f"{self.uri!r} holds no vectors of {granularity}, only of {names}")
        if found.get("dataset") != wanted["dataset"]:
            raise GexError(f"{self.uri!r} was made of another data set, or of another state of this one; {again}")
        differing = [name for name in ("num_frames", "n_iter_video") if found[name] != wanted[name]]
        if differing:
            name = differing[0]
            raise GexError(f"{self.uri!r} was made with {name} = {found[name]}, wanted is {wanted[name]}; {again}")

    def blocks(self, granularity: str) -> Iterator[Block]:
        """The vectors of a granularity's videos, a row group at a time, straight from the file."""
        columns = ["number", "key", "granularity", VIDEO]
        for batch in self._file.iter_batches(batch_size=_ROW_GROUP, columns=columns):
            mine = np.asarray(pa.compute.equal(batch["granularity"], granularity).to_numpy(zero_copy_only=False))
            if mine.any():
                chosen = batch if mine.all() else batch.filter(pa.array(mine))
                yield Block(chosen["number"].to_numpy(), chosen["key"].to_pylist(), rows_of(chosen[VIDEO]))


def rows_of(vectors: pa.FixedSizeListArray) -> Floats:
    """A column of vectors as an array (B, D)."""
    flat: Floats = vectors.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(vectors), -1)


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(values, np.ndarray) and values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), pa.float32()), values.shape[1])
    return pa.array(values, kind)
