"""Where the truth stands among candidates, and what ties count for. NumPy only.

Scores of queries by candidates in, `RankCounts` out: for each query how many candidates score higher than the truth,
how many the same, and how many of those stand before it. A tie rule turns these counts into ranks and recalls, so
nothing depends on how a sort breaks ties, and blocks of queries can be counted one after another. Scores are compared
as they come: rounding them is the caller's matter. Legend: Q queries, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]


class Rule(StrEnum):
    """A rule by which a figure is taken; its name as text will do, and another name is a ValueError."""

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ValueError(f"{cls.__name__} knows no {value!r}; expected one of {', '.join(cls)}")


class Ties(Rule):
    """What a tie between the truth and other candidates counts for."""

    average = "average"  # the expectation over all orders of the tied: ½ a rank for each other candidate
    optimistic = "optimistic"  # the truth comes first
    pessimistic = "pessimistic"  # the truth comes last
    lowest_index = "index"  # the lower index comes first, as in open_clip
    clip4clip = "clip4clip"  # each tie adds an entry, so the denominator is not the number of queries


class Median(Rule):
    """How the median of an even number of ranks, or of a half rank, is given."""

    midpoint = "midpoint"
    floor = "floor"  # as open_clip prints it


@dataclass(frozen=True)
class RankCounts:
    """For each query, where its truth stands among the C candidates. Ties are left undecided.

    A query may have several right candidates (a video's captions): the best of them counts, and the
    others are neither above it nor tied with it.
    """

    greater: IntArray  # (Q,) candidates that score higher than the best right one
    tied: IntArray  # (Q,) wrong candidates with the same score
    tied_before: IntArray  # (Q,) those of them with a lower index than the first right one of that score
    right_tied: IntArray  # (Q,) right candidates with the best right score, 1 or more
    right: IntArray  # (Q,) right candidates in all
    num_candidates: int


def count_ranks(scores_QC: FloatArray, group_of_query: ArrayLike, group_of_candidate: ArrayLike) -> RankCounts:
    """Where the truth of each query stands; candidate c is right for query q where their groups are equal.

    Truth and candidates are taken from the same block of scores, as two matrix products of the same vectors
    need not agree in their last bit. Scores may be -inf (never chosen), not NaN.

    Raises:
        ValueError: NaN or +inf, wrong shapes, or a query without a right candidate.
    """
    scores = np.asarray(scores_QC)
    groups_Q, groups_C = np.asarray(group_of_query), np.asarray(group_of_candidate)
    if scores.ndim != 2 or scores.shape != (len(groups_Q), len(groups_C)):
        raise ValueError(f"scores of shape {scores.shape} for {len(groups_Q)} queries and {len(groups_C)} candidates")
    if np.isnan(scores).any() or np.isposinf(scores).any():
        raise ValueError("scores hold NaN or +inf, so they order nothing")
    right = groups_Q[:, None] == groups_C[None, :]
    num_right = right.sum(axis=1)
    if not num_right.all():
        raise ValueError(f"query {int(np.argmin(num_right))} has no right candidate")
    best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    equal = scores == best
    first = np.argmax(equal & right, axis=1)
    wrong_equal = equal & ~right
    return RankCounts(
        greater=(scores > best).sum(axis=1),
        tied=wrong_equal.sum(axis=1),
        tied_before=(wrong_equal & (np.arange(scores.shape[1]) < first[:, None])).sum(axis=1),
        right_tied=(equal & right).sum(axis=1),
        right=num_right,
        num_candidates=scores.shape[1],
    )


def join_counts(parts: Sequence[RankCounts]) -> RankCounts:
    """The counts of several blocks of queries over the same candidates as one.

    Raises:
        ValueError: no block, or blocks over different numbers of candidates.
    """
    if len({part.num_candidates for part in parts}) != 1:
        raise ValueError("blocks of queries over the same candidates are needed, at least one")
    names = ("greater", "tied", "tied_before", "right_tied", "right")
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return RankCounts(**joined, num_candidates=parts[0].num_candidates)


def ranks(counts: RankCounts, ties: Ties = Ties.average) -> NDArray[np.float64]:
    """Rank of each query's truth, (Q,), from 1; half ranks under `average`.

    Average: 1 + greater + tied / (right_tied + 1), which is ½·tied for a single truth: the expected place of
    the first right one among candidates of one score in random order.

    Raises:
        ValueError: for `clip4clip`, which gives a query more than one rank, and for a rule that is none.
    """
    ties = Ties(ties)
    first = np.asarray(1.0 + counts.greater, dtype=np.float64)
    if ties == Ties.average:
        return np.asarray(first + counts.tied / (counts.right_tied + 1.0), dtype=np.float64)
    if ties == Ties.clip4clip:
        raise ValueError("clip4clip gives a tied query several ranks; use retrieval_metrics")
    extra = {Ties.optimistic: 0 * counts.tied, Ties.pessimistic: counts.tied, Ties.lowest_index: counts.tied_before}
    return np.asarray(first + extra[ties], dtype=np.float64)


def recall_percent(counts: RankCounts, k: int, ties: Ties = Ties.average) -> float:
    """Percent of queries whose truth is among the first k.

    Under `average` a tied query counts by the chance that random order puts its truth there, so a model that
    scores everything alike gets k / C and not 0; under the others it counts whole or not at all.

    Raises:
        ValueError: as `ranks`.
    """
    if ties != Ties.average:
        return float(100.0 * np.mean(ranks(counts, ties) <= k))
    places = np.clip(k - counts.greater, 0, counts.tied + counts.right_tied)
    miss = np.ones(len(places))
    for taken in range(k):  # the chance that none of the places goes to a right candidate, drawn one by one
        left = np.maximum(counts.tied + counts.right_tied - taken, 1)
        miss *= np.where(taken < places, np.maximum(counts.tied - taken, 0) / left, 1.0)
    return float(100.0 * np.mean(1.0 - miss))


def entries_as_clip4clip(counts: RankCounts) -> tuple[list[float], float, float]:
    """Recalls, median and mean over entries: a query with t ties stands at the t + 1 ranks of its score."""
    if (counts.right > 1).any():
        raise ValueError("clip4clip is defined for one right candidate a query only")
    entries = counts.tied + 1
    total = int(entries.sum())
    recalls = [float(100.0 * np.clip(k - counts.greater, 0, entries).sum() / total) for k in (1, 5, 10)]
    # Ranks held by an open interval each; summed they say how many entries stand at or before a rank.
    steps = np.zeros(counts.num_candidates + 2, dtype=np.int64)
    np.add.at(steps, counts.greater + 1, 1)
    np.add.at(steps, counts.greater + entries + 1, -1)
    up_to = np.cumsum(np.cumsum(steps))
    middle = [int(np.searchsorted(up_to, half, side="right")) for half in ((total - 1) // 2, total // 2)]
    mean = float((entries * (counts.greater + 1.0 + counts.tied / 2.0)).sum() / total)
    return recalls, sum(middle) / 2.0, mean
