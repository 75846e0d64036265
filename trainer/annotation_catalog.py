"""A public data set as a catalogue of one granularity: annotation file and media folder in, samples by number out.

Order, loader and everything behind them work on it as on a published output. A sample is a pair of a video, or a part
of one, and a text; its media is a whole file, of which the part is decoded. Its source is the video's id, so pairs of
one video can be kept from being each other's negatives, and are on one side of a split. Keys are hashes of video id,
file name, part and text number: the same for the same files wherever they lie. What is trained on is numbered in an
order of its own, the same everywhere, since files come sorted by class or by film. Only to cut videos into spans of a
length their files are opened.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa

from gex_pipeline.errors import GexError
from trainer.annotations import (
    Annotations,
    LabelledVideo,
    Question,
    RetrievalPair,
    Span,
    read_activitynet,
    read_charades_ego,
    read_class_folders,
    read_coin,
    read_how2qa,
    read_lsmdc,
    read_lvu,
    read_msrvtt,
)
from trainer.catalog import Catalog
from trainer.catalog_rows import HELD_OUT, ROWS_SCHEMA, SOURCES_SCHEMA, Rows, sides_of, source_number
from trainer.data_settings import AnnotationSettings, CoinSubset, Task
from trainer.media_reader import DamagedMediaError
from trainer.order import Int64s, permutation
from trainer.prompts import prompts_of, spoken_name
from trainer.videos import VIDEO_FORMATS, video_length_s

_SHARD_SAMPLES = 1000  # what is shuffled as one: rows that are mapped together, not files that are read together

AnyAnnotations = Annotations[RetrievalPair] | Annotations[LabelledVideo] | Annotations[Question]
Row = RetrievalPair | LabelledVideo | Question


@dataclass(frozen=True)
class MediaText:
    """What becomes a sample: a video, or a part of it, with a text that may be empty."""

    source_id: str
    media: Path
    text: str = ""
    span: Span | None = None

    @property
    def place(self) -> tuple[str, str, float, float]:
        """The video and the part of it, whatever the text; a whole file has part -1 to -1."""
        span = (self.span.start_s, self.span.end_s) if self.span else (-1.0, -1.0)
        return (self.source_id, self.media.name, *span)


def read_annotations(settings: AnnotationSettings, *, each_action: bool = False) -> AnyAnnotations:
    """The rows of an annotation file; of Charades-Ego a row an action with `each_action`, else a row a video.

    COIN without a subset is the one that is tested on.

    Raises:
        AnnotationError: a file in another format, or media that cannot be listed.
    """
    file = Path(settings.file)
    if settings.kind == "folders":
        return read_class_folders(file, _path(settings.class_names))
    media = Path(cast(str, settings.media))  # no settings lack a file that their kind needs
    match settings.kind:
        case "msrvtt":
            return read_msrvtt(file, media, _path(settings.captions))
        case "activitynet":
            return read_activitynet(file, media, _path(settings.subset))
        case "lsmdc":
            return read_lsmdc(file, media)
        case "lvu":
            return read_lvu(file, media)
        case "coin":
            return read_coin(file, media, cast(CoinSubset, settings.subset or "testing"), trim=bool(settings.trim))
        case "charades-ego":
            return read_charades_ego(file, media, Path(cast(str, settings.class_names)), each_action)
        case "how2qa":
            return read_how2qa(file, media)


class AnnotationCatalog(NamedTuple):
    """The pairs of an annotation file to train on, and what the file held."""

    catalog: Catalog
    annotations: AnyAnnotations
    videos: Int64s
    """Of every sample of the catalogue, which video, or part of one, it shows; numbered in the order of the file."""


def read_annotation_catalog(
    settings: AnnotationSettings, granularity: str, task: Task = "contrastive"
) -> AnnotationCatalog:
    """The pairs of an annotation file to train on; of Charades-Ego a pair an action.

    COIN without a subset is the one that is trained on. The text of a class is its name where classes are what is
    learned, else what evaluation asks for.

    Raises:
        AnnotationError: a file in another format, or media that cannot be listed.
        GexError: there is no pair.
    """
    annotations = read_annotations(settings.to_train_on(), each_action=True)
    pairs = pairs_of(annotations, partial(class_text, settings.kind) if task == "contrastive" else str)
    videos = _videos_of(pairs)
    if settings.span_s is not None:
        spans = [_spans_or_whole(pair, settings.span_s) for pair in pairs]
        pairs = list(chain.from_iterable(spans))
        videos = np.repeat(videos, list(map(len, spans)))
    order = _mixed_order(pairs)
    catalog = catalog_of(pairs, granularity, settings.file, order)
    return AnnotationCatalog(catalog, annotations, videos[order])


def pairs_of(annotations: AnyAnnotations, text_of_class: Callable[[str], str] = str) -> list[MediaText]:
    """Pairs to train on: videos with captions, with their classes, or with question and right answer.

    The first text of every video comes before any second one, so that texts of one video lie far apart.
    """
    classes = [text_of_class(name) for name in annotations.class_names]
    numbered: list[tuple[int, MediaText]] = []
    for row in annotations.rows:
        texts = _texts_of(row, classes)
        numbered += [(n, MediaText(row.video_id, row.media, text, row.span)) for n, text in enumerate(texts)]
    return [pair for _, pair in sorted(numbered, key=lambda pair: pair[0])]


def catalog_of(samples: Sequence[MediaText], granularity: str, origin: str, order: Int64s | None = None) -> Catalog:
    """A catalogue of these samples, as one granularity, in their order or in another; `origin` is what errors call it.

    Raises:
        GexError: there are none.
    """
    if not samples:
        raise GexError(f"{origin!r} gives no sample; its media are not there, or have no text")
    catalog = Catalog(Path(tempfile.mkdtemp(prefix="gex-catalog-")), origin)
    try:
        catalog.rows[granularity] = _write(catalog.folder / "samples.arrow", granularity, samples, order)
    except BaseException:
        catalog.close()
        raise
    return catalog


def held_out_rows(rows: Sequence[Row], held_out_share: float, seed: int) -> list[Row]:
    """Those of sources that a training with this share and seed holds out, in their order."""
    sources = np.array([source_number(row.video_id) for row in rows], dtype=np.int64)
    sides = sides_of(sources, np.arange(len(rows) + 1), held_out_share, seed)
    return [row for row, side in zip(rows, sides, strict=True) if side == HELD_OUT]


def keys_of(samples: Sequence[MediaText]) -> list[str]:
    """The key of every sample, in their order."""
    keys = []
    for sample, number in zip(samples, _text_numbers(samples), strict=True):
        words = [*map(repr, sample.place), repr(number)]
        keys.append(hashlib.sha256("\n".join(words).encode()).hexdigest()[:32])
    return keys


def _text_numbers(samples: Sequence[MediaText]) -> list[int]:
    """Of every sample, how many with the same video and part come before it."""
    seen: Counter[tuple[str, str, float, float]] = Counter()
    numbers = []
    for sample in samples:
        numbers.append(seen[sample.place])
        seen[sample.place] += 1
    return numbers


def _mixed_order(pairs: Sequence[MediaText]) -> Int64s:
    """The order in which pairs are numbered: well mixed, though the first text of every video before any second one.

    Samples are shuffled within a few shards at a time, which suits files that are read together. These are not: each
    row has a file of its own, and neighbours in the list have one class, or one film. Depends on nothing but the list.
    """
    order = permutation(len(pairs), "annotations")
    numbers = np.array(_text_numbers(pairs), dtype=np.int64)
    mixed: Int64s = order[np.argsort(numbers[order], kind="stable")]
    return mixed


def _videos_of(pairs: Sequence[MediaText]) -> Int64s:
    """The number of every pair's video, or part of one, in the order in which these first come."""
    number_of: dict[tuple[str, str, float, float], int] = {}
    return np.array([number_of.setdefault(pair.place, len(number_of)) for pair in pairs], dtype=np.int64)


def spans_of(sample: MediaText, span_s: float | None) -> list[MediaText]:
    """A video in as few equal spans as are no longer than `span_s`, for which its file is read; None: as it is.

    Raises:
        DamagedMediaError: it is no video, or cannot be read.
    """
    if span_s is None:
        return [sample]
    container = VIDEO_FORMATS.get(_extension_of(sample.media))
    if container is None:
        raise DamagedMediaError(f"media of kind {sample.media.suffix!r} cannot be cut into spans")
    try:
        length_s = video_length_s(sample.media.read_bytes(), container)
    except OSError as error:
        raise DamagedMediaError(f"it cannot be read: {error.strerror}") from error
    num_spans = max(1, math.ceil(length_s / span_s - 1e-6))
    bounds_s = [length_s * number / num_spans for number in range(num_spans + 1)]
    return [replace(sample, span=Span(*bounds)) for bounds in pairwise(bounds_s)]


def _spans_or_whole(sample: MediaText, span_s: float) -> list[MediaText]:
    try:
        return spans_of(sample, span_s)
    except DamagedMediaError:
        return [sample]  # where it is read for training it is counted as damaged


def class_text(kind: str, name: str) -> str:
    """What is said of a video of a class: what evaluation asks for, of Charades-Ego the name as it is."""
    return name if kind == "charades-ego" else prompts_of(spoken_name(name))[0]


def _texts_of(row: Row, class_names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(row, RetrievalPair):
        return row.texts
    if isinstance(row, LabelledVideo):
        return tuple(class_names[label] for label in row.labels)
    # Paper: GEXIA §4.3, "we concatenate questions and answers as text data"
    return (question_text(row, row.answer_index),)


def question_text(question: Question, candidate: int) -> str:
    """A question and one of its candidate answers as one text."""
    return f"{question.question} {question.candidates[candidate]}"


def _write(path: Path, granularity: str, samples: Sequence[MediaText], order: Int64s | None) -> Rows:
    """The rows as Arrow files; the same columns as those of a published output."""
    bounds = [*range(0, len(samples), _SHARD_SAMPLES), len(samples)]
    files = list(dict.fromkeys(sample.media for sample in samples))
    extensions = list(dict.fromkeys(map(_extension_of, files)))
    rows = Rows(granularity, path, [str(file.absolute()) for file in files], extensions, np.array(bounds, np.int64))
    columns = _columns(samples, files, extensions)
    if order is not None:
        columns = {name: column.take(pa.array(order)) for name, column in columns.items()}
    source_lists = pa.ListArray.from_arrays(pa.array(range(len(samples) + 1), pa.int32()), columns["source_number"])
    with pa.ipc.new_file(path, ROWS_SCHEMA) as out, pa.ipc.new_file(rows.sources_path, SOURCES_SCHEMA) as sources:
        for begin, end in pairwise(bounds):
            arrays = [columns[name].slice(begin, end - begin) for name in ROWS_SCHEMA.names]
            out.write_batch(pa.RecordBatch.from_arrays(arrays, schema=ROWS_SCHEMA))
            lists = source_lists.slice(begin, end - begin)
            sources.write_batch(pa.RecordBatch.from_arrays([lists], schema=SOURCES_SCHEMA))
    return rows


def _columns(samples: Sequence[MediaText], files: Sequence[Path], extensions: Sequence[str]) -> dict[str, pa.Array]:
    """Every column that the schema names; one that it gets later and a whole file does not have is null."""
    number_of = {file: number for number, file in enumerate(files)}
    sizes_bytes = [file.stat().st_size if file.is_file() else 0 for file in files]
    places = [number_of[sample.media] for sample in samples]
    spans = [sample.span for sample in samples]
    values: dict[str, list[Any]] = {
        "key": keys_of(samples),
        "source_id": [sample.source_id for sample in samples],
        "source_number": [source_number(sample.source_id) for sample in samples],
        "text": [sample.text for sample in samples],
        "duration_s": [span.end_s - span.start_s if span else 0.0 for span in spans],
        "media": places,
        "media_offset_bytes": [0] * len(samples),
        "media_size_bytes": [sizes_bytes[place] for place in places],
        "extension": [extensions.index(_extension_of(files[place])) for place in places],
        "start_s": [span.start_s if span else None for span in spans],
        "end_s": [span.end_s if span else None for span in spans],
    }
    return {field.name: pa.array(values.get(field.name, [None] * len(samples)), field.type) for field in ROWS_SCHEMA}


def _extension_of(file: Path) -> str:
    return file.suffix[1:].lower()


def _path(name: str | None) -> Path | None:
    return Path(name) if name else None
