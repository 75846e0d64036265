from __future__ import annotations

import random
import sys

import numpy as np
import pytest

from gex_pipeline.errors import MissingExtraError
from gex_pipeline.validate.sentence import SentenceCosine, row_cosines
from tests.validate.groups import FOREIGN_TEXTS, LONG_TEXTS, MIXED_LENGTHS, SUMMARIES


def test_embeddings_are_float32_of_unit_norm_and_a_blank_text_is_zero(sentence):
    vectors = sentence.encode(["a dog", "", LONG_TEXTS[0], "\u200b"])
    assert vectors.shape == (4, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 0, 1, 0], abs=1e-6)


def test_no_texts_give_a_matrix_without_rows(sentence):
    assert sentence.encode([]).shape == (0, 384)
    assert sentence([], []) == []


def test_equal_texts_score_one_and_blank_texts_zero(sentence):
    scores = sentence(["a dog", "", "a dog", " "], ["a dog", "a dog", "\n", ""])
    assert scores == pytest.approx([1, 0, 0, 0], abs=1e-6)
    assert max(scores) <= 1.0


def test_own_pairs_pass_the_default_gate_and_foreign_pairs_do_not(sentence):
    assert min(sentence(SUMMARIES, LONG_TEXTS)) > 0.5
    assert max(sentence(SUMMARIES, FOREIGN_TEXTS)) < 0.5


def test_a_pair_keeps_its_score_in_any_batch(sentence):
    together = sentence(*map(list, zip(*MIXED_LENGTHS, strict=True)))
    one_by_one = [sentence([a], [b])[0] for a, b in MIXED_LENGTHS]
    assert together == pytest.approx(one_by_one, abs=1e-4)
    order = random.Random(3).sample(range(len(MIXED_LENGTHS)), len(MIXED_LENGTHS))
    shuffled = sentence([MIXED_LENGTHS[row][0] for row in order], [MIXED_LENGTHS[row][1] for row in order])
    assert shuffled == pytest.approx([together[row] for row in order], abs=1e-4)


def test_the_same_inputs_give_the_same_scores(sentence):
    assert sentence(SUMMARIES, LONG_TEXTS) == sentence(SUMMARIES, LONG_TEXTS)


def test_a_local_directory_gives_the_scores_of_the_package(sentence, minilm_folder):
    local = SentenceCosine(str(minilm_folder))
    assert local(SUMMARIES[:2], LONG_TEXTS[:2]) == pytest.approx(sentence(SUMMARIES[:2], LONG_TEXTS[:2]), abs=1e-6)


def test_the_signature_is_portable(sentence):
    assert sentence.signature == "all-MiniLM-L6-v2"


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"sentence-transformers is not installed.*-e .\.\[score\]"):
        SentenceCosine()


def test_lists_of_different_length_are_refused(sentence):
    with pytest.raises(ValueError, match="expected pairs"):
        sentence(["a"], [])


def test_row_cosines_refuse_matrices_of_different_shape():
    with pytest.raises(ValueError, match=r"found \(2, 3\) and \(3, 3\)"):
        row_cosines(np.zeros((2, 3), np.float32), np.zeros((3, 3), np.float32))
