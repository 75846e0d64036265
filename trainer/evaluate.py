"""A trained model and a published data set in, figures of its granularities out: retrieval, or accuracy of a head.

Each granularity is read with its own frames and #iter, those that the model was trained with unless others are given:
#iter is free at inference. What is measured is all samples, those of held-out sources, or some that a seed chooses;
samples that cannot be read are named and in no figure, texts that are cut are counted. Changes neither model nor data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from gex_pipeline.errors import GexError
from gex_pipeline.shards.manifest import published_manifest
from trainer.annotation_kinds import MEAN_AVERAGE_PRECISION, Measure
from trainer.catalog import Catalog, CatalogPart, read_catalog
from trainer.data_settings import PAPER_GRANULARITIES
from trainer.encoding import classify_videos, encode
from trainer.evaluate_retrieval import retrieval_by_text
from trainer.frames import IMAGE_EXTENSIONS
from trainer.history import (
    HeldOut,
    Training,
    last_granularities,
    told_part,
    trainings_of,
    trainings_on_dataset,
    what_to_take,
)
from trainer.loader import Damaged
from trainer.metrics import accuracy
from trainer.order import Int64s, permutation
from trainer.pretrained import Pretrained
from trainer.ranking import Ties
from trainer.sequence import Reading, SequenceLoader


@dataclass(frozen=True)
class Options:
    """How samples are chosen and read, whatever the data; None: as the model was trained, or all."""

    num_frames: int | None = None
    n_iter_video: int | None = None
    n_iter_text: int | None = None
    max_samples: int | None = None
    seed: int = 0
    """Of the choice of `max_samples`."""
    ties: Ties = Ties.average
    batch_size: int = 32
    num_workers: int = 0


@dataclass(frozen=True)
class ReadAs:
    """Frames and #iter that were used, and whose they are."""

    granularity: str
    num_frames: int
    n_iter_video: int
    n_iter_text: int
    image_size_px: int
    origin: str
    """Where those numbers come from that were not given: ``model`` or ``paper``; ``given`` where all were."""
    given: tuple[str, ...] = ()
    """The numbers that the options gave, by name."""

    def reading(self, options: Options, *, needs_text: bool = True) -> Reading:
        """The same for a loader."""
        return Reading(self.num_frames, self.image_size_px, options.batch_size, options.num_workers, needs_text)

    def of_images(self) -> ReadAs:
        """The same where all there is are images: each is one frame, and a number that is given is that of videos."""
        return replace(self, num_frames=1, given=tuple(name for name in self.given if name != "num_frames"))


@dataclass(frozen=True)
class Measured:
    """Figures of one model, and what they rest on."""

    method: str
    """How the figures came about, in a sentence."""
    figures: dict[str, Any]
    num_samples: int
    """Videos that were measured."""
    num_truncated_texts: int
    """Texts, each as often as it is a query or a prompt, whose end did not fit the text tower and was not read."""
    damaged: tuple[Damaged, ...]
    data: dict[str, Any] = field(default_factory=dict)
    """What was measured."""


@dataclass(frozen=True, kw_only=True)
class Evaluation(Measured):
    """The same of one set, with what is needed to have it again."""

    task: Measure
    read: ReadAs
    options: Options
    seconds: float

    @property
    def ties(self) -> Ties | None:
        """What a tie counts for; average precision knows no such rule."""
        return None if self.task == MEAN_AVERAGE_PRECISION else self.options.ties

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON knows them."""
        return {
            **vars(self),
            "read": asdict(self.read),
            "damaged": [one._asdict() for one in self.damaged],
            "num_damaged": len(self.damaged),
            "options": {**asdict(self.options), "ties": None if self.ties is None else str(self.ties)},
        }


@dataclass(frozen=True)
class PublishedData:
    """Which samples of a published data set are measured."""

    uri: str
    snapshot: int | None = None
    """The last one to read; None: all there are."""
    granularities: tuple[str, ...] = ()
    """None named: those that the model was trained on."""
    held_out: tuple[HeldOut, ...] = ()
    """Only samples of sources that all of these splits hold out; none: all samples."""


def evaluate_published(
    pretrained: Pretrained, data: PublishedData, options: Options, tell: Callable[[str], None] = lambda line: None
) -> list[Evaluation]:
    """Text-to-video and video-to-text retrieval, one evaluation a granularity; of a model with a head its accuracy.

    Of granularities that are not named, those without a held-out sample are left out; `tell` is told of each.

    Raises:
        GexError: the data set, the snapshot or a granularity is not there, the model says nothing on how to read one,
            no sample is left (of one that is named, or of all), or storage fails.
    """
    snapshot, published = _published(data)
    trained_on = list(pretrained.granularities)
    if pretrained.classifier:  # the texts of what a training before took are no classes
        trained_on = last_granularities(pretrained.trained, trained_on)
    names = data.granularities or tuple(name for name in published if name in trained_on)
    if not names:
        known = ", ".join(trained_on) or "none"
        raise GexError(
            f"{data.uri!r} has none of the granularities that the model was trained on ({known}); published are "
            f"{', '.join(published) or 'none'}: name those to measure"
        )
    found = []
    with read_catalog(data.uri, snapshot, names) as catalog:
        reads = {name: _read_as_published(pretrained, catalog, name, options) for name in names}
        trainings = trainings_on_dataset(trainings_of(pretrained.trained), data.uri)
        part = _part(catalog, data.held_out)
        for name in _empty(part, data, trainings):
            tell(f"{name} is left out: it has no sample of a held-out source")
            del reads[name]
        side = told_part(data.held_out, trainings)
        for name, read in reads.items():
            about = {"dataset": data.uri, "snapshot": snapshot, "granularity": name, **side}
            found.append(_evaluate_part(pretrained, part, read, options, about))
    return found


def read_as(pretrained: Pretrained, granularity: str, options: Options) -> ReadAs:
    """How a granularity is read: as given, else as the model was trained on it, else as the paper has it.

    Raises:
        GexError: none of these says so.
    """
    names = ("num_frames", "n_iter_video", "n_iter_text")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    trained = pretrained.granularities.get(granularity)
    usual = {name: getattr(trained, name) for name in names} if trained else PAPER_GRANULARITIES.get(granularity, {})
    numbers = {**usual, **given}
    lacking = [name for name in names if name not in numbers]
    if lacking:
        known = ", ".join(pretrained.granularities) or "none"
        raise GexError(
            f"the model was not trained on {granularity!r} (it knows {known}), and the paper has no such granularity; "
            f"give {', '.join(lacking)}"
        )
    origin = "given" if len(given) == len(names) else "model" if trained else "paper"
    return ReadAs(granularity, **numbers, image_size_px=pretrained.image_size_px, origin=origin, given=tuple(given))


def chosen_numbers(num_samples: int, options: Options, name: str) -> list[int] | None:
    """The numbers of `max_samples` samples, ascending, the same for one seed whatever the machine; None: all."""
    if options.max_samples is None or options.max_samples >= num_samples:
        return None
    return sorted(permutation(num_samples, "evaluate", options.seed, name)[: options.max_samples].tolist())


def _published(data: PublishedData) -> tuple[int, list[str]]:
    """The last snapshot that is read, and the granularities with samples up to it."""
    manifest = published_manifest(data.uri)
    snapshot = manifest.snapshots[-1].snapshot if data.snapshot is None else data.snapshot
    names = manifest.granularity_names()
    return snapshot, [name for name in names if any(shard.num_samples for shard in manifest.shards(name, snapshot))]


def _part(catalog: Catalog, held_out: Sequence[HeldOut]) -> CatalogPart:
    """The samples whose sources all of these splits hold out; all samples where there are no splits."""
    selected: dict[str, Int64s | None] = dict.fromkeys(catalog.names)
    for split in held_out:
        for name, numbers in catalog.split(*split).held_out.selected.items():
            selected[name] = _in_both(selected[name], numbers)
    return CatalogPart(catalog, selected)


def _empty(part: CatalogPart, data: PublishedData, trainings: Sequence[Training]) -> list[str]:
    """The granularities of which no sample is in the part.

    Raises:
        GexError: one of them is named, or there is no other one.
    """
    empty = [name for name in part.names if not part.num_samples(name)]
    if empty and (data.granularities or len(empty) == len(part.names)):
        # those that are named are all that were read
        has = "has" if len(empty) == 1 else "have"
        raise GexError(
            f"{', '.join(empty)} {has} no sample of a held-out source; {what_to_take(data.held_out, trainings)}"
        )
    return empty


def _in_both(first: Int64s | None, second: Int64s | None) -> Int64s | None:
    """Numbers that are in both; None stands for all numbers."""
    if first is None or second is None:
        return second if first is None else first
    return np.intersect1d(first, second)


def _read_as_published(pretrained: Pretrained, catalog: Catalog, name: str, options: Options) -> ReadAs:
    read = read_as(pretrained, name, options)
    are_images = set(catalog.of(name).extensions) <= set(IMAGE_EXTENSIONS)
    return read.of_images() if are_images and options.num_frames is not None else read


def _evaluate_part(
    pretrained: Pretrained, part: CatalogPart, read: ReadAs, options: Options, about: dict[str, Any]
) -> Evaluation:
    started_s = time.monotonic()
    name = read.granularity
    num_samples = part.num_samples(name)
    numbers: Sequence[int] | None = chosen_numbers(num_samples, options, name)
    about = {**about, "num_in_part": num_samples}
    if numbers is not None:
        about["num_chosen"] = len(numbers)
    with SequenceLoader(part, name, read.reading(options), numbers) as loader:
        try:
            measured = (_classify if pretrained.classifier else _retrieve)(pretrained, loader, read, options)
        except ValueError as error:
            raise GexError(f"{name} gives no figures: {error}") from error
    task: Measure = "accuracy" if pretrained.classifier else "retrieval"
    seconds = time.monotonic() - started_s
    return Evaluation(**{**vars(measured), "data": about}, task=task, read=read, options=options, seconds=seconds)


def _retrieve(pretrained: Pretrained, loader: SequenceLoader, read: ReadAs, options: Options) -> Measured:
    encoded = encode(pretrained, loader, read.n_iter_video, read.n_iter_text)
    figures = retrieval_by_text(encoded.text_VD, encoded.video_VD, encoded.texts, options.ties)
    method = "pairs of a video and a text; a text that several videos have is one text with several right videos"
    num_samples, num_truncated = len(encoded.keys), encoded.num_truncated_texts
    return Measured(method, figures.as_dict(), num_samples, num_truncated, encoded.damaged)


def _classify(pretrained: Pretrained, loader: SequenceLoader, read: ReadAs, options: Options) -> Measured:
    if pretrained.classifier is None:
        raise GexError("this model has no classes")
    found = classify_videos(pretrained, loader, read.n_iter_video)
    labels = pretrained.classifier.labels_of(found.texts).tolist()
    figures = accuracy(found.video_VX, labels, options.ties)
    method = "the model's linear head; a sample's text is the name of its class"
    return Measured(method, figures.as_dict(), len(found.keys), 0, found.damaged)
