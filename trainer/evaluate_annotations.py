"""A trained model and the annotation file of a public data set in, the figures that are usual for it out.

Retrieval for captions, accuracy for classes (LVU over spans), mean average precision for Charades-Ego, multiple choice
for How2QA. Classes are scored by the model's own head where it has one with just these classes, else by prompts, and
the result says which. Each video, or part of one, is decoded once, however many texts it has. What cannot be read, or
has no media, is named and in no figure. Of annotations that the model was trained on, the rows that its trainings held
out can be measured alone (`trainer.history`). Definitions: docs/evaluation.md.
"""

# Arrays: V videos, T texts, K classes, P prompts a class, D embedding, S spans.

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from gex_pipeline.errors import GexError
from trainer.annotation_catalog import (
    AnyAnnotations,
    MediaText,
    Row,
    held_out_rows,
    keys_of,
    question_text,
    read_annotations,
    spans_of,
)
from trainer.annotation_kinds import KINDS, Measure
from trainer.annotation_reading import granularity_for, paper_granularity, trimmed_as_trained, with_texts
from trainer.annotations import LabelledVideo, Question, RetrievalPair
from trainer.classifier import VideoClassifier
from trainer.data_settings import AnnotationSettings
from trainer.encoding import EncodedTexts, EncodedVideos, Floats, encode_texts
from trainer.evaluate import Evaluation, Measured, Options, ReadAs, chosen_numbers, read_as
from trainer.evaluate_retrieval import retrieval_of_captions
from trainer.history import (
    HeldOut,
    Training,
    span_of_kind,
    told_part,
    trainings_of,
    trainings_on_annotations,
    what_to_take,
)
from trainer.loader import Damaged
from trainer.media_encoding import encode_media, is_image
from trainer.media_reader import DamagedMediaError
from trainer.metrics import Unlabelled, accuracy, accuracy_over_spans, mean_average_precision, multiple_choice
from trainer.pretrained import Pretrained
from trainer.prompts import PAPER_TEMPLATES, class_features, prompts_of, spoken_name

AnyRow = TypeVar("AnyRow", RetrievalPair, LabelledVideo, Question)


@dataclass(frozen=True)
class PublicData:
    """A public data set and how its videos are read."""

    annotations: AnnotationSettings
    granularity: str | None = None
    """Whose frames and #iter are used; None: as `trainer.annotation_reading` has it."""
    templates: tuple[str, ...] | None = None
    """Prompts for classes, which make it zero-shot whatever head the model has; None: a head for just these classes,
    else the paper's prompt, and for Charades-Ego the names of the classes alone."""
    span_s: float | None = None
    """LVU: videos are cut into as few equal spans as are no longer than this; None: as `annotations` says, else as
    the model was trained on LVU, else whole ones."""
    held_out: tuple[HeldOut, ...] = ()
    """Only rows of videos that all of these splits hold out; none: all rows."""


def evaluate_annotations(pretrained: Pretrained, data: PublicData, options: Options) -> Evaluation:
    """The figures of one model on one public data set.

    Raises:
        AnnotationError: a file in another format, or media that cannot be listed.
        TemplateError: a template is none.
        GexError: a file is not named, nothing can be read, or the figures are not defined for what was read.
    """
    started_s = time.monotonic()
    data = replace(data, annotations=trimmed_as_trained(pretrained, data.annotations))
    annotations = read_annotations(data.annotations)
    job = _Job(pretrained, data, options, annotations)
    if not annotations.rows:
        raise GexError(f"no entry can be used. {annotations.describe()}")
    if not job.rows:
        instead = what_to_take(data.held_out, job.trainings)
        raise GexError(f"{data.annotations.file!r} has no usable entry of a held-out video; {instead}")
    measure = KINDS[data.annotations.kind].measure
    try:
        measured = _MEASURES[measure](job)
    except ValueError as error:
        raise GexError(f"{data.annotations.file} gives no figures: {error}") from error
    found = {**vars(measured), "data": {**job.about(), **measured.data}}
    seconds = time.monotonic() - started_s
    return Evaluation(**found, task=measure, read=job.read, options=options, seconds=seconds)


class _Scored(NamedTuple):
    """Videos with their scores for every class of the data set, and how these came about."""

    videos: EncodedVideos
    scores_VK: Floats
    method: str
    num_truncated_texts: int = 0
    about: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class _Job:
    """One evaluation: what all kinds of it need."""

    pretrained: Pretrained
    data: PublicData
    options: Options
    annotations: AnyAnnotations

    @cached_property
    def part(self) -> list[Row]:
        """The rows of the part that is measured."""
        found: list[Row] = list(self.annotations.rows)
        for split in self.data.held_out:
            found = held_out_rows(found, *split)
        return found

    @cached_property
    def rows(self) -> list[Row]:
        """The rows that are measured: all of the part, or some of them."""
        numbers = chosen_numbers(len(self.part), self.options, self.data.annotations.kind)
        return self.part if numbers is None else [self.part[number] for number in numbers]

    @property
    def trainings(self) -> list[Training]:
        """The model's on the same annotations."""
        return trainings_on_annotations(trainings_of(self.pretrained.trained), self.data.annotations)

    def about(self) -> dict[str, Any]:
        """What was measured."""
        data, annotations = self.data, self.annotations
        told, chosen = annotations.describe(), {}
        if data.annotations.trim:
            told += "; of each only the part that shows its task"
        if data.held_out:
            told += f"; {len(self.part)} of these are of held-out videos"
        if len(self.rows) < len(self.part):
            told += f"; {len(self.rows)} of these measured, chosen by seed {self.options.seed}"
            chosen = {"num_chosen": len(self.rows)}
        return {
            "annotations": data.annotations.model_dump(mode="json", exclude_none=True),
            **told_part(data.held_out, self.trainings),
            "num_entries": annotations.num_entries,
            "num_in_part": len(self.part),
            **chosen,
            "lacking": {str(lack): list(names) for lack, names in annotations.lacking.items()},
            "told": told,
        }

    @property
    def head(self) -> VideoClassifier | None:
        """The model's head, where it is for just these classes and no prompts are given."""
        return self.pretrained.classifier if self.why_no_head is None else None

    @property
    def why_no_head(self) -> str | None:
        """Why classes are scored by prompts; None: the head scores them."""
        head = self.pretrained.classifier
        if head is None:
            return "the model has no head"
        if set(head.class_names) != set(self.annotations.class_names):
            return "the model's head is for other classes"
        return "prompts were given" if self.data.templates is not None else None

    @cached_property
    def read(self) -> ReadAs:
        """How the videos are read."""
        kind = self.data.annotations.kind
        pictures = kind == "folders" and any(is_image(row.media) for row in self.rows)
        usual = paper_granularity(kind, pictures=pictures)
        name = self.data.granularity or granularity_for(self.pretrained, kind, usual)
        read = read_as(self.pretrained, name, self.options)
        if self.head is None:
            read = with_texts(self.pretrained, read, usual, self.options)
        return read.of_images() if all(is_image(row.media) for row in self.rows) else read

    def rows_of(self, kind: type[AnyRow]) -> list[AnyRow]:
        """The rows that are measured; all of them are of one kind."""
        return [row for row in self.rows if isinstance(row, kind)]

    def encode(self, samples: Sequence[MediaText], *, classify: bool = False) -> EncodedVideos:
        """A row of numbers for each of these videos."""
        annotations = self.data.annotations
        return encode_media(self.pretrained, samples, self.read, self.options, annotations, classify=classify)

    def texts(self, texts: Sequence[str]) -> EncodedTexts:
        """Unit vectors of texts."""
        return encode_texts(self.pretrained, texts, self.read.n_iter_text)

    def score_classes(self, samples: Sequence[MediaText]) -> _Scored:
        """Scores of videos by the model's head where it fits and no prompts are given, else by prompts."""
        names, templates = self.annotations.class_names, self.data.templates or PAPER_TEMPLATES
        if self.head is not None:
            return self.by_head(samples, self.head)
        # 1/τ: only where scores become chances does it change anything
        scored = self.by_prompts(samples, [spoken_name(name) for name in names], templates)
        return scored._replace(scores_VK=float(self.pretrained.model.scale().detach()) * scored.scores_VK)

    def by_head(self, samples: Sequence[MediaText], head: VideoClassifier) -> _Scored:
        """The logits of the model's head, its classes in the order of the data set's."""
        found = self.encode(samples, classify=True)
        columns = head.labels_of(self.annotations.class_names).tolist()
        return _Scored(found, found.video_VX[:, columns], "the model's linear head")

    def by_prompts(self, samples: Sequence[MediaText], names: Sequence[str], templates: Sequence[str]) -> _Scored:
        """Similarities to prompts with these names of the classes."""
        encoded = self.texts([prompt for name in names for prompt in prompts_of(name, templates)])
        classes_KD = class_features(encoded.text_TD.reshape(len(names), len(templates), -1))
        found = self.encode(samples)
        method = f"zero-shot, by similarity to prompts with the names of the classes: {self.why_no_head}"
        scores_VK = _similarities(found.video_VX, classes_KD)
        return _Scored(found, scores_VK, method, encoded.num_truncated, {"templates": list(templates)})


def _similarities(video_VD: Floats, text_TD: Floats) -> Floats:
    """Cosines (V, T) of unit vectors, summed in float64 as in retrieval: equal texts get equal ones."""
    return (video_VD.astype(np.float64) @ text_TD.astype(np.float64).T).astype(np.float32)


def _whole(rows: Sequence[Row]) -> list[MediaText]:
    """Each video, or part of one, once, in the order of the rows."""
    return list(dict.fromkeys(MediaText(row.video_id, row.media, "", row.span) for row in rows))


def _places(samples: Sequence[MediaText], found: EncodedVideos) -> dict[MediaText, int]:
    """Which row of numbers each video has; damaged ones have none."""
    row_of = found.row_of()
    return {sample: row_of[key] for sample, key in zip(samples, keys_of(samples), strict=True) if key in row_of}


def _place_of(row: Row) -> MediaText:
    return MediaText(row.video_id, row.media, "", row.span)


def _retrieve(job: _Job) -> Measured:
    rows = job.rows_of(RetrievalPair)
    samples = _whole(rows)
    found = job.encode(samples)
    places = _places(samples, found)
    captions = [(text, places[_place_of(row)]) for row in rows if _place_of(row) in places for text in row.texts]
    texts = [text for text, _ in captions]
    owners = np.array([place for _, place in captions], dtype=np.int64)
    encoded = job.texts(texts)
    figures = retrieval_of_captions(encoded.text_TD, found.video_VX, owners, texts, job.options.ties).as_dict()
    method = "every caption is a query for its own video; a video's rank is that of its best caption"
    num_videos, about = len(found.keys), {"num_captions": len(texts)}
    return Measured(method, figures, num_videos, encoded.num_truncated, found.damaged, about)


def _classify(job: _Job) -> Measured:
    rows = job.rows_of(LabelledVideo)
    samples = _whole(rows)
    scored = job.score_classes(samples)
    places = _places(samples, scored.videos)
    kept = [row for row in rows if _place_of(row) in places]
    scores = scored.scores_VK[[places[_place_of(row)] for row in kept]]
    figures = accuracy(scores, [row.labels[0] for row in kept], job.options.ties).as_dict()
    about, num_truncated = dict(scored.about), scored.num_truncated_texts
    return Measured(scored.method, figures, len(kept), num_truncated, scored.videos.damaged, about)


def _classify_spans(job: _Job) -> Measured:
    rows = job.rows_of(LabelledVideo)
    trained = span_of_kind(job.pretrained.trained, job.data.annotations.kind)
    span_s = job.data.span_s or job.data.annotations.span_s or trained
    spans: list[MediaText] = []
    damaged: list[Damaged] = []
    for sample in _whole(rows):
        try:
            spans += spans_of(sample, span_s)
        except DamagedMediaError as error:
            damaged.append(Damaged(sample.source_id, str(error)))
    if not spans:
        raise GexError(f"none of {len(rows)} videos can be read; the first is {damaged[0].key}: {damaged[0].reason}")
    scored = job.score_classes(spans)
    places = _places(spans, scored.videos)
    seen = {(span.source_id, span.media) for span in places}
    label_of = {(row.video_id, row.media): row.labels[0] for row in rows if (row.video_id, row.media) in seen}
    number_of = {video: number for number, video in enumerate(label_of)}
    owners = [number_of[span.source_id, span.media] for span in places]
    scores = scored.scores_VK[list(places.values())]
    figures = accuracy_over_spans(scores, owners, list(label_of.values()), job.options.ties).as_dict()
    about = {**scored.about, "span_s": span_s, "num_spans": len(places)}
    damaged += scored.videos.damaged
    num_videos, num_truncated = len(label_of), scored.num_truncated_texts
    return Measured(scored.method, figures, num_videos, num_truncated, tuple(damaged), about)


def _rank_classes(job: _Job) -> Measured:
    rows = job.rows_of(LabelledVideo)
    names = job.annotations.class_names
    samples = _whole(rows)
    if job.head is not None:
        scored = job.by_head(samples, job.head)
        # cross-entropy leaves open what the logits of a video have in common: between videos chances are compared
        chances_VK = torch.from_numpy(scored.scores_VK).double().log_softmax(dim=1).numpy()
        scored = scored._replace(scores_VK=chances_VK)
        how = f"videos are ranked for every class by the chance that {scored.method} gives it"
    else:
        scored = job.by_prompts(samples, names, job.data.templates or ("{label}",))
        how = f"retrieval: videos are ranked for every class by similarity to its name ({job.why_no_head})"
    places = _places(samples, scored.videos)
    kept = [row for row in rows if _place_of(row) in places]
    labels_VK = np.zeros((len(kept), len(names)), dtype=bool)
    for place, row in enumerate(kept):
        labels_VK[place, list(row.labels)] = True
    scores_VK = scored.scores_VK[[places[_place_of(row)] for row in kept]]
    figures = mean_average_precision(scores_VK, labels_VK, unlabelled=Unlabelled.exclude).as_dict()
    method, about = f"{how}; unlabelled ones are left out", dict(scored.about)
    num_truncated, damaged = scored.num_truncated_texts, scored.videos.damaged
    return Measured(method, figures, len(kept), num_truncated, damaged, about)


def _choose(job: _Job) -> Measured:
    rows = job.rows_of(Question)
    samples = _whole(rows)
    found = job.encode(samples)
    places = _places(samples, found)
    kept = [row for row in rows if _place_of(row) in places]
    texts = [question_text(row, candidate) for row in kept for candidate in range(len(row.candidates))]
    encoded = job.texts(texts)
    vectors = iter(encoded.text_TD)
    scores = []
    for row in kept:
        answers_TD = np.stack([next(vectors) for _ in row.candidates])
        scores.append(_similarities(found.video_VX[[places[_place_of(row)]]], answers_TD)[0])
    figures = multiple_choice(scores, [row.answer_index for row in kept], job.options.ties).as_dict()
    method = "the answer whose text, the question and it, is most similar to the video"
    num_truncated, about = encoded.num_truncated, {"num_videos": len(found.keys)}
    return Measured(method, figures, len(kept), num_truncated, found.damaged, about)


_MEASURES: Mapping[Measure, Callable[[_Job], Measured]] = {
    "retrieval": _retrieve,
    "accuracy": _classify,
    "accuracy over spans": _classify_spans,
    "mean average precision": _rank_classes,
    "multiple choice": _choose,
}
