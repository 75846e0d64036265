from __future__ import annotations

import numpy as np
import pytest

from tests.trainer.by_hand import check_retrieval, places_by_hand, unit
from trainer.evaluate_retrieval import retrieval_by_text, retrieval_of_captions
from trainer.metrics import retrieval_from_features
from trainer.ranking import Ties


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def by_hand(metrics, scores, right):
    check_retrieval(metrics.as_dict(), places_by_hand(scores, right))


def test_all_videos_with_a_text_are_right_for_it_and_it_is_one_candidate():
    texts = [*"abacbadaef", *"ghijklmnop"]
    distinct = list(dict.fromkeys(texts))
    vectors = {text: draw(8, seed=ord(text)) for text in distinct}
    video_VD = draw(20, 8, seed=1)
    found = retrieval_by_text([vectors[text] for text in texts], video_VD, texts)
    scores = unit([vectors[text] for text in distinct]) @ unit(video_VD).T
    right = np.array([[text == other for other in texts] for text in distinct])
    by_hand(found.text_to_video, scores, right)
    by_hand(found.video_to_text, scores.T, right.T)
    assert found.text_to_video.num_candidates == 20
    assert found.video_to_text.num_candidates == len(distinct) == 16
    assert found.num_shared_texts == 2  # a, b
    assert found.as_dict()["text_to_video"]["num_queries"] == 16


def test_texts_that_differ_give_what_pairs_give():
    text_VD, video_VD = draw(30, 6), draw(30, 6, seed=1)
    found = retrieval_by_text(text_VD, video_VD, [str(number) for number in range(30)])
    assert (found.text_to_video, found.video_to_text) == retrieval_from_features(text_VD, video_VD)
    assert found.num_shared_texts == 0


def test_a_model_that_tells_nothing_apart_has_what_chance_has():
    texts = [*"abacbadaefgh"]
    found = retrieval_by_text(np.ones((12, 4)), np.ones((12, 4)), texts)
    for name in ("r1_percent", "r5_percent", "r10_percent", "mean_rank", "median_rank"):
        assert getattr(found.text_to_video, name) == pytest.approx(getattr(found.chance_text_to_video, name))
        assert getattr(found.video_to_text, name) == pytest.approx(getattr(found.chance_video_to_text, name))
    # of a 4 of 12 videos are right, of b 2, of six texts 1; each video has one of 8 texts
    assert found.chance_text_to_video.r1_percent == pytest.approx(100 * (4 + 2 + 6) / 12 / 8)
    assert found.chance_video_to_text.r1_percent == pytest.approx(100 / 8)


def test_every_caption_is_a_query_for_its_own_video_only():
    owners = np.array([0, 0, 1, 2, 2, 2, 3])
    texts = ["x", "y", "x", "z", "z", "u", "v"]
    text_TD, video_VD = draw(7, 5), draw(4, 5, seed=1)
    text_TD[2] = text_TD[0]
    found = retrieval_of_captions(text_TD, video_VD, owners, texts)
    scores = unit(text_TD) @ unit(video_VD).T
    right = owners[:, None] == np.arange(4)[None]
    by_hand(found.text_to_video, scores, right)
    by_hand(found.video_to_text, scores.T, right.T)
    assert found.num_shared_texts == 1  # x; z is twice of one video
    assert found.chance_text_to_video.r1_percent == pytest.approx(25)
    assert found.chance_video_to_text.r1_percent == pytest.approx(100 * (2 + 1 + 3 + 1) / 7 / 4)


def test_the_rule_for_ties_is_the_one_that_is_given():
    with pytest.raises(ValueError, match="one right candidate"):
        retrieval_by_text(np.ones((3, 2)), np.ones((3, 2)), ["a", "a", "b"], Ties.clip4clip)
    found = retrieval_by_text(np.ones((3, 2)), np.ones((3, 2)), ["a", "b", "c"], Ties.optimistic)
    assert found.text_to_video.r1_percent == 100
    assert found.chance_text_to_video.r1_percent == pytest.approx(100 / 3)
