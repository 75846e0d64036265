"""One rank's batches in the order of the steps: order and catalogue in, tensors and texts out.

Worker processes read and decode; whichever and however many there are, batches come in the order of the steps, from
any step on. A sample that cannot be read is replaced by one that depends on the step alone, so a batch is always full
and no rank waits for another; it is named in the batch and counted. Ranks agree before every step whether to go on:
when too many samples are damaged, or one rank can read no more, all of them stop at the same step with one sentence.

Workers are not copies of the training process: they see no accelerator and hold none of its locks. Frames come as
bytes; normalising them is the model's. Trains nothing.
"""

# Tensors: B samples of this rank, T frames, S sources: the most that a sample of the granularity has.

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from gex_pipeline.errors import GexError
from trainer.catalog import CatalogPart
from trainer.data_settings import DataSettings
from trainer.frames import random_places, read_frames
from trainer.media_reader import DamagedMediaError, MediaReader
from trainer.order import Order, Part
from trainer.videos import Frames
from trainer.workers import WorkersStoppedError, end_workers, next_batch, worker_options

Counts = tuple[int, int, int]
"""Of one rank or of all: samples asked for in this epoch, damaged ones among them, ranks that can read no more."""
Agree = Callable[[Counts], Counts]
"""Sums the counts of all ranks; every rank calls it once before every step."""

_NAMED = 5  # damaged samples that the sentence at the end names
_FEWEST = 1000  # samples after which the share of damaged ones counts, unless the epoch is shorter
_MAX_TRIES = 32  # candidates for one place of a batch


class Damaged(NamedTuple):
    """A sample that could not be read, and why."""

    key: str
    reason: str


class Batch(NamedTuple):
    """One rank's part of a step: B samples of one granularity."""

    step: int
    granularity: str
    frames_BT3HW: Tensor
    """Bytes: T frames a sample, RGB."""
    texts: list[str]
    sources_BS: Tensor
    """The sources of each sample as 64-bit numbers; of one that has fewer than S, some come again. S is that of the
    granularity, the same on all ranks."""
    keys: list[str]
    damaged: list[Damaged]
    """Samples that others stand in for."""
    failure: str = ""
    """Why this batch could not be made; never given to whoever trains."""


class _Loaded(NamedTuple):
    step: int
    granularity: str
    frames: Frames | None
    text: str
    sources: Sequence[int]
    key: str
    damaged: list[Damaged]
    failure: str = ""


@dataclass(frozen=True)
class Rank:
    """Which part of every batch is this process's, and how it agrees with the others."""

    rank: int = 0
    world_size: int = 1
    agree: Agree | None = None
    pin_memory: bool = False
    """Whether batches are put where an accelerator can fetch them while the model computes."""


def order_of(settings: DataSettings, part: CatalogPart, others: Mapping[str, str] | None = None) -> Order:
    """The order in which these samples are trained on; `others` says of a granularity where its other ones are.

    Raises:
        GexError: a granularity is not in the catalogue, or has too few samples.
    """
    parts = [
        Part(name, part.shard_sizes(name), granularity.weight, (others or {}).get(name, ""))
        for name, granularity in settings.granularities.items()
    ]
    return Order(parts, batch_size=settings.batch_size, seed=settings.seed, window_shards=settings.window_shards)


def agree_over(group: Any) -> Agree:
    """Sums over a process group that works on the CPU (gloo), so that no accelerator has to wait for a number."""

    def agree(counts: Counts) -> Counts:
        total = torch.tensor(counts, dtype=torch.int64)
        torch.distributed.all_reduce(total, group=group)
        num_seen, num_damaged, num_failed = total.tolist()
        return num_seen, num_damaged, num_failed

    return agree


class SampleReader(Dataset):
    """(step, place in the batch) in; the sample that takes it out. Lives in a worker."""

    def __init__(self, settings: DataSettings, part: CatalogPart, order: Order) -> None:
        self.settings, self.part, self.order = settings, part, order
        self._media = MediaReader(exact=True)  # samples of a batch are scattered over many shards

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_media": MediaReader(exact=True)}

    def __getitem__(self, request: tuple[int, int]) -> _Loaded:
        """Read one sample, or the first that may stand in for it and can be read."""
        step, slot = request
        damaged: list[Damaged] = []
        name = self.order.place_of(step).granularity
        try:
            return self._read(name, self.order.candidates(step, slot), damaged, step)
        except GexError as error:  # an error of its own would come out of the worker as a traceback
            return _Loaded(step, name, None, "", (), "", damaged, str(error))

    def _read(self, name: str, candidates: Iterator[int], damaged: list[Damaged], step: int) -> _Loaded:
        num_frames = self.settings.granularities[name].num_frames
        num_sources = self.part.catalog.of(name).num_sources
        seed, epoch = self.settings.seed, self.order.place_of(step).epoch
        is_random = self.settings.frame_sampling == "random"
        for index in islice(candidates, _MAX_TRIES):
            sample = self.part.sample(name, index)
            try:
                if not sample.text.strip():
                    raise DamagedMediaError("its text is empty")
                places = random_places(num_frames, seed, epoch, sample.key) if is_random else None
                frames = read_frames(sample, num_frames, self.settings.image_size_px, self._media, places)
            except DamagedMediaError as error:
                damaged.append(Damaged(sample.key, str(error)))
            else:
                # where a sample has fewer, its own ones come again: they match what they match
                sources = np.resize(sample.sources, num_sources).tolist()
                return _Loaded(step, name, frames, sample.text, sources, sample.key, damaged)
        raise GexError(f"{len(damaged)} samples of {name} in turn cannot be read, {_named(damaged)}")

    def close(self) -> None:
        """Close what is open in this process."""
        self._media.close()


class StepSampler:
    """What `SampleReader` is asked for: a list of places a step."""

    def __init__(self, steps: range, slots: range) -> None:
        self.steps, self.slots = steps, slots

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in self.steps:
            yield [(step, slot) for slot in self.slots]


@dataclass
class DamageCount:
    """Samples of the current epoch that one rank asked for, and those that were damaged."""

    epoch: int = -1
    num_seen: int = 0
    num_damaged: int = 0
    first: list[Damaged] = field(default_factory=list)

    def add(self, epoch: int, num_samples: int, damaged: Sequence[Damaged]) -> None:
        """Count one batch; a new epoch begins at zero."""
        if epoch != self.epoch:
            self.epoch, self.num_seen, self.num_damaged, self.first = epoch, 0, 0, []
        self.num_seen += num_samples + len(damaged)
        self.num_damaged += len(damaged)
        self.first += damaged[: _NAMED - len(self.first)]


class Loader:
    """Gives the batches of `steps` in order; a context manager that ends its workers.

    Workers import the script that makes a loader: it has to stand behind ``if __name__ == "__main__":`` there.
    """

    def __init__(
        self, settings: DataSettings, part: CatalogPart, order: Order, steps: range, place: Rank | None = None
    ) -> None:
        """Start the workers.

        Raises:
            GexError: the number of ranks does not divide the batch size.
            ValueError: there are several ranks and no way to agree.
        """
        place = place or Rank()
        if place.world_size > 1 and place.agree is None:
            raise ValueError(f"there are {place.world_size} ranks and no way for them to agree; give one")
        self.settings, self.order, self.place = settings, order, place
        self.damage = DamageCount()
        self._steps = iter(steps)
        self._reader = SampleReader(settings, part, order)
        slots = order.slots_of(place.rank, place.world_size)
        self._num_slots = len(slots)
        self._batches: Iterator[Batch] | None = iter(self._data_loader(StepSampler(steps, slots)))

    def _data_loader(self, sampler: StepSampler) -> Any:
        return DataLoader(
            self._reader,
            batch_sampler=sampler,
            collate_fn=collate,
            pin_memory=self.place.pin_memory,
            **worker_options(self.settings.num_workers, self.settings.prefetch_batches),
        )

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        """The next step's batch.

        Raises:
            GexError: too many samples are damaged, or a rank can read no more; on all ranks at the same step.
        """
        batches, step = self._batches, next(self._steps, None)
        if batches is None or step is None:
            self.close()
            raise StopIteration
        batch = self._fetch(batches, step)
        self.damage.add(self.order.place_of(step).epoch, self._num_slots, batch.damaged)
        self._agree_to_go_on(batch.failure)
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers and close files; no batch comes any more."""
        batches, self._batches = self._batches, None
        if self.settings.num_workers and batches is not None:
            end_workers(batches)
        self._reader.close()

    def _fetch(self, batches: Iterator[Batch], step: int) -> Batch:
        """The next batch; one that says why, where the workers are at their end."""
        try:
            return next_batch(batches, self.settings.num_workers, self.settings.worker_timeout_s)
        except WorkersStoppedError as error:
            why = f"{error} (worker_timeout_s)" if error.timed_out else str(error)
            why = f"the workers that read the data stopped at step {step}: {why}"
            return _failed(step, self.order.place_of(step).granularity, why, [])

    def _agree_to_go_on(self, failure: str) -> None:
        """Stop on all ranks when it is time to.

        Raises:
            GexError: it is.
        """
        mine: Counts = (self.damage.num_seen, self.damage.num_damaged, int(bool(failure)))
        num_seen, num_damaged, num_failed = self.place.agree(mine) if self.place.agree else mine
        if num_failed:
            self.close()
            raise GexError(failure or f"{num_failed} other ranks cannot read their data; their messages say why")
        fewest = min(_FEWEST, self.order.steps_per_epoch * self.order.batch_size)
        share = self.settings.max_damaged_share
        if num_damaged > share * max(num_seen, fewest):
            self.close()
            raise GexError(
                f"{num_damaged} of {num_seen} samples of epoch {self.damage.epoch} cannot be read, more than "
                f"max_damaged_share = {share:g} allows; {_named(self.damage.first)}"
            )


def collate(samples: Sequence[_Loaded]) -> Batch:
    """One rank's samples of a step as a batch."""
    damaged = [one for sample in samples for one in sample.damaged]
    failure = next((sample.failure for sample in samples if sample.failure), "")
    if failure:
        return _failed(samples[0].step, samples[0].granularity, failure, damaged)
    return Batch(
        samples[0].step,
        samples[0].granularity,
        default_collate([sample.frames for sample in samples]),  # in a worker straight into shared memory
        [sample.text for sample in samples],
        torch.tensor([sample.sources for sample in samples], dtype=torch.int64),
        [sample.key for sample in samples],
        damaged,
    )


def _failed(step: int, granularity: str, why: str, damaged: list[Damaged]) -> Batch:
    nothing = torch.empty(0, dtype=torch.uint8)
    return Batch(step, granularity, nothing, [], torch.empty((0, 0), dtype=torch.int64), [], damaged, why)


def _named(damaged: Sequence[Damaged]) -> str:
    if not damaged:
        return "all of them on other ranks, whose messages name them"
    first = "; ".join(f"{one.key}: {one.reason}" for one in damaged[:_NAMED])
    return f"the first are {first}"
