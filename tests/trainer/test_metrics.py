"""Metrics against definitions written out slowly, against scikit-learn, and against figures known beforehand."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer import metrics
from trainer.metrics import (
    Unlabelled,
    accuracy,
    accuracy_over_spans,
    mean_average_precision,
    multiple_choice,
    normalised,
    retrieval_from_features,
    retrieval_from_similarity,
    retrieval_metrics,
)
from trainer.ranking import Median, Ties, count_ranks, join_counts, ranks, recall_percent

ROOT = Path(__file__).parents[2]
RANKED = [Ties.average, Ties.optimistic, Ties.pessimistic, Ties.lowest_index]


def bf16(values):
    """Float32 rounded to the nearest bfloat16, ties to even."""
    bits = np.asarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def slow_ranks(scores, right):
    """Rank of the first right candidate for every order of the candidates that the scores allow, one query."""
    places = []
    for order in itertools.permutations(range(len(scores))):
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order)):
            places.append(min(place for place, candidate in enumerate(order, 1) if candidate in right))
    return places


@st.composite
def query(draw):
    scores = draw(st.lists(st.integers(0, 2), min_size=1, max_size=6))
    right = draw(st.sets(st.integers(0, len(scores) - 1), min_size=1))
    return scores, right


@settings(max_examples=60, deadline=None)
@given(query())
def test_every_tie_rule_is_what_all_orders_of_the_tied_say(drawn):
    scores, right = drawn
    places = slow_ranks(scores, right)
    groups = [0 if c in right else c + 1 for c in range(len(scores))]
    counts = count_ranks(np.array([scores], dtype=np.float32), [0], groups)
    assert ranks(counts, Ties.average)[0] == pytest.approx(np.mean(places))
    assert ranks(counts, Ties.optimistic)[0] == min(places)
    assert ranks(counts, Ties.pessimistic)[0] == max(places)
    stable = sorted(range(len(scores)), key=lambda c: (-scores[c], c))
    assert ranks(counts, Ties.lowest_index)[0] == min(stable.index(c) + 1 for c in right)
    for k in (1, 2, 5):
        assert recall_percent(counts, k) == pytest.approx(100 * np.mean([place <= k for place in places]))


def test_a_model_that_scores_everything_alike_gets_chance_with_average():
    t2v, v2t = retrieval_from_similarity(np.zeros((20, 20)))
    assert t2v == v2t
    assert (t2v.r1_percent, t2v.r5_percent, t2v.r10_percent) == pytest.approx((5, 25, 50))
    assert (t2v.median_rank, t2v.mean_rank, t2v.num_tied_queries) == (10.5, 10.5, 20)


@pytest.mark.parametrize(
    ("ties", "r1", "mean_rank"),
    [(Ties.optimistic, 100, 1), (Ties.pessimistic, 0, 20), (Ties.lowest_index, 5, 10.5), (Ties.clip4clip, 5, 10.5)],
)
def test_the_other_rules_on_all_equal_scores(ties, r1, mean_rank):
    t2v, _ = retrieval_from_similarity(np.zeros((20, 20)), ties=ties)
    assert (t2v.r1_percent, t2v.mean_rank, t2v.num_queries) == (r1, mean_rank, 20)


def test_without_ties_all_rules_agree():
    similarity = np.random.default_rng(0).permutation(900).reshape(30, 30)
    first, *others = (retrieval_from_similarity(similarity, ties=ties) for ties in Ties)
    for other in others:
        for a, b in zip(first, other, strict=True):
            assert {**a.as_dict(), "ties": 0} == pytest.approx({**b.as_dict(), "ties": 0})
    assert first[0].num_tied_queries == 0


def test_clip4clip_entries_are_those_of_a_sort_minus_the_diagonal():
    similarity = bf16(np.random.default_rng(1).normal(size=(60, 60)) * 0.01 + 0.3)
    t2v, _ = retrieval_from_similarity(similarity, ties=Ties.clip4clip)
    entries = np.nonzero(np.sort(-similarity, axis=1) == -np.diag(similarity)[:, None])[1]
    assert len(entries) > 60
    assert t2v.r5_percent == pytest.approx(100 * np.mean(entries < 5))
    assert t2v.median_rank == np.median(entries) + 1
    assert t2v.mean_rank == pytest.approx(np.mean(entries) + 1)


def test_clip4clip_has_no_rule_for_several_captions():
    with pytest.raises(ValueError, match="one right candidate a query only"):
        retrieval_from_similarity(np.eye(2)[[0, 0, 1]], [0, 0, 1], ties=Ties.clip4clip)


def test_bfloat16_similarities_keep_every_query_and_say_how_many_are_tied():
    rng = np.random.default_rng(2)
    features = rng.normal(size=(400, 64))
    similarity = features @ (features + rng.normal(size=features.shape) * 1.5).T
    similarity = 0.3 + 0.1 * similarity / np.abs(similarity).max()
    exact, _ = retrieval_from_similarity(similarity)
    rounded = {ties: retrieval_from_similarity(bf16(similarity), ties=ties)[0] for ties in RANKED}
    average = rounded[Ties.average]
    assert exact.num_tied_queries == 0
    assert average.num_tied_queries > 20
    assert average.num_queries == 400
    assert rounded[Ties.pessimistic].r1_percent < average.r1_percent < rounded[Ties.optimistic].r1_percent
    assert average.r1_percent == pytest.approx(exact.r1_percent, abs=2)


def test_several_captions_all_ask_and_the_best_one_answers():
    similarity = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.1, 0.7, 0.0], [0.0, 0.3, 0.6]])
    t2v, v2t = retrieval_from_similarity(similarity, video_of_text=[0, 0, 1, 1])
    assert t2v.num_queries == 4
    assert ranks(count_ranks(similarity, [0, 0, 1, 1], range(3))).tolist() == [1, 2, 1, 2]
    assert (v2t.num_queries, v2t.num_candidates) == (2, 4)  # the video without a caption asks nothing
    assert (v2t.r1_percent, v2t.mean_rank) == (50, 1.5)  # the caption of video 0 that lies nearest video 1 is ahead


def test_a_caption_that_stands_twice_does_not_stand_against_itself():
    similarity = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.5]])
    _, v2t = retrieval_from_similarity(similarity, video_of_text=[0, 0, 1])
    assert (v2t.mean_rank, v2t.num_tied_queries) == (1, 0)


def test_the_median_lies_between_the_middle_ranks_and_the_compatible_one_below():
    similarity = np.array([[3, 0, 0, 0], [5, 3, 0, 0], [5, 4, 3, 0], [5, 4, 3, 2]])
    assert retrieval_from_similarity(similarity)[0].median_rank == 2.5
    assert retrieval_from_similarity(similarity, median=Median.floor)[0].median_rank == 2


@pytest.mark.parametrize("block_bytes", [1, 3000, 1 << 20])
def test_features_in_blocks_give_what_the_whole_matrix_gives(block_bytes, monkeypatch):
    rng = np.random.default_rng(3)
    text, video = rng.normal(size=(90, 16)).astype(np.float32), rng.normal(size=(30, 16)).astype(np.float32)
    text[40:44] = text[7]
    owners = np.arange(90) // 3
    units = [
        np.float32(x / np.linalg.norm(x.astype(float), axis=1, keepdims=True)).astype(float) for x in (text, video)
    ]
    whole = retrieval_from_similarity(units[0] @ units[1].T, owners)
    monkeypatch.setattr(metrics, "_BLOCK_BYTES", block_bytes)
    assert retrieval_from_features(text, video, owners) == whole
    assert whole[1].num_tied_queries > 0


@pytest.mark.parametrize("block_bytes", [1, 2000, 1 << 20])
def test_features_that_are_all_the_same_tie_whatever_the_block(block_bytes, monkeypatch):
    monkeypatch.setattr(metrics, "_BLOCK_BYTES", block_bytes)
    same = np.tile(np.random.default_rng(4).normal(size=17), (37, 1))
    t2v, v2t = retrieval_from_features(same, same)
    assert t2v == v2t
    assert (t2v.num_tied_queries, t2v.mean_rank, t2v.r1_percent) == (37, 19, pytest.approx(100 / 37))


def test_features_are_compared_in_float32_so_a_difference_below_its_last_bit_is_a_tie():
    text, video = [[3.0, 4.0]], [[3.0000004, 3.9999997], [3.0, 4.0]]
    exact = normalised(text).astype(np.float64) @ normalised(video).astype(np.float64).T
    assert exact[0, 0] < exact[0, 1] < exact[0, 0] + 2e-8
    t2v, _ = retrieval_from_features(text, video, [0])
    assert (t2v.num_tied_queries, t2v.mean_rank) == (1, 1.5)


def test_a_million_candidates_need_no_matrix_of_all_pairs():
    rng = np.random.default_rng(5)
    video = rng.normal(size=(1_000_000, 4)).astype(np.float32)
    similarity = (video[:3] @ video.T).astype(np.float32)
    counts = join_counts([count_ranks(similarity[i : i + 1], [i], np.arange(1_000_000)) for i in range(3)])
    assert counts.greater.tolist() == [int((similarity[i] > similarity[i, i]).sum()) for i in range(3)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: retrieval_from_similarity([[np.nan, 1], [0, 1]]), "similarities hold NaN"),
        (lambda: retrieval_from_similarity([[1, 0]]), "say which text is of which video"),
        (lambda: retrieval_from_similarity([[1, 0]], [2]), "2 to 2 found, 0 to 1 expected"),
        (lambda: retrieval_from_similarity([[1, 0]], [0.0]), "whole numbers"),
        (lambda: retrieval_from_similarity([1, 0]), "texts by videos"),
        (lambda: retrieval_from_similarity(np.zeros((0, 0))), "0 texts"),
        (lambda: retrieval_from_features([[0, 0]], [[1, 0]]), "length 0 has no direction"),
        (lambda: count_ranks(np.eye(2), [0, 5], [0, 1]), "query 1 has no right candidate"),
        (lambda: count_ranks(np.eye(2), [0], [0, 1]), "for 1 queries and 2 candidates"),
        (lambda: count_ranks(np.array([[np.inf]]), [0], [0]), "NaN or \\+inf"),
        (lambda: join_counts([]), "at least one"),
        (lambda: ranks(count_ranks(np.eye(1), [0], [0]), Ties.clip4clip), "several ranks"),
        (lambda: accuracy([[1.0, 2.0]], [2]), "labels: 2 to 2 found"),
        (lambda: accuracy([1.0, 2.0], [1]), "samples by classes"),
        (lambda: accuracy_over_spans([[1.0, 0.0]], [0], [1, 1]), "video 1 has no span"),
        (lambda: accuracy_over_spans([[1.0, 0.0]], [0, 0], [1]), "for 2 spans"),
        (lambda: multiple_choice([[1.0, 0.0]], [2]), "question 0: answer 2"),
        (lambda: multiple_choice([], []), "scores of 0 questions"),
        (lambda: mean_average_precision([[1.0]], [[0]], unlabelled=Unlabelled.negative), "no class has a positive"),
        (lambda: mean_average_precision([[1.0]], [[0, 1]], unlabelled=Unlabelled.negative), "labels of shape"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_accuracy_counts_the_first_and_the_first_five():
    logits = np.array([np.arange(8), np.arange(8), np.arange(8)])
    found = accuracy(logits, [7, 3, 2])
    assert (found.top1_percent, found.top5_percent) == pytest.approx((100 / 3, 200 / 3))
    assert (found.num_samples, found.num_classes, found.num_tied_samples) == (3, 8, 0)


def test_a_classifier_that_decides_nothing_gets_chance():
    found = accuracy(np.zeros((4, 8)), [0, 0, 0, 0])
    assert (found.top1_percent, found.top5_percent, found.num_tied_samples) == pytest.approx((12.5, 62.5, 4))
    assert accuracy(np.zeros((4, 8)), [0, 0, 0, 0], Ties.lowest_index).top1_percent == 100


def test_spans_vote_with_their_softmax_and_not_with_their_logits():
    logits = np.array([[50.0, 0.0], [0.0, 3.0], [0.0, 3.0], [1.0, 0.0]])
    found = accuracy_over_spans(logits, [0, 0, 0, 1], [1, 0])  # the sum of logits would say class 0 for video 0
    assert (found.top1_percent, found.num_samples) == (100, 2)
    assert accuracy_over_spans(logits + 1e4, [0, 0, 0, 1], [1, 0]).top1_percent == 100  # no overflow


def test_a_span_that_knows_nothing_weighs_no_more_than_one_that_does():
    """Twenty classes share the first span's softmax; by bare exponentials it would outvote the second."""
    unsure = [0.0, -2.0, *[0.0] * 20]
    sure = [*np.log([0.45, 0.55]), *[-50.0] * 20]
    assert accuracy_over_spans([unsure, sure], [0, 0], [1]).top1_percent == 100


def test_multiple_choice_shares_a_tie_and_takes_questions_of_different_length():
    found = multiple_choice([[0.1, 0.9, 0.0], [0.5, 0.5, 0.1, 0.5], [1.0, 0.0]], [1, 3, 1])
    assert found.accuracy_percent == pytest.approx(100 * (1 + 1 / 3 + 0) / 3)
    assert found.chance_percent == pytest.approx(100 * (1 / 3 + 1 / 4 + 1 / 2) / 3)
    assert (found.num_questions, found.num_tied_questions) == (3, 1)
    lost = multiple_choice([[0.9, 0.2, 0.2]], [1])  # a tie that no rule can make right
    assert (lost.accuracy_percent, lost.num_tied_questions) == (0, 0)
    favoured = multiple_choice([[0.5, 0.5]], [1], Ties.optimistic)
    assert favoured.accuracy_percent == 100


def slow_average_precision(scores, labels):
    """Sum over thresholds of (recall gained) x precision."""
    total, before = 0.0, 0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= threshold
        hits = int(labels[chosen].sum())
        total += (hits - before) / labels.sum() * hits / chosen.sum()
        before = hits
    return 100 * total


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
def test_average_precision_is_the_sum_over_thresholds(seed, num_levels):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, num_levels, size=(25, 3)).astype(np.float32)
    labels = rng.random((25, 3)) < 0.3
    labels[0] = True
    found = mean_average_precision(scores, labels, unlabelled=Unlabelled.negative)
    slow = [slow_average_precision(scores[:, c], labels[:, c]) for c in range(3)]
    assert found.ap_percent == pytest.approx(slow)
    assert found.map_percent == pytest.approx(np.mean(slow))


def test_average_precision_is_that_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(6)
    scores, labels = rng.integers(0, 9, size=(200, 5)).astype(float), rng.random((200, 5)) < 0.2
    found = mean_average_precision(scores, labels, unlabelled=Unlabelled.negative)
    assert found.map_percent == pytest.approx(100 * sklearn.average_precision_score(labels, scores, average="macro"))


def test_without_grouping_the_lower_index_comes_first():
    labels = np.array([[0], [1], [1], [0]])
    grouped = mean_average_precision(np.zeros((4, 1)), labels, unlabelled=Unlabelled.negative)
    by_index = mean_average_precision(np.zeros((4, 1)), labels, unlabelled=Unlabelled.negative, group_ties=False)
    assert grouped.map_percent == 50
    assert by_index.map_percent == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)


def test_a_class_without_a_positive_is_counted_and_not_in_the_mean():
    scores, labels = np.array([[3.0, 1], [2, 2], [1, 3]]), np.array([[1, 0], [0, 0], [1, 0]])
    found = mean_average_precision(scores, labels, unlabelled=Unlabelled.negative)
    assert found.ap_percent == (pytest.approx(100 * (1 + 2 / 3) / 2), None)
    assert (found.num_classes_without_positive, found.num_unlabelled, found.num_samples) == (1, 1, 3)


def test_an_unlabelled_video_is_a_negative_or_is_not_there():
    scores, labels = np.array([[3.0], [2], [1]]), np.array([[0], [1], [1]])
    assert mean_average_precision(scores, labels, unlabelled=Unlabelled.exclude).map_percent == 100
    as_negative = mean_average_precision(scores, labels, unlabelled=Unlabelled.negative)
    assert as_negative.map_percent == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)
    last = mean_average_precision(np.array([[-9.0], [2], [1]]), labels, unlabelled=Unlabelled.negative)
    assert last.map_percent == 100  # ranked last, as Charades' code has it, it changes nothing either


def test_results_can_be_written_as_json():
    results = [
        retrieval_from_similarity(np.eye(3))[0],
        accuracy(np.eye(3), [0, 1, 2]),
        multiple_choice([[1.0, 0.0]], [0]),
        mean_average_precision(np.eye(2), np.eye(2), unlabelled=Unlabelled.exclude),
    ]
    read = [json.loads(json.dumps(result.as_dict())) for result in results]
    assert read[0]["r1_percent"] == 100
    assert [entry.get("ties") for entry in read] == ["average", "average", "average", None]
    assert read[3]["unlabelled"] == "exclude"


def test_metrics_load_no_torch():
    program = "import sys, trainer.metrics, trainer.annotations, trainer.prompts\nprint('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT, check=True
    )
    assert done.stdout.split() == ["False"]


MATRIX, COUNTS = np.eye(4), count_ranks(np.eye(4), np.arange(4), np.arange(4))
MISNAMED = {
    "retrieval_from_similarity": (lambda: retrieval_from_similarity(MATRIX, median="Floor"), "Median knows no 'Floor'"),
    "retrieval_from_features": (
        lambda: retrieval_from_features(MATRIX, MATRIX, ties="Average"),
        "Ties knows no 'Average'",
    ),
    "retrieval_metrics": (lambda: retrieval_metrics(COUNTS, "first"), "Ties knows no 'first'"),
    "ranks": (lambda: ranks(COUNTS, "Average"), "Ties knows no 'Average'"),
    "recall_percent": (lambda: recall_percent(COUNTS, 1, "Average"), "Ties knows no 'Average'"),
    "accuracy": (lambda: accuracy(MATRIX, range(4), "Average"), "Ties knows no 'Average'"),
    "accuracy_over_spans": (
        lambda: accuracy_over_spans(MATRIX, range(4), range(4), "Average"),
        "Ties knows no 'Average'",
    ),
    "multiple_choice": (lambda: multiple_choice(MATRIX, range(4), "Average"), "Ties knows no 'Average'"),
    "mean_average_precision": (
        lambda: mean_average_precision(MATRIX, MATRIX, unlabelled="nope"),
        "Unlabelled knows no 'nope'; expected one of negative, exclude",
    ),
}


@pytest.mark.parametrize("name", MISNAMED)
def test_a_rule_that_is_none_is_refused_by_name(name):
    """It gave the figure of another rule, under its own name."""
    call, words = MISNAMED[name]
    with pytest.raises(ValueError, match=words):
        call()


def test_a_rule_may_be_named_by_its_word():
    assert retrieval_from_similarity(MATRIX, ties="pessimistic", median="floor") == retrieval_from_similarity(
        MATRIX, ties=Ties.pessimistic, median=Median.floor
    )
    found = mean_average_precision([[0.9], [0.1]], [[1], [0]], unlabelled="exclude")
    assert (found.unlabelled, found.num_samples) == (Unlabelled.exclude, 1)


def test_a_label_that_is_no_number_is_no_positive_but_refused():
    with pytest.raises(ValueError, match="labels hold NaN or an infinite value"):
        mean_average_precision([[0.9], [0.1]], [[1], [np.nan]], unlabelled="negative")
