from __future__ import annotations

import pytest
from rouge_score import rouge_scorer

from gex_pipeline.validate.rouge import ROUGE_NAMES, Rouge
from tests.validate.groups import FOREIGN_TEXTS, LONG_TEXTS, MIXED_LENGTHS, SUMMARIES


def test_values_equal_those_computed_by_hand():
    # 3 of 3 and 3 of 6 words; 2 of 2 and 2 of 5 word pairs; longest common subsequence of 3
    (row,) = Rouge()(["the cat sat"], ["the cat sat on the mat"])
    assert row == pytest.approx({"rouge1": 2 / 3, "rouge2": 4 / 7, "rougeL": 2 / 3})


def test_order_counts_for_pairs_and_subsequences_but_not_for_words():
    (row,) = Rouge()(["mat the"], ["the mat"])
    assert row == pytest.approx({"rouge1": 1.0, "rouge2": 0.0, "rougeL": 0.5})


def test_a_word_that_is_repeated_counts_as_often_as_both_have_it():
    # 1 of 3 and 1 of 2 words
    (row,) = Rouge()(["dog dog dog"], ["dog cat"])
    assert row["rouge1"] == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))


def test_inflected_words_match_by_their_stem():
    assert Rouge()(["riding motorcycles"], ["Rides, motorcycle!"])[0]["rouge2"] == 1.0


def test_scores_equal_those_of_the_library_with_its_own_stemmer():
    library = rouge_scorer.RougeScorer(list(ROUGE_NAMES), use_stemmer=True)
    expected = [
        {name: library.score(long_text, summary)[name].fmeasure for name in ROUGE_NAMES}
        for summary, long_text in MIXED_LENGTHS
    ]
    assert Rouge()(*map(list, zip(*MIXED_LENGTHS, strict=True))) == expected


def test_blank_and_non_latin_texts_score_zero():
    assert Rouge()(["", "a dog", "犬が走る"], ["a dog", " ", "犬が走る"]) == [dict.fromkeys(ROUGE_NAMES, 0.0)] * 3


def test_own_pairs_score_higher_than_foreign_pairs():
    rouge = Rouge()
    for own, foreign in zip(rouge(SUMMARIES, LONG_TEXTS), rouge(SUMMARIES, FOREIGN_TEXTS), strict=True):
        assert own["rouge1"] > foreign["rouge1"]
        assert own["rougeL"] > foreign["rougeL"]


def test_no_pairs_give_no_rows():
    assert Rouge()([], []) == []


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="expected pairs"):
        Rouge()(["a", "b"], ["a"])
