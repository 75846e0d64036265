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


COOKING = (
    "a cook chops onions on a wooden board. a cook stirs vegetables in a frying pan. tomato sauce is poured over the "
    "vegetables. a plate of pasta with red sauce stands on a kitchen table. "
)
SAILING = (
    "two sailors hoist a white sail on a boat. a sailing boat leans in the wind at sea. a sailor pulls a rope at the "
    "mast of the boat. the sailing boat returns to a harbour full of yachts. "
)
OF_COOKING = "a cook fries vegetables with tomato sauce and serves pasta in a kitchen"
OF_SAILING = "sailors hoist the sail of a boat and sail it in the wind back to a harbour"


def test_the_second_half_of_a_long_text_counts_as_much_as_the_first(sentence):
    """Of the second half nothing was read: its summary was rejected by a gate that let one of the first half pass."""
    summaries = [OF_COOKING, OF_SAILING, f"{OF_COOKING}, then {OF_SAILING}", SUMMARIES[3]]
    for text in (COOKING * 8 + SAILING * 8, SAILING * 8 + COOKING * 8):
        of_cooking, of_sailing, of_both, foreign = sentence(summaries, [text] * 4)
        assert of_cooking == pytest.approx(of_sailing, abs=0.2)
        assert of_both > 0.5, "as a good summary is scored, over the default gate"
        assert min(of_cooking, of_sailing) > 0.35
        assert foreign < 0.25
    assert sentence([OF_SAILING], [COOKING * 5])[0] < 0.1, "what the second half's summary scored before"


@pytest.mark.parametrize(
    "text",
    [
        COOKING * 12,
        (COOKING * 12).replace(".", ""),
        COOKING + SAILING.replace(".", "") * 12 + COOKING,
        "onion" * 800,
        "\u4e00\u4e2a\u7537\u4eba\u5728\u8d70\u8def\u3002" * 60,
        "\u4e00\u4e2a\u7537\u4eba\u5728\u8d70\u8def\uff0c" * 60,
        "\u4e00\u4e2a\u7537\u4eba\u5728\u8d70\u8def" * 120,
    ],
    ids=["sentences", "one sentence", "one long among short", "one word", "no spaces", "no stops", "no commas"],
)
def test_every_window_of_a_long_text_is_read_whole_and_no_word_is_left_out(sentence, text):
    windows = sentence._windows(text)
    limit = sentence._model.max_seq_length
    read = sentence._model.tokenizer([window for window, _ in windows], verbose=False)["input_ids"]
    assert [min(len(ids), limit) for ids in read] == [num + 2 for _, num in windows]
    assert "".join("".join(window.split()) for window, _ in windows) == "".join(text.split())
    if text != "onion" * 800:  # one word that is longer than the model reads is cut
        assert max(len(ids) for ids in read) <= limit
        assert len(windows) > 1
    assert np.linalg.norm(sentence.encode([text])[0]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("comma", ["\uff0c", ""])
def test_the_end_of_a_long_text_without_stops_is_read(sentence, comma):
    """Of Chinese without full stops only the first window was read: whatever followed, the cosine was one."""
    reading = "\u4ed6\u5750\u5728\u957f\u6905\u4e0a\u770b\u4e66" + comma
    exam = "\u5b66\u751f\u5728\u6559\u5ba4\u91cc\u8003\u8bd5" + comma
    (cosine,) = sentence([reading * 40], [reading * 40 + exam * 40])
    assert cosine < 0.95
    assert sum(num for _, num in sentence._windows(reading * 40 + exam * 40)) == len((reading + exam) * 40)


def test_sentences_end_in_every_script(sentence):
    urdu = "\u0627\u06cc\u06a9 \u0622\u062f\u0645\u06cc \u062f\u0648\u0691 \u0631\u06c1\u0627 \u06c1\u06d2\u06d4"
    windows = [text for text, _ in sentence._windows(" ".join([urdu] * 40))]
    assert len(windows) > 1
    assert all(text.endswith("\u06d4") for text in windows)


def test_texts_that_fit_have_the_vectors_they_had(sentence):
    texts = [*SUMMARIES, *LONG_TEXTS, " ".join(["dog"] * 254)]
    before = sentence._model.encode(texts, batch_size=32, normalize_embeddings=True)
    assert np.array_equal(sentence.encode(texts), before)
    (window,) = sentence._windows(texts[-1])
    assert window[0] == texts[-1]
    assert len(sentence._windows(texts[-1] + " dog")) == 2


def test_row_cosines_refuse_matrices_of_different_shape():
    with pytest.raises(ValueError, match=r"found \(2, 3\) and \(3, 3\)"):
        row_cosines(np.zeros((2, 3), np.float32), np.zeros((3, 3), np.float32))
