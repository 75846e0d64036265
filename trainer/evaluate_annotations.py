"""A trained model and the annotation file of a public data set in, the figures that are usual for it out.

Retrieval for captions, accuracy for classes (LVU over spans), mean average precision for Charades-Ego, multiple choice
for How2QA. Classes are scored by the model's own head where it has one with just these classes, else by prompts, and
the result says which. Each video, or part of one, is decoded once, however many texts it has. What cannot be read, or
has no media, is named and in no figure. Of annotations that the model was trained on, the rows that its training held
out can be measured alone (`held_out_of_annotations`). Definitions: docs/evaluation.md.
"""

# Arrays: V videos, T texts, K classes, P prompts a class, D embedding, S spans.

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from gex_pipeline.errors import GexError
from trainer.annotation_catalog import (
    AnyAnnotations,
    MediaText,
    Row,
    catalog_of,
    held_out_rows,
    keys_of,
    question_text,
    read_annotations,
)
from trainer.annotations import LabelledVideo, Question, RetrievalPair, Span
from trainer.annotations.media_folder import IMAGE_ENDINGS
from trainer.catalog import CatalogPart
from trainer.data_settings import AnnotationSettings
from trainer.encoding import EncodedVideos, Floats, classify_videos, encode_texts, encode_videos
from trainer.evaluate import (
    Evaluation,
    Options,
    ReadAs,
    chosen_numbers,
    is_same_place,
    read_as,
    told_part,
    trained_split,
)
from trainer.evaluate_retrieval import retrieval_of_captions
from trainer.loader import Damaged
from trainer.media_reader import DamagedMediaError
from trainer.metrics import Unlabelled, accuracy, accuracy_over_spans, mean_average_precision, multiple_choice
from trainer.pretrained import Pretrained
from trainer.prompts import PAPER_TEMPLATES, class_features, prompts_of, spoken_name
from trainer.sequence import SequenceLoader
from trainer.videos import VIDEO_FORMATS, video_length_s

READ_AS = {
    "msrvtt": "SVST",
    "lsmdc": "SVST",
    "activitynet": "LVLT",
    "lvu": "LVST",
    "coin": "LVST",
    "charades-ego": "LVST",
    "how2qa": "SVST",
    "folders": "LVST",
}
"""Whose frames and #iter a data set is read with. Paper: GEXIA appendix E, table 10; of LVU and COIN the video's."""
_IMAGES = "IT"


@dataclass(frozen=True)
class PublicData:
    """A public data set and how its videos are read."""

    annotations: AnnotationSettings
    granularity: str | None = None
    """Whose frames and #iter are used; None: that of `READ_AS`, or the only one that the model was trained on."""
    templates: tuple[str, ...] | None = None
    """Prompts for classes; None: the paper's, and for Charades-Ego the names of the classes alone."""
    span_s: float = 60.0
    """LVU: videos are cut into as few equal spans as are no longer than this."""
    held_out_share: float = 0.0
    """Only rows of videos that training with this share and seed holds out; 0: all rows."""
    held_out_seed: int = 0


def held_out_of_annotations(pretrained: Pretrained, settings: AnnotationSettings) -> tuple[float, int]:
    """Share and seed with which a model's training held videos of an annotation file out; 0 and 0 where it did not.

    Whether it was trained on that file is told by kind and place, and for COIN, whose subsets are apart, by the subset.
    """
    trained = pretrained.trained.get("annotations")
    if not isinstance(trained, dict):
        return 0.0, 0  # trained on something else, or exported before the file was written down
    same = trained.get("kind") == settings.kind and is_same_place(str(trained.get("file")), settings.file)
    if same and settings.kind == "coin":
        same = (trained.get("subset") == "training") == (settings.subset == "training")
    return trained_split(pretrained) if same else (0.0, 0)


def evaluate_annotations(pretrained: Pretrained, data: PublicData, options: Options) -> Evaluation:
    """The figures of one model on one public data set.

    Raises:
        AnnotationError: a file in another format, or media that cannot be listed.
        TemplateError: a template is none.
        GexError: a file is not named, nothing can be read, or the figures are not defined for what was read.
    """
    started_s = time.monotonic()
    annotations = read_annotations(data.annotations)
    job = _Job(pretrained, data, options, annotations)
    if not annotations.rows:
        raise GexError(f"no entry can be used. {annotations.describe()}")
    if not job.rows:
        raise GexError(
            f"{data.annotations.file!r} has no usable entry of a held-out video (share {data.held_out_share:g}, seed "
            f"{data.held_out_seed}); take a larger share, or 0 for all entries"
        )
    try:
        outcome = job.evaluate()
    except ValueError as error:
        raise GexError(f"{data.annotations.file} gives no figures: {error}") from error
    lacking = {str(lack): list(names) for lack, names in annotations.lacking.items()}
    about = {
        "annotations": data.annotations.model_dump(mode="json", exclude_none=True),
        **told_part(data.held_out_share, data.held_out_seed),
        "num_entries": annotations.num_entries,
        "lacking": lacking,
        "told": annotations.describe(),
        **outcome.about,
    }
    seconds = time.monotonic() - started_s
    return Evaluation(
        outcome.task,
        about,
        outcome.method,
        job.read,
        outcome.figures,
        outcome.num_samples,
        outcome.damaged,
        options,
        seconds,
    )


@dataclass(frozen=True)
class _Outcome:
    task: str
    method: str
    figures: dict[str, Any]
    num_samples: int
    damaged: tuple[Damaged, ...]
    about: dict[str, Any]


@dataclass(frozen=True)
class _Job:
    """One evaluation: what all kinds of it need."""

    pretrained: Pretrained
    data: PublicData
    options: Options
    annotations: AnyAnnotations

    @cached_property
    def rows(self) -> list[Row]:
        """The rows that are measured."""
        found: list[Row] = list(self.annotations.rows)
        if self.data.held_out_share:
            found = held_out_rows(found, self.data.held_out_share, self.data.held_out_seed)
        numbers = chosen_numbers(len(found), self.options, self.data.annotations.kind)
        return found if numbers is None else [found[number] for number in numbers]

    @cached_property
    def read(self) -> ReadAs:
        """How the videos are read."""
        known = list(self.pretrained.granularities)
        name = self.data.granularity
        if name is None:
            kind = self.data.annotations.kind
            pictures = kind == "folders" and any(row.media.suffix.lower() in IMAGE_ENDINGS for row in self.rows)
            name = _IMAGES if pictures else READ_AS[kind]
            if name not in known and len(known) == 1:
                name = known[0]
        return read_as(self.pretrained, name, self.options)

    def evaluate(self) -> _Outcome:
        """The figures that are usual for this kind."""
        pairs = [row for row in self.rows if isinstance(row, RetrievalPair)]
        questions = [row for row in self.rows if isinstance(row, Question)]
        videos = [row for row in self.rows if isinstance(row, LabelledVideo)]
        if pairs:
            return _retrieve(self, pairs)
        if questions:
            return _choose(self, questions)
        if self.data.annotations.kind == "charades-ego":
            return _rank_classes(self, videos)
        if self.data.annotations.kind == "lvu":
            return _classify_spans(self, videos)
        return _classify(self, videos)

    def encode(self, samples: Sequence[MediaText], *, classify: bool = False) -> EncodedVideos:
        """A row of numbers for each of these videos; the rows' keys are those of `keys_of`."""
        n_iter = self.read.n_iter_video
        reading = self.read.reading(self.options, needs_text=False)
        name = self.data.annotations.kind
        with (
            catalog_of(samples, name, self.data.annotations.file) as catalog,
            SequenceLoader(CatalogPart(catalog, {name: None}), name, reading) as loader,
        ):
            found = (classify_videos if classify else encode_videos)(self.pretrained, loader, n_iter)
        # a person knows videos by their ids
        ids = dict(zip(keys_of(samples), map(_told, samples), strict=True))
        return replace(found, damaged=tuple(Damaged(ids[one.key], one.reason) for one in found.damaged))

    def texts(self, texts: Sequence[str]) -> Floats:
        """Unit vectors of texts."""
        return encode_texts(self.pretrained, texts, self.read.n_iter_text)

    def score_classes(self, samples: Sequence[MediaText]) -> tuple[EncodedVideos, Floats, str, dict[str, Any]]:
        """Videos, their scores (V, K) for every class of the data set, and how these came about."""
        names = self.annotations.class_names
        head = self.pretrained.classifier
        if head is not None and set(head.class_names) == set(names):
            found = self.encode(samples, classify=True)
            column = {name: number for number, name in enumerate(head.class_names)}
            return found, found.video_VX[:, [column[name] for name in names]], "the model's linear head", {}
        templates = self.data.templates or PAPER_TEMPLATES
        spoken = [spoken_name(name) for name in names]
        prompts = [prompt for name in spoken for prompt in prompts_of(name, templates)]
        prompts_KPD = self.texts(prompts).reshape(len(names), len(templates), -1)
        found = self.encode(samples)
        why = "the model has no head" if head is None else "the model's head is for other classes"
        method = f"zero-shot, by similarity to prompts with the names of the classes: {why}"
        # 1/τ: only where scores become chances does it change anything
        scale = float(self.pretrained.model.scale().detach())
        scores_VK = scale * _similarities(found.video_VX, class_features(prompts_KPD))
        return found, scores_VK, method, {"templates": list(templates)}


def _similarities(video_VD: Floats, text_TD: Floats) -> Floats:
    """Cosines (V, T) of unit vectors, summed in float64 as in retrieval: equal texts get equal ones."""
    return (video_VD.astype(np.float64) @ text_TD.astype(np.float64).T).astype(np.float32)


def _told(sample: MediaText) -> str:
    part = f" {sample.span.start_s:g} to {sample.span.end_s:g} s" if sample.span else ""
    return f"{sample.source_id}{part}"


def _whole(rows: Sequence[Row]) -> list[MediaText]:
    """Each video, or part of one, once, in the order of the rows."""
    return list(dict.fromkeys(MediaText(row.video_id, row.media, "", row.span) for row in rows))


def _places(samples: Sequence[MediaText], found: EncodedVideos) -> dict[MediaText, int]:
    """Which row of numbers each video has; damaged ones have none."""
    row_of = found.row_of()
    return {sample: row_of[key] for sample, key in zip(samples, keys_of(samples), strict=True) if key in row_of}


def _place_of(row: Row) -> MediaText:
    return MediaText(row.video_id, row.media, "", row.span)


def _retrieve(job: _Job, rows: Sequence[RetrievalPair]) -> _Outcome:
    samples = _whole(rows)
    found = job.encode(samples)
    places = _places(samples, found)
    captions = [(text, places[_place_of(row)]) for row in rows if _place_of(row) in places for text in row.texts]
    texts = [text for text, _ in captions]
    owners = np.array([place for _, place in captions], dtype=np.int64)
    figures = retrieval_of_captions(job.texts(texts), found.video_VX, owners, texts, job.options.ties)
    method = "every caption is a query for its own video; a video's rank is that of its best caption"
    return _Outcome(
        "retrieval", method, figures.as_dict(), len(found.keys), found.damaged, {"num_captions": len(texts)}
    )


def _classify(job: _Job, rows: Sequence[LabelledVideo]) -> _Outcome:
    samples = _whole(rows)
    found, scores_VK, method, about = job.score_classes(samples)
    places = _places(samples, found)
    kept = [row for row in rows if _place_of(row) in places]
    scores = scores_VK[[places[_place_of(row)] for row in kept]]
    figures = accuracy(scores, [row.labels[0] for row in kept], job.options.ties).as_dict()
    return _Outcome("accuracy", method, figures, len(kept), found.damaged, about)


def _classify_spans(job: _Job, rows: Sequence[LabelledVideo]) -> _Outcome:
    spans: list[MediaText] = []
    damaged: list[Damaged] = []
    for sample in _whole(rows):
        try:
            spans += _spans_of(sample, job.data.span_s)
        except DamagedMediaError as error:
            damaged.append(Damaged(sample.source_id, str(error)))
    if not spans:
        raise GexError(f"none of {len(rows)} videos can be read; the first is {damaged[0].key}: {damaged[0].reason}")
    found, scores_SK, method, about = job.score_classes(spans)
    places = _places(spans, found)
    seen = {(span.source_id, span.media) for span in places}
    label_of = {(row.video_id, row.media): row.labels[0] for row in rows if (row.video_id, row.media) in seen}
    number_of = {video: number for number, video in enumerate(label_of)}
    owners = [number_of[span.source_id, span.media] for span in places]
    scores = scores_SK[list(places.values())]
    figures = accuracy_over_spans(scores, owners, list(label_of.values()), job.options.ties).as_dict()
    about = {**about, "span_s": job.data.span_s, "num_spans": len(places)}
    return _Outcome("accuracy over spans", method, figures, len(label_of), (*damaged, *found.damaged), about)


def _spans_of(sample: MediaText, span_s: float) -> list[MediaText]:
    """A video in as few equal spans as are no longer than `span_s`."""
    container = VIDEO_FORMATS.get(sample.media.suffix[1:].lower())
    if container is None:
        raise DamagedMediaError(f"media of kind {sample.media.suffix!r} cannot be cut into spans")
    try:
        length_s = video_length_s(sample.media.read_bytes(), container)
    except OSError as error:
        raise DamagedMediaError(f"it cannot be read: {error.strerror}") from error
    num_spans = max(1, math.ceil(length_s / span_s - 1e-6))
    bounds_s = [length_s * number / num_spans for number in range(num_spans + 1)]
    return [
        MediaText(sample.source_id, sample.media, "", Span(bounds_s[number], bounds_s[number + 1]))
        for number in range(num_spans)
    ]


def _rank_classes(job: _Job, rows: Sequence[LabelledVideo]) -> _Outcome:
    names = job.annotations.class_names
    samples = _whole(rows)
    found = job.encode(samples)
    places = _places(samples, found)
    kept = [row for row in rows if _place_of(row) in places]
    if job.data.templates:
        prompts = [prompt for name in names for prompt in prompts_of(name, job.data.templates)]
        classes_KD = class_features(job.texts(prompts).reshape(len(names), len(job.data.templates), -1))
        about: dict[str, Any] = {"templates": list(job.data.templates)}
    else:
        classes_KD, about = job.texts(names), {"templates": ["{label}"]}
    labels_VK = np.zeros((len(kept), len(names)), dtype=bool)
    for place, row in enumerate(kept):
        labels_VK[place, list(row.labels)] = True
    scores = _similarities(found.video_VX[[places[_place_of(row)] for row in kept]], classes_KD)
    figures = mean_average_precision(scores, labels_VK, unlabelled=Unlabelled.exclude).as_dict()
    method = "retrieval: videos are ranked for every class by similarity to its name; unlabelled ones are left out"
    return _Outcome("mean average precision", method, figures, len(kept), found.damaged, about)


def _choose(job: _Job, rows: Sequence[Question]) -> _Outcome:
    samples = _whole(rows)
    found = job.encode(samples)
    places = _places(samples, found)
    kept = [row for row in rows if _place_of(row) in places]
    texts = [question_text(row, candidate) for row in kept for candidate in range(len(row.candidates))]
    vectors = iter(job.texts(texts))
    scores = []
    for row in kept:
        answers_TD = np.stack([next(vectors) for _ in row.candidates])
        scores.append(_similarities(found.video_VX[[places[_place_of(row)]]], answers_TD)[0])
    figures = multiple_choice(scores, [row.answer_index for row in kept], job.options.ties).as_dict()
    method = "the answer whose text, the question and it, is most similar to the video"
    return _Outcome("multiple choice", method, figures, len(kept), found.damaged, {"num_videos": len(found.keys)})
