"""Scores in, figures out: retrieval, accuracy, mean average precision, multiple choice. NumPy only.

Every figure but mAP rests on `trainer.ranking`, so a tie is never decided by a sort. Retrieval compares in float32:
scores in float64 are rounded to it. Knows no model and no file. Legend: T texts, V videos, N samples, K classes,
S spans, D width. The definitions in words: docs/evaluation.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainer.ranking import (
    FloatArray,
    IntArray,
    Median,
    RankCounts,
    Rule,
    Ties,
    count_ranks,
    entries_as_clip4clip,
    join_counts,
    ranks,
    recall_percent,
)

_BLOCK_BYTES = 1 << 27  # similarities that are held at once


class Unlabelled(Rule):
    """What a video without any label is in mAP."""

    negative = "negative"  # a negative of every class
    exclude = "exclude"  # left out; the figure of Charades' own code, which ranks such videos last


class _Metrics:
    """Frozen figures, each with the rules by which they were taken."""

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON knows them."""
        fields: dict[str, Any] = vars(self)
        return {name: str(value) if isinstance(value, Rule) else value for name, value in fields.items()}


@dataclass(frozen=True)
class RetrievalMetrics(_Metrics):
    """Recall at 1, 5, 10 (percent of queries), median and mean rank (the best rank is 1)."""

    r1_percent: float
    r5_percent: float
    r10_percent: float
    median_rank: float
    mean_rank: float
    num_queries: int
    num_candidates: int
    num_tied_queries: int  # queries whose figure depends on the tie rule
    ties: Ties
    median: Median


@dataclass(frozen=True)
class AccuracyMetrics(_Metrics):
    """Share of samples whose class is first, or among the first five, by score."""

    top1_percent: float
    top5_percent: float  # 100 where there are no more than five classes
    num_samples: int
    num_classes: int
    num_tied_samples: int
    ties: Ties


@dataclass(frozen=True)
class ChoiceMetrics(_Metrics):
    """Share of questions whose right answer scores highest among its candidates."""

    accuracy_percent: float
    chance_percent: float  # mean of 1 / number of candidates
    num_questions: int
    num_tied_questions: int
    ties: Ties


@dataclass(frozen=True)
class MapMetrics(_Metrics):
    """Mean over the classes with a positive of the area under precision and recall (AP, a sum of steps)."""

    map_percent: float
    ap_percent: tuple[float | None, ...]  # one a class; None where there is no positive
    num_classes_without_positive: int  # not in the mean
    num_samples: int  # that were ranked
    num_unlabelled: int
    unlabelled: Unlabelled
    ties_grouped: bool


def retrieval_metrics(
    counts: RankCounts, ties: Ties = Ties.average, median: Median = Median.midpoint
) -> RetrievalMetrics:
    """R@1/5/10, median and mean rank under a tie rule.

    Raises:
        ValueError: no query, a rule that is none, or `clip4clip` where a query has more than one right candidate.
    """
    ties, median = Ties(ties), Median(median)
    if len(counts.greater) == 0:
        raise ValueError("no query to evaluate")
    if ties == Ties.clip4clip:
        recalls, middle, mean = entries_as_clip4clip(counts)
    else:
        place = ranks(counts, ties)
        recalls = [recall_percent(counts, k, ties) for k in (1, 5, 10)]
        middle, mean = float(np.median(place)), float(np.mean(place))
    return RetrievalMetrics(
        r1_percent=recalls[0],
        r5_percent=recalls[1],
        r10_percent=recalls[2],
        median_rank=float(math.floor(middle)) if median == Median.floor else middle,
        mean_rank=mean,
        num_queries=len(counts.greater),
        num_candidates=counts.num_candidates,
        num_tied_queries=int(np.count_nonzero(counts.tied)),
        ties=ties,
        median=median,
    )


def retrieval_from_similarity(
    similarity_TV: ArrayLike,
    video_of_text: ArrayLike | None = None,
    ties: Ties = Ties.average,
    median: Median = Median.midpoint,
) -> tuple[RetrievalMetrics, RetrievalMetrics]:
    """Text-to-video and video-to-text from a similarity matrix.

    Every text is a query; a video's rank is that of its best caption; videos without caption are candidates
    only. Without `video_of_text` text i belongs to video i.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, a text of no video, a rule that is none.
    """
    similarity = _finite(np.asarray(similarity_TV, dtype=np.float32), "similarities")
    if similarity.ndim != 2:
        raise ValueError(f"a matrix of texts by videos is needed, not shape {similarity.shape}")
    owners = _owners(video_of_text, *similarity.shape)
    described = np.unique(owners)
    t2v = count_ranks(similarity, owners, np.arange(similarity.shape[1]))
    v2t = count_ranks(similarity.T[described], described, owners)
    return retrieval_metrics(t2v, ties, median), retrieval_metrics(v2t, ties, median)


def retrieval_from_features(
    text_TD: ArrayLike,
    video_VD: ArrayLike,
    video_of_text: ArrayLike | None = None,
    ties: Ties = Ties.average,
    median: Median = Median.midpoint,
) -> tuple[RetrievalMetrics, RetrievalMetrics]:
    """The same from features, in blocks of queries: no matrix of all pairs is ever held.

    Features are brought to length 1 in float32. Products are summed in float64 and rounded to float32, so that a
    pair's similarity, and with it a tie, does not depend on the block that it falls into.

    Raises:
        ValueError: as `retrieval_from_similarity`; or a feature of length 0.
    """
    text, video = normalised(text_TD), normalised(video_VD)
    owners = _owners(video_of_text, len(text), len(video))
    described = np.unique(owners)
    t2v = count_ranks_of_features(text, owners, video, np.arange(len(video)))
    v2t = count_ranks_of_features(video[described], described, text, owners)
    return retrieval_metrics(t2v, ties, median), retrieval_metrics(v2t, ties, median)


def normalised(features_XD: ArrayLike) -> NDArray[np.float32]:
    """Vectors of length 1 along the last axis, float32.

    Raises:
        ValueError: a value that is not finite or a vector of length 0.
    """
    features = _finite(np.asarray(features_XD, dtype=np.float64), "features")
    lengths = np.linalg.norm(features, axis=-1, keepdims=True)
    if not lengths.all():
        raise ValueError("a feature of length 0 has no direction")
    unit: NDArray[np.float32] = (features / lengths).astype(np.float32)
    return unit


def accuracy(logits_NK: ArrayLike, labels_N: ArrayLike, ties: Ties = Ties.average) -> AccuracyMetrics:
    """Top-1 and top-5 accuracy; ties as in retrieval, the class being the truth among the classes.

    Raises:
        ValueError: shapes that do not fit, a label outside the classes, values that are not finite, clip4clip or a
            rule that is none.
    """
    ties = Ties(ties)
    logits = _finite(np.asarray(logits_NK), "logits")
    if logits.ndim != 2 or not len(logits):
        raise ValueError(f"logits of samples by classes are needed, not shape {logits.shape}")
    labels = _indices(labels_N, logits.shape[1], "labels")
    counts = count_ranks(logits, labels, np.arange(logits.shape[1]))
    return AccuracyMetrics(
        top1_percent=recall_percent(counts, 1, ties),
        top5_percent=recall_percent(counts, 5, ties),
        num_samples=len(logits),
        num_classes=logits.shape[1],
        num_tied_samples=int(np.count_nonzero(counts.tied)),
        ties=ties,
    )


def accuracy_over_spans(
    logits_SK: ArrayLike, video_of_span: ArrayLike, labels_V: ArrayLike, ties: Ties = Ties.average
) -> AccuracyMetrics:
    """Accuracy of videos seen in spans, as LVU defines it: softmax of each span, summed over the video, argmax.

    Raises:
        ValueError: as `accuracy`; or a video without a span.
    """
    logits = _finite(np.asarray(logits_SK, dtype=np.float64), "logits")
    num_videos = len(np.asarray(labels_V))
    videos = _indices(video_of_span, num_videos, "videos of spans")
    if logits.ndim != 2 or len(logits) != len(videos):
        raise ValueError(f"logits of shape {logits.shape} for {len(videos)} spans")
    spans_of_video = np.bincount(videos, minlength=num_videos)
    if not spans_of_video.all():
        raise ValueError(f"video {int(np.argmin(spans_of_video))} has no span")
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    summed = np.zeros((num_videos, logits.shape[1]))
    np.add.at(summed, videos, chances / chances.sum(axis=1, keepdims=True))
    return accuracy(summed, labels_V, ties)


def multiple_choice(scores: Sequence[ArrayLike], answers: Sequence[int], ties: Ties = Ties.average) -> ChoiceMetrics:
    """Accuracy of the highest-scoring candidate; questions may have different numbers of candidates.

    A tie for the highest score counts 1 / (number of tied) under `average`.

    Raises:
        ValueError: no question, an answer outside its candidates, values that are not finite, clip4clip or a rule
            that is none.
    """
    ties = Ties(ties)
    rows = [_finite(np.asarray(row, dtype=np.float64), "scores") for row in scores]
    if not rows or len(rows) != len(answers):
        raise ValueError(f"scores of {len(rows)} questions for {len(answers)} answers")
    padded = np.full((len(rows), max(row.size for row in rows)), -np.inf)
    for question, (row, answer) in enumerate(zip(rows, answers, strict=True)):
        if row.ndim != 1 or not 0 <= answer < row.size:
            raise ValueError(f"question {question}: answer {answer} for candidates of shape {row.shape}")
        padded[question, : row.size] = row
    counts = count_ranks(padded, answers, np.arange(padded.shape[1]))
    return ChoiceMetrics(
        accuracy_percent=recall_percent(counts, 1, ties),
        chance_percent=float(100.0 * np.mean([1.0 / row.size for row in rows])),
        num_questions=len(rows),
        num_tied_questions=int(np.count_nonzero((counts.greater == 0) & (counts.tied > 0))),
        ties=ties,
    )


def mean_average_precision(
    scores_NK: ArrayLike, labels_NK: ArrayLike, *, unlabelled: Unlabelled, group_ties: bool = True
) -> MapMetrics:
    """MAP over classes: AP is the sum over positives of the precision at their place, over their number.

    With `group_ties` all samples of one score get the precision after the last of them; without, the lower
    index comes first. Classes without a positive are counted and not in the mean.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, no class with a positive, a rule that is none.
    """
    unlabelled = Unlabelled(unlabelled)
    scores = _finite(np.asarray(scores_NK, dtype=np.float64), "scores")
    labels = _finite(np.asarray(labels_NK, dtype=np.float64), "labels").astype(bool)
    if scores.ndim != 2 or scores.shape != labels.shape:
        raise ValueError(f"scores of shape {scores.shape} for labels of shape {labels.shape}")
    labelled = labels.any(axis=1)
    if unlabelled == Unlabelled.exclude:
        scores, labels = scores[labelled], labels[labelled]
    found = [_average_precision(scores[:, c], labels[:, c], group_ties) for c in range(scores.shape[1])]
    known = [value for value in found if value is not None]
    if not known:
        raise ValueError("no class has a positive, so there is no mAP")
    return MapMetrics(
        map_percent=float(np.mean(known)),
        ap_percent=tuple(found),
        num_classes_without_positive=len(found) - len(known),
        num_samples=len(scores),
        num_unlabelled=int(np.count_nonzero(~labelled)),
        unlabelled=unlabelled,
        ties_grouped=group_ties,
    )


def _average_precision(scores_N: FloatArray, labels_N: NDArray[np.bool_], group_ties: bool) -> float | None:
    """AP of one class in percent, or None without a positive."""
    if not labels_N.any():
        return None
    order = np.argsort(-scores_N, kind="stable")
    hits, sorted_scores = labels_N[order], scores_N[order]
    place = np.arange(1, len(hits) + 1)
    if group_ties:  # the place of the last sample with the same score
        place = np.searchsorted(-sorted_scores, -sorted_scores, side="right")
    precision = np.cumsum(hits)[place - 1] / place
    return float(100.0 * precision[hits].mean())


def count_ranks_of_features(
    query_QD: FloatArray,
    group_of_query: IntArray,
    other_CD: FloatArray,
    group_of_other: IntArray,
) -> RankCounts:
    """`count_ranks` of unit vectors, in blocks of queries whose float64 similarities do not take much memory."""
    others = other_CD.astype(np.float64).T

    def parts() -> Iterator[RankCounts]:
        rows = max(1, _BLOCK_BYTES // (8 * max(1, len(other_CD))))
        for start in range(0, len(query_QD), rows):
            block = query_QD[start : start + rows].astype(np.float64) @ others
            yield count_ranks(block.astype(np.float32), group_of_query[start : start + rows], group_of_other)

    return join_counts(list(parts()))


def _owners(video_of_text: ArrayLike | None, num_texts: int, num_videos: int) -> IntArray:
    if video_of_text is None and num_texts != num_videos:
        raise ValueError(f"{num_texts} texts and {num_videos} videos; say which text is of which video")
    owners = _indices(np.arange(num_texts) if video_of_text is None else video_of_text, num_videos, "videos of texts")
    if len(owners) != num_texts or not num_texts:
        raise ValueError(f"videos of {len(owners)} texts for {num_texts} texts")
    return owners


def _indices(values: ArrayLike, limit: int, what: str) -> IntArray:
    indices = np.asarray(values)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(f"{what}: a list of whole numbers is needed, not {indices.dtype} of shape {indices.shape}")
    if len(indices) and not 0 <= indices.min() <= indices.max() < limit:
        raise ValueError(f"{what}: {indices.min()} to {indices.max()} found, 0 to {limit - 1} expected")
    return indices.astype(np.int64)


def _finite(values: NDArray[Any], what: str) -> NDArray[Any]:
    if not np.isfinite(values).all():
        raise ValueError(f"{what} hold NaN or an infinite value")
    return values
