"""Vectors of texts and videos in, retrieval figures in both directions out, with what chance would give.

Which text is right for which video is said in groups: a text and a video belong together where their groups are
equal. A query with several right candidates counts by the best of them. Knows no model and no file.
"""

# Arrays: T texts, V videos, D embedding, Q queries.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from trainer.metrics import (
    RetrievalMetrics,
    count_ranks_of_features,
    normalised,
    retrieval_from_features,
    retrieval_metrics,
)
from trainer.order import Int64s
from trainer.ranking import RankCounts, Ties

_OF_CHANCE = ("r1_percent", "r5_percent", "r10_percent", "median_rank", "mean_rank")


@dataclass(frozen=True)
class Retrieval:
    """Figures of both directions, and those that random similarities would have in the mean."""

    text_to_video: RetrievalMetrics
    video_to_text: RetrievalMetrics
    chance_text_to_video: RetrievalMetrics
    chance_video_to_text: RetrievalMetrics
    num_shared_texts: int
    """Distinct texts that belong to more than one video."""

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON knows them."""
        directions = {name: getattr(self, name).as_dict() for name in ("text_to_video", "video_to_text")}
        chances = {
            f"chance_{name}": {figure: getattr(getattr(self, f"chance_{name}"), figure) for figure in _OF_CHANCE}
            for name in directions
        }
        return {**directions, **chances, "num_shared_texts": self.num_shared_texts}


def retrieval_by_text(
    text_VD: ArrayLike, video_VD: ArrayLike, texts: Sequence[str], ties: Ties = Ties.average
) -> Retrieval:
    """Pairs of one video and one text each, of which texts may be equal; rows of both are in the order of `texts`.

    A text that several videos have is one query, for which all of them are right, and one candidate.

    Raises:
        ValueError: values that are not finite; clip4clip where texts are shared.
    """
    first_row: dict[str, int] = {}
    for row, text in enumerate(texts):
        first_row.setdefault(text, row)
    number = {text: place for place, text in enumerate(first_row)}
    group_V = np.array([number[text] for text in texts], dtype=np.int64)
    group_T = np.arange(len(number))
    text_TD = normalised(np.asarray(text_VD)[list(first_row.values())])
    unit_VD = normalised(video_VD)
    sizes_T = np.bincount(group_V)
    return Retrieval(
        retrieval_metrics(count_ranks_of_features(text_TD, group_T, unit_VD, group_V), ties),
        retrieval_metrics(count_ranks_of_features(unit_VD, group_V, text_TD, group_T), ties),
        _chance(sizes_T, len(unit_VD)),
        _chance(np.ones_like(group_V), len(text_TD)),
        int((sizes_T > 1).sum()),
    )


def retrieval_of_captions(
    text_TD: ArrayLike,
    video_VD: ArrayLike,
    video_of_text: Int64s,
    texts: Sequence[str],
    ties: Ties = Ties.average,
) -> Retrieval:
    """Videos with several captions, as published figures count them: every caption is a query for its own video.

    Where two videos have the same caption each has it for itself, so one of them is wrong for the other's.

    Raises:
        ValueError: values that are not finite; clip4clip where a video has several captions.
    """
    t2v, v2t = retrieval_from_features(text_TD, video_VD, video_of_text, ties)
    owners: dict[str, set[int]] = {}
    for text, video in zip(texts, video_of_text.tolist(), strict=True):
        owners.setdefault(text, set()).add(video)
    num_captions_V = np.bincount(video_of_text)
    return Retrieval(
        t2v,
        v2t,
        _chance(np.ones_like(video_of_text), t2v.num_candidates),
        _chance(num_captions_V[num_captions_V > 0], len(texts)),
        sum(len(videos) > 1 for videos in owners.values()),
    )


def _chance(num_right_Q: Int64s, num_candidates: int) -> RetrievalMetrics:
    """The mean over all orders of the candidates: what a model has that scores all of them alike."""
    nothing = np.zeros_like(num_right_Q)
    counts = RankCounts(
        greater=nothing,
        tied=num_candidates - num_right_Q,
        tied_before=nothing,
        right_tied=num_right_Q,
        right=num_right_Q,
        num_candidates=num_candidates,
    )
    return retrieval_metrics(counts, Ties.average)
