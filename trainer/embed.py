"""A model over data sets, texts or video files: samples in, rows of vectors out, into a writer.

Each batch is written as it comes: no data set is held in memory. What cannot be read has no row, is named and counted.
"""

# Tensors: B samples, T frames.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.progress import progress
from gex_pipeline.shards.manifest import published_manifest
from trainer.catalog import Catalog, CatalogPart
from trainer.catalog_rows import CatalogSample, source_number
from trainer.data_settings import PAPER_GRANULARITIES, GranularitySettings
from trainer.encoding import Floats, encode_texts, name_some
from trainer.frames import IMAGE_EXTENSIONS, read_frames
from trainer.loader import Damaged
from trainer.media_reader import DamagedMediaError, MediaReader
from trainer.pretrained import Pretrained
from trainer.sequence import Reading, SequenceBatch, SequenceLoader
from trainer.vectors import (
    TEXT,
    VIDEO,
    Facts,
    VectorWriter,
    dataset_digest,
    facts_of,
    model_digest,
    publishing,
    vector_type,
)
from trainer.videos import Frames

_FRAMES_AT_ONCE = 256  # fills a GPU, and is 150 MB of floats
_TEXTS_AT_ONCE = 256
_FEWEST_FOR_WORKERS = 256  # samples; worker processes take seconds to start


@dataclass
class Counted:
    """How many rows were written, and what is not among them."""

    num_rows: int = 0
    damaged: list[Damaged] = field(default_factory=list)
    num_truncated_texts: int = 0
    """Rows with a text whose end does not fit the text tower."""


def reading_of(model: Pretrained, granularity: str) -> GranularitySettings:
    """Frames and #iter of a granularity: as the model was trained on it, else the paper's.

    Raises:
        GexError: neither says.
    """
    if granularity in model.granularities:
        return model.granularities[granularity]
    if granularity in PAPER_GRANULARITIES:
        return GranularitySettings(**PAPER_GRANULARITIES[granularity])
    raise GexError(
        f"the model was not trained on granularity {granularity!r}, so its #iter is not known; name others with "
        f"--granularity, or take a model that was trained on it; known: {_known(model)}"
    )


def _known(model: Pretrained) -> str:
    return ", ".join(dict.fromkeys([*model.granularities, *PAPER_GRANULARITIES]))


def granularities_of(model: Pretrained, dataset_uri: str, named: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """The granularities to embed, and those of the data set whose #iter is not known, which are left out.

    Raises:
        GexError: one that is named is not known, none is left, or nothing is published there.
    """
    published = published_manifest(dataset_uri).granularity_names()
    if named:
        for name in named:
            if name in published:  # of another one it is said what is published, when it is read
                reading_of(model, name)
        return list(dict.fromkeys(named)), []
    names = [name for name in published if name in model.granularities or name in PAPER_GRANULARITIES]
    if not names:
        raise GexError(
            f"the #iter of no granularity of {dataset_uri!r} is known: published are {', '.join(published) or 'none'}, "
            f"known are {_known(model)}; take a model that was trained on one of them"
        )
    return names, [name for name in published if name not in names]


def dataset_columns(dim: int) -> dict[str, pa.DataType]:
    """Columns of the vectors of a data set; `number` is the sample's in the published order of its granularity."""
    texts = {name: pa.string() for name in ("key", "granularity", "source_id")}
    return texts | {"number": pa.int64(), VIDEO: vector_type(dim), TEXT: vector_type(dim)}


def batches_of(
    model: Pretrained, catalog: Catalog, granularity: str, num_workers: int, *, needs_text: bool = True
) -> Iterator[SequenceBatch]:
    """All samples of a granularity, with progress; without `needs_text` those without text are whole."""
    reading = reading_of(model, granularity)
    if catalog.num_samples(granularity) < _FEWEST_FOR_WORKERS:
        num_workers = 0
    how = Reading(
        num_frames=reading.num_frames,
        image_size_px=model.image_size_px,
        batch_size=max(1, _FRAMES_AT_ONCE // reading.num_frames),
        num_workers=num_workers,
        needs_text=needs_text,
    )
    with SequenceLoader(everything(catalog), granularity, how) as loader:
        progress().stage(f"encode {granularity}", len(loader), "samples")
        for batch in loader:
            yield batch
            progress().advance(len(batch.keys) + len(batch.damaged))


def everything(catalog: Catalog) -> CatalogPart:
    """All samples of a catalogue as a part of it."""
    return CatalogPart(catalog, dict.fromkeys(catalog.names))


def embed_granularity(
    model: Pretrained, catalog: Catalog, granularity: str, writer: VectorWriter, num_workers: int = 0
) -> Counted:
    """Write a row for every sample of a granularity that can be read.

    Raises:
        GexError: storage fails, or no #iter is known.
    """
    reading, counted = reading_of(model, granularity), Counted()
    for batch in batches_of(model, catalog, granularity, num_workers):
        counted.damaged += batch.damaged
        if not batch.keys:
            continue
        texts = encode_texts(model, batch.texts, reading.n_iter_text)
        writer.add(
            {
                "key": batch.keys,
                "granularity": [granularity] * len(batch.keys),
                "source_id": [catalog.sample(granularity, number).source_id for number in batch.numbers],
                "number": batch.numbers,
                VIDEO: model.encode_videos(batch.frames_BT3HW, reading.n_iter_video).numpy(),
                TEXT: texts.text_TD,
            }
        )
        counted.num_rows += len(batch.keys)
        counted.num_truncated_texts += texts.num_truncated
    return counted


def embed_dataset(
    model: Pretrained, model_uri: str, catalog: Catalog, uri: str, num_workers: int = 0
) -> dict[str, Counted]:
    """Publish the vectors of all granularities of a catalogue at `uri`; `model_uri` is where the model lies.

    Raises:
        GexError: no sample of a granularity can be read, or storage fails.
    """
    granularities = {
        name: facts_of(reading_of(model, name), dataset_digest(catalog.dataset_uri, name)) for name in catalog.names
    }
    facts = Facts(model_digest(model_uri), granularities)
    found = {}
    with publishing(uri, dataset_columns(model.settings.iam.dim), facts) as writer:
        for name in catalog.names:
            found[name] = embed_granularity(model, catalog, name, writer, num_workers)
            if not found[name].num_rows:
                first = name_some(found[name].damaged)
                raise GexError(f"none of {catalog.num_samples(name)} samples of {name} can be read; {first}")
    return found


def text_columns(dim: int) -> dict[str, pa.DataType]:
    """Columns of the vectors of texts."""
    return {"text": pa.string(), TEXT: vector_type(dim)}


def embed_texts(model: Pretrained, texts: Sequence[str], n_iter: int, writer: VectorWriter) -> Counted:
    """Write a row for every text, in their order."""
    progress().stage("encode texts", len(texts), "texts")
    counted = Counted()
    for first in range(0, len(texts), _TEXTS_AT_ONCE):
        some = texts[first : first + _TEXTS_AT_ONCE]
        found = encode_texts(model, some, n_iter)
        writer.add({"text": some, TEXT: found.text_TD})
        counted.num_rows += len(some)
        counted.num_truncated_texts += found.num_truncated
        progress().advance(len(some))
    return counted


def video_columns(dim: int) -> dict[str, pa.DataType]:
    """Columns of the vectors of video files."""
    return {"file": pa.string(), VIDEO: vector_type(dim)}


def embed_files(model: Pretrained, uris: Sequence[str], reading: GranularitySettings, writer: VectorWriter) -> Counted:
    """Write a row for every video or image file that can be read, in their order; an image is one frame.

    Raises:
        GexError: storage fails.
    """
    counted, media, waiting = Counted(), MediaReader(), list[tuple[str, Frames]]()
    at_once = max(1, _FRAMES_AT_ONCE // reading.num_frames)

    def write() -> None:
        if waiting:
            vectors_BD = _encode_apart(model, [frames for _, frames in waiting], reading.n_iter_video)
            writer.add({"file": [uri for uri, _ in waiting], VIDEO: vectors_BD})
            counted.num_rows += len(waiting)
            waiting.clear()

    progress().stage("encode files", len(uris), "files")
    try:
        for uri in uris:
            sample = file_sample(uri)
            num_frames = 1 if sample.media_extension in IMAGE_EXTENSIONS else reading.num_frames
            try:
                waiting.append((uri, read_frames(sample, num_frames, model.image_size_px, media)))
            except DamagedMediaError as error:
                counted.damaged.append(Damaged(uri, str(error)))
            if len(waiting) == at_once:
                write()
            progress().advance(1)
        write()
    finally:
        media.close()
    return counted


def _encode_apart(model: Pretrained, files_T3HW: Sequence[Frames], n_iter: int) -> Floats:
    """Vectors (B, D) of some files in their order; those with equally many frames go through the model together."""
    vectors_BD = np.empty((len(files_T3HW), model.settings.iam.dim), np.float32)
    for num_frames in dict.fromkeys(map(len, files_T3HW)):
        rows = [row for row, frames_T3HW in enumerate(files_T3HW) if len(frames_T3HW) == num_frames]
        frames_BT3HW = torch.from_numpy(np.stack([files_T3HW[row] for row in rows]))
        vectors_BD[rows] = model.encode_videos(frames_BT3HW, n_iter).numpy()
    return vectors_BD


def file_sample(uri: str) -> CatalogSample:
    """A file as a sample whose media is all of it; one that is not there is found damaged when it is read."""
    found = storage.info(uri)
    return CatalogSample(
        key=uri,
        granularity="files",
        source_id=uri,
        source_number=source_number(uri),
        text="",
        duration_s=0.0,
        media_uri=uri if found else None,
        media_offset_bytes=0,
        media_size_bytes=found.num_bytes if found else 0,
        media_extension=storage.name_of(uri).rpartition(".")[2].lower(),
    )
