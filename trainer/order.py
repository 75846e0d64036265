"""Which samples every step takes: sizes of granularities, batch size and seed in; indices of samples out.

A step takes one batch of one granularity, the same on all ranks. An epoch takes ``num_batches`` batches of every
granularity, in proportion to its size times its weight, as evenly spread as whole steps allow. The order is a
function of seed, epoch and sizes alone; ranks cut the same batch into equal parts. So the number of the step, counted
over all epochs, is all that a run needs to go on, with however many ranks and workers.

Within an epoch no sample comes twice. The samples of a granularity lie on a ring; an epoch takes an arc of it and the
next epoch goes on where that one ended, so what did not fill a batch, or what a small weight leaves out, comes first
the next time. The shards of the arc are permuted, then the samples of a few neighbouring shards with each other.

Permutations are sorts of hashed integers: no library's generator, whose numbers may change, takes part. Nothing grows
with the number of samples but the numbers themselves. Reads no data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gex_pipeline.errors import GexError

Int64s = NDArray[np.int64]

_KEPT_WINDOWS = 4  # a batch lies in one or two; workers go through the same ones one after the other


@dataclass(frozen=True)
class Part:
    """One granularity: how many samples each of its shards holds, in the order in which they are numbered."""

    name: str
    shard_sizes: Int64s
    weight: float = 1.0
    others: str = ""
    """Where samples are that are not trained on, for the error when there are too few."""

    @property
    def num_samples(self) -> int:
        """Samples of all shards."""
        return int(self.shard_sizes.sum())


class StepPlace(NamedTuple):
    """Where a step stands: its epoch, its granularity, and how many batches of that came before in the epoch."""

    epoch: int
    granularity: str
    batch: int


class Order:
    """The order of all epochs; cheap to make, to pickle and to ask at any step."""

    def __init__(self, parts: Sequence[Part], *, batch_size: int, seed: int = 0, window_shards: int = 16) -> None:
        """`parts` may come in any order.

        Raises:
            GexError: there are no parts, or one has too few samples for a batch an epoch.
        """
        if not parts:
            raise GexError("no granularity is given to train on; name at least one")
        self.batch_size, self.seed = batch_size, seed
        ordered = sorted(parts, key=lambda part: part.name)
        heaviest = max(ordered, key=lambda part: part.weight)
        self.num_batches = {part.name: _num_batches(part, heaviest, batch_size) for part in ordered}
        self._rings = {
            part.name: _Ring(part, self.num_batches[part.name] * batch_size, seed, window_shards) for part in ordered
        }
        self._sizes = {part.name: part.num_samples for part in ordered}

    @property
    def steps_per_epoch(self) -> int:
        """Steps of every epoch, the same for all."""
        return sum(self.num_batches.values())

    @property
    def left_out(self) -> dict[str, int]:
        """Samples of each granularity that an epoch does not take; other ones in every epoch."""
        return {name: size - self.num_batches[name] * self.batch_size for name, size in self._sizes.items()}

    def describe(self) -> list[str]:
        """A sentence a granularity on what an epoch takes, to be said before the first step."""
        return [
            f"{name}: {_counted(self._sizes[name], 'sample')}, {_counted(batches, 'step')} of {self.batch_size} an "
            f"epoch, {_counted(self.left_out[name], 'sample')} left for the next epoch"
            for name, batches in self.num_batches.items()
        ]

    def place_of(self, step: int) -> StepPlace:
        """Epoch, granularity and number of the batch of a step; steps count from 0 over all epochs.

        Raises:
            ValueError: the step is negative.
        """
        if step < 0:
            raise ValueError(f"step is {step}; steps count from 0")
        epoch, within = divmod(step, self.steps_per_epoch)
        names = list(self.num_batches)
        chosen, numbers = _interleaved(tuple(self.num_batches.items()), self.seed, epoch)
        return StepPlace(epoch, names[int(chosen[within])], int(numbers[within]))

    def batch_of(self, step: int, rank: int = 0, world_size: int = 1) -> Int64s:
        """Indices of the samples that a rank takes in a step, within the step's granularity.

        Raises:
            GexError: the number of ranks does not divide the batch size.
            ValueError: there is no such rank or step.
        """
        slots = self.slots_of(rank, world_size)
        place = self.place_of(step)
        first = place.batch * self.batch_size
        return self._rings[place.granularity].samples(place.epoch, first + slots.start, first + slots.stop)

    def slots_of(self, rank: int, world_size: int) -> range:
        """The places in a batch that a rank fills.

        Raises:
            GexError: the number of ranks does not divide the batch size.
            ValueError: there is no such rank.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank} of {world_size}; expected 0 to {world_size - 1}")
        if self.batch_size % world_size:
            smaller = self.batch_size - self.batch_size % world_size
            nearest = [str(size) for size in (smaller, smaller + world_size) if size]
            raise GexError(
                f"the batch size {self.batch_size} cannot be divided among {world_size} ranks; "
                f"set batch_size to {' or '.join(nearest)}, or change the number of ranks"
            )
        share = self.batch_size // world_size
        return range(rank * share, (rank + 1) * share)

    def candidates(self, step: int, slot: int) -> Iterator[int]:
        """The sample of a place in a step's batch, then those that may stand in for it when it cannot be read.

        These are the ones in the same place of the granularity's next batches, all around the epoch: so two places of
        a batch never get the same sample, whatever the ranks find. In an epoch of one batch it is its next samples.
        """
        place = self.place_of(step)
        ring = self._rings[place.granularity]
        num_batches = self.num_batches[place.granularity]
        num_in_turn, stride = (num_batches, self.batch_size) if num_batches > 1 else (self.batch_size, 1)
        first = place.batch * self.batch_size + slot
        for number in range(num_in_turn):
            position = (first + number * stride) % ring.num_taken
            yield int(ring.samples(place.epoch, position, position + 1)[0])


class _Ring:
    """The samples of one granularity on a ring of permuted shards, and the arc of it that each epoch takes."""

    def __init__(self, part: Part, num_taken: int, seed: int, window_shards: int) -> None:
        sizes = np.asarray(part.shard_sizes, dtype=np.int64)
        self.name, self.seed, self.num_taken, self.window_shards = part.name, seed, num_taken, window_shards
        shards = permutation(len(sizes), "ring", seed, part.name)
        shards = shards[sizes[shards] > 0]
        self._sizes = sizes[shards]
        self._starts = (np.cumsum(sizes) - sizes)[shards]  # the number of each shard's first sample
        self._ends = np.cumsum(self._sizes)  # where each shard ends on the ring
        self._arc = lru_cache(maxsize=2)(self._make_arc)
        self._window = lru_cache(maxsize=_KEPT_WINDOWS)(self._make_window)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name not in ("_arc", "_window")}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._arc = lru_cache(maxsize=2)(self._make_arc)
        self._window = lru_cache(maxsize=_KEPT_WINDOWS)(self._make_window)

    def samples(self, epoch: int, first: int, stop: int) -> Int64s:
        """The samples at these positions of an epoch."""
        ends = self._arc(epoch)[2]
        found = []
        window = int(np.searchsorted(ends, first, side="right"))
        while first < stop:
            start = int(ends[window - 1]) if window else 0
            until = min(stop, int(ends[window]))
            found.append(self._window(epoch, window)[first - start : until - start])
            first, window = until, window + 1
        return np.concatenate(found)

    def _make_arc(self, epoch: int) -> tuple[Int64s, Int64s, Int64s]:
        """Of every piece of a shard, permuted: its first sample and its length; and where each window ends."""
        total = int(self._ends[-1])
        begin = epoch * self.num_taken % total
        stop = begin + self.num_taken
        spans = [(begin, min(stop, total))] + ([(0, stop - total)] if stop > total else [])
        firsts, lengths = (np.concatenate(column) for column in zip(*map(self._pieces, spans), strict=True))
        order = permutation(len(firsts), "shards", self.seed, self.name, epoch)
        firsts, lengths = firsts[order], lengths[order]
        ends = np.cumsum(lengths)
        last_of_window = np.minimum(np.arange(0, len(ends), self.window_shards) + self.window_shards, len(ends)) - 1
        return firsts, lengths, ends[last_of_window]

    def _pieces(self, span: tuple[int, int]) -> tuple[Int64s, Int64s]:
        """First samples and lengths of the shards, or parts of them, in a span of the ring."""
        begin, stop = span
        first = int(np.searchsorted(self._ends, begin, side="right"))
        last = int(np.searchsorted(self._ends, stop, side="left"))
        at = slice(first, last + 1)
        ends, starts = self._ends[at], self._ends[at] - self._sizes[at]
        lower, upper = np.maximum(starts, begin), np.minimum(ends, stop)
        return self._starts[at] + (lower - starts), upper - lower

    def _make_window(self, epoch: int, window: int) -> Int64s:
        firsts, lengths, _ = self._arc(epoch)
        at = slice(window * self.window_shards, (window + 1) * self.window_shards)
        pieces = [np.arange(first, first + length) for first, length in zip(firsts[at], lengths[at], strict=True)]
        members = np.concatenate(pieces).astype(np.int64)
        shuffled: Int64s = members[permutation(len(members), "window", self.seed, self.name, epoch, window)]
        return shuffled


def permutation(size: int, *words: str | int) -> Int64s:
    """The numbers below `size` in an order that depends on `words` only, on every machine and for ever."""
    order: Int64s = np.argsort(mixed(np.arange(size, dtype=np.uint64), *words), kind="stable")
    return order


def mixed(values: NDArray[np.uint64], *words: str | int) -> NDArray[np.uint64]:
    """Every value as 64 bits that look random (SplitMix64), depending on `words`."""
    state = values * np.uint64(0x9E3779B97F4A7C15) + np.uint64(_hashed(*words))
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _hashed(*words: str | int) -> int:
    return int.from_bytes(hashlib.sha256("\n".join(map(str, words)).encode()).digest()[:8], "big")


def _num_batches(part: Part, heaviest: Part, batch_size: int) -> int:
    """Batches of a granularity in an epoch, which takes as large a share of it as its weight is of the largest one."""
    share = part.weight / heaviest.weight
    num_batches = int(part.num_samples * share / batch_size + 1e-9)  # 0.7 x 10 is a bit less than 7
    if num_batches:
        return num_batches
    if part.num_samples >= batch_size:
        raise GexError(
            f"{part.name} has {part.num_samples} samples, of which its weight {part.weight:g} beside the "
            f"{heaviest.weight:g} of {heaviest.name} takes {int(part.num_samples * share)} an epoch, fewer than one "
            f"batch of {batch_size}; raise its weight, lower that of {heaviest.name} or batch_size, or leave "
            f"{part.name} out"
        )
    others = f" ({part.others})" if part.others else ""
    raise GexError(
        f"{part.name} has {part.num_samples} samples to train on{others}, fewer than one batch of {batch_size}; "
        f"set batch_size to {max(part.num_samples, 1)} or less, or leave {part.name} out"
    )


def _counted(num: int, what: str) -> str:
    return f"{num} {what}{'' if num == 1 else 's'}"


@lru_cache(maxsize=2)
def _interleaved(num_batches: tuple[tuple[str, int], ...], seed: int, epoch: int) -> tuple[NDArray[np.int16], Int64s]:
    """For every step of an epoch: which granularity, and how many of its batches came before.

    The batches of a granularity stand at equal distances on a line, from a place that each epoch hashes anew.
    """
    counts = np.array([count for _, count in num_batches])
    chosen = np.repeat(np.arange(len(counts), dtype=np.int16), counts)
    numbers = np.concatenate([np.arange(count) for count in counts])
    phases = np.array([_hashed("phase", seed, name, epoch) / 2**64 for name, _ in num_batches])
    order = np.argsort((numbers + phases[chosen]) / counts[chosen], kind="stable")
    return chosen[order], numbers[order]
