"""Samples of one granularity one after the other, each once: a part of a catalogue in, batches of tensors out.

The order is that of the numbers that are asked for, whatever the number of workers. A sample that cannot be read is
left out of its batch and named there: nothing stands in for it, so what is measured is what was asked for or is
missing by name. Frames come as bytes. Trains nothing.
"""

# Tensors: B samples, T frames, H = W the size that is asked for.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from gex_pipeline.errors import GexError
from trainer.catalog import CatalogPart
from trainer.frames import read_frames
from trainer.loader import Damaged
from trainer.media_reader import DamagedMediaError, MediaReader
from trainer.videos import Frames
from trainer.workers import WorkersStoppedError, end_workers, next_batch, worker_options

_PREFETCH_BATCHES = 2
_TIMEOUT_S = 900.0  # for one batch; a worker that reads from a slow store is not dead


@dataclass(frozen=True)
class Reading:
    """How samples are read.

    Raises:
        ValueError: a number is too small.
    """

    num_frames: int
    image_size_px: int
    batch_size: int = 32
    num_workers: int = 0
    """Processes that read and decode, one core each; 0: the process that asks does it. They import the script that
    makes the loader, which has to stand behind ``if __name__ == "__main__":`` there."""
    needs_text: bool = True
    """Whether a sample without text is damaged."""

    def __post_init__(self) -> None:
        for name, least in (("num_frames", 1), ("image_size_px", 1), ("batch_size", 1), ("num_workers", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected {least} or more")


class SequenceBatch(NamedTuple):
    """Up to `batch_size` samples; fewer where some are damaged, none where all are."""

    numbers: list[int]
    """Of the samples in the part."""
    frames_BT3HW: Tensor
    """Bytes: T frames a sample, RGB."""
    texts: list[str]
    keys: list[str]
    damaged: list[Damaged]
    """Samples that are asked for and not in the batch."""


class _Read(NamedTuple):
    number: int
    frames: Frames | None
    text: str
    key: str
    damage: str = ""
    failure: str = ""


class SequenceLoader:
    """Gives the batches once; a context manager that ends its workers."""

    def __init__(
        self, part: CatalogPart, granularity: str, reading: Reading, numbers: Sequence[int] | None = None
    ) -> None:
        """Start the workers; `numbers` are samples of the part in the order in which they are wanted, all by default.

        Raises:
            GexError: the granularity is not in the catalogue.
            IndexError: there is no sample of such a number.
        """
        num_samples = part.num_samples(granularity)
        self.numbers = range(num_samples) if numbers is None else [int(number) for number in numbers]
        outside = [number for number in self.numbers if not 0 <= number < num_samples] if numbers is not None else []
        if outside:
            raise IndexError(f"sample {outside[0]} of {granularity}; there are {num_samples}")
        self.granularity, self.reading = granularity, reading
        self._reader = _SampleReader(part, granularity, reading)
        loader = DataLoader(
            self._reader,
            batch_size=reading.batch_size,
            sampler=self.numbers,
            collate_fn=partial(_collate, reading),
            **worker_options(reading.num_workers, _PREFETCH_BATCHES),
        )
        self._batches: Iterator[tuple[SequenceBatch, str]] | None = iter(loader)

    def __len__(self) -> int:
        """Samples that are asked for."""
        return len(self.numbers)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> SequenceBatch:
        """The next samples.

        Raises:
            GexError: storage fails, or the workers stopped.
        """
        if self._batches is None:
            raise StopIteration
        try:
            batch, failure = next_batch(self._batches, self.reading.num_workers, _TIMEOUT_S)
        except StopIteration:
            self.close()
            raise
        except WorkersStoppedError as error:
            self.close()
            raise GexError(f"the workers that read {self.granularity} stopped: {error}") from error
        if failure:
            self.close()
            raise GexError(failure)
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers and close files; no batch comes any more."""
        batches, self._batches = self._batches, None
        if self.reading.num_workers and batches is not None:
            end_workers(batches)
        self._reader.close()


class LoadersInTurn:
    """Several loaders as one: all batches of the first, then those of the next."""

    def __init__(self, granularity: str, loaders: Sequence[SequenceLoader]) -> None:
        self.granularity, self._loaders = granularity, loaders

    def __len__(self) -> int:
        """Samples that are asked for."""
        return sum(map(len, self._loaders))

    def __iter__(self) -> Iterator[SequenceBatch]:
        for loader in self._loaders:
            yield from loader


class _SampleReader(Dataset):
    """A number in; the sample out, or why there is none. Lives in a worker."""

    def __init__(self, part: CatalogPart, granularity: str, reading: Reading) -> None:
        self.part, self.granularity, self.reading = part, granularity, reading
        self._media = MediaReader()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_media": MediaReader()}

    def __getitem__(self, number: int) -> _Read:
        sample = self.part.sample(self.granularity, number)
        read = _Read(number, None, sample.text, sample.key)
        if self.reading.needs_text and not sample.text.strip():
            return read._replace(damage="its text is empty")
        try:
            frames = read_frames(sample, self.reading.num_frames, self.reading.image_size_px, self._media)
        except DamagedMediaError as error:
            return read._replace(damage=str(error))
        except GexError as error:  # an error of its own would come out of the worker as a traceback
            return read._replace(failure=str(error))
        return read._replace(frames=frames)

    def close(self) -> None:
        """Close what is open in this process."""
        self._media.close()


def _collate(reading: Reading, reads: Sequence[_Read]) -> tuple[SequenceBatch, str]:
    """A batch of those that were read, and why there can be none."""
    good = [(read, read.frames) for read in reads if read.frames is not None]
    nothing = torch.empty((0, reading.num_frames, 3, reading.image_size_px, reading.image_size_px), dtype=torch.uint8)
    batch = SequenceBatch(
        [read.number for read, _ in good],
        default_collate([frames for _, frames in good]) if good else nothing,  # in a worker straight into shared memory
        [read.text for read, _ in good],
        [read.key for read, _ in good],
        [Damaged(read.key, read.damage) for read in reads if read.damage],
    )
    return batch, next((read.failure for read in reads if read.failure), "")
