"""What one training reads: settings in; samples to train on, samples held out, and the order of the steps out.

Says before the first step what an epoch takes and what it leaves out. Reads no media.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from gex_pipeline.errors import GexError
from trainer.annotation_catalog import read_annotation_catalog
from trainer.annotations import AnnotationError
from trainer.catalog import Catalog, CatalogPart, Split, read_catalog
from trainer.data_settings import DataSettings, Task
from trainer.frames import check_num_frames
from trainer.loader import order_of
from trainer.order import Int64s, Order
from trainer.processes import Processes

_MOST_CLASSES = 10_000
_MOST_TEXTS = 200_000  # a vocabulary learned from more is the same


@dataclass(frozen=True)
class RunData:
    """Both parts of the data set."""

    training: CatalogPart
    held_out: CatalogPart
    order: Order
    num_mixed: dict[str, int]
    """Samples of each granularity that are in neither part: their clips' sources fall on both sides."""
    num_frames: Mapping[str, int]
    """How many frames of a sample of each granularity are read."""
    class_names: tuple[str, ...] = ()
    """Of a public data set with classes."""
    videos: Int64s | None = None
    """Of a public data set: the video, or part of one, of every sample of both parts; numbered as in its file."""

    @property
    def num_samples(self) -> int:
        """Samples of both parts and of neither, of all granularities together."""
        parts = (self.training, self.held_out)
        return sum(part.num_samples(name) for part in parts for name in part.names) + sum(self.num_mixed.values())

    def texts(self) -> Iterator[str]:
        """Texts of the training part, evenly from all of it where there are very many."""
        for name in self.training.names:
            num_samples = self.training.num_samples(name)
            stride = max(1, num_samples * len(self.training.names) // _MOST_TEXTS)
            yield from (self.training.sample(name, number).text for number in range(0, num_samples, stride))

    def classes(self) -> tuple[str, ...]:
        """Names of the classes: those of the public data set, or the distinct texts of both parts.

        Raises:
            GexError: there are too many of them to be classes.
        """
        if self.class_names:
            return self.class_names
        found: set[str] = set()
        # a class of which all samples are held out is one too: they count as wrong
        for part, name in itertools.product((self.training, self.held_out), self.training.names):
            for number in range(part.num_samples(name)):
                found.add(part.sample(name, number).text)
                if len(found) > _MOST_CLASSES:
                    raise GexError(
                        f"task = 'classification' takes a sample's text as the name of its class, and there are more "
                        f"than {_MOST_CLASSES} different ones; use task = 'contrastive'"
                    )
        return tuple(sorted(found))

    def held_out_videos(self, granularity: str) -> dict[int, list[int]]:
        """Of a public data set: the held-out videos in the order of its file, each with its held-out samples."""
        numbers = self.held_out.selected[granularity]
        videos = np.empty(0, dtype=np.int64) if self.videos is None else self.videos
        found: dict[int, list[int]] = {}
        for number, video in enumerate((videos if numbers is None else videos[numbers]).tolist()):
            found.setdefault(video, []).append(number)
        return dict(sorted(found.items()))

    def describe(self) -> list[str]:
        """Sentences for a person."""
        sentences = self.order.describe() + self._few_frames()
        for name in self.held_out.names:
            num_held_out, num_mixed = self.held_out.num_samples(name), self.num_mixed[name]
            if num_held_out or num_mixed:
                sentences.append(f"{name}: {num_held_out} samples held out, {num_mixed} in neither part")
        return sentences

    def _few_frames(self) -> list[str]:
        found = []
        for name, num_frames in self.num_frames.items():
            fewest = self.training.catalog.of(name).fewest_frames
            if fewest is not None and fewest < num_frames:
                found.append(
                    f"warning: {name}: num_frames is {num_frames}, and samples have {fewest} stored frames: some come "
                    f"more than once. Set num_frames = {fewest}, or store more of them"
                )
        return found


@contextmanager
def open_data(
    settings: DataSettings, task: Task = "contrastive", processes: Processes | None = None
) -> Iterator[RunData]:
    """The data of a training; its scratch files go when it ends. The task decides what is said of a class.

    Processes of one machine share the bytes of a data set's index, which one of them writes.

    Raises:
        GexError: nothing is published there, or a granularity has no sample to train on, too few for a batch, or
            images of which several frames are asked.
    """
    with _catalog(settings, task, processes) as (catalog, class_names, videos):
        for name, reading in settings.granularities.items():
            check_num_frames(name, catalog.of(name).extensions, reading.num_frames)
        split = catalog.split(settings.held_out_share, settings.held_out_seed)
        others = _others(split)
        for name in split.training.names:
            if not split.training.num_samples(name):
                raise GexError(
                    f"{name} has no sample left to train on with held_out_share {settings.held_out_share:g} "
                    f"({others[name]}); make it smaller"
                )
        order = order_of(settings, split.training, others)
        num_frames = {name: reading.num_frames for name, reading in settings.granularities.items()}
        yield RunData(split.training, split.held_out, order, split.num_mixed, num_frames, class_names, videos)


def _others(split: Split) -> dict[str, str]:
    """Of every granularity that is not trained on whole, where its other samples are."""
    told = {}
    for name, num_mixed in split.num_mixed.items():
        num_training, num_held_out = split.training.num_samples(name), split.held_out.num_samples(name)
        if num_held_out or num_mixed:
            num_samples = num_training + num_held_out + num_mixed
            told[name] = f"of {num_samples}; {num_held_out} held out, {num_mixed} in neither part"
    return told


@contextmanager
def _catalog(
    settings: DataSettings, task: Task, processes: Processes | None
) -> Iterator[tuple[Catalog, tuple[str, ...], Int64s | None]]:
    names = list(settings.granularities)
    if settings.annotations is not None:
        try:
            catalog, annotations, videos = read_annotation_catalog(settings.annotations, names[0], task)
        except AnnotationError as error:
            raise GexError(str(error)) from error
        with catalog:
            yield catalog, annotations.class_names, videos
        return

    def read() -> Catalog:
        return read_catalog(settings.dataset or "", settings.snapshot, names)

    with read() if processes is None else _shared(read, processes) as catalog:
        yield catalog, (), None


def _shared(read: Callable[[], Catalog], processes: Processes) -> Catalog:
    """What one process of this machine has read, for this one: ten million samples are 2.5 GB of scratch files."""
    catalog = processes.once_a_machine(read)
    if not catalog.is_own:
        try:
            catalog = catalog.linked()
        except OSError:  # a container of its own, with other scratch files
            catalog = read()
    processes.wait()  # the one that has read it may end
    return catalog
