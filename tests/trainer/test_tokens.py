from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.validate.tiny_clip import TINY_MAX_TOKENS, write_tiny_clip
from trainer.settings import TowerSettings
from trainer.tokens import load_tokenizer

SHORT = "a man rides a bicycle"
LONG = " ".join(["a man rides a red bicycle along the river"] * 6)
ROOM = TINY_MAX_TOKENS - 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny", [SHORT, LONG])


def tokenizer_for(folder, **settings):
    return load_tokenizer(TowerSettings(clip=str(folder), **settings))


def words_of(tokens, row):
    ids, mask = tokens.ids_BWL[row], tokens.mask_BWL[row]
    return [number for window, real in zip(ids, mask, strict=True) for number in window[real][1:-1].tolist()]


def test_texts_come_as_a_list_or_an_array_and_never_as_one_text(folder):
    """One text was read as a list of its characters, and an array had no truth value."""
    tokenizer = tokenizer_for(folder)
    expected = tokenizer([SHORT, "a man"]).ids_BWL
    for texts in (np.array([SHORT, "a man"]), (SHORT, "a man")):
        assert torch.equal(tokenizer(texts).ids_BWL, expected)
    with pytest.raises(ValueError, match="expected a list of texts, found one text"):
        tokenizer(SHORT)
    for none in ([], np.array([], dtype=str)):
        with pytest.raises(ValueError, match="expected at least one text, found none"):
            tokenizer(none)


def test_a_text_that_fits_is_what_the_tokenizer_of_clip_makes_of_it(folder):
    from transformers import AutoTokenizer

    tokens = tokenizer_for(folder)([SHORT, "a man", ""])
    clip = AutoTokenizer.from_pretrained(folder)(
        [SHORT, "a man", ""], padding="max_length", max_length=TINY_MAX_TOKENS, return_tensors="pt"
    )
    assert tokens.ids_BWL[:, 0].tolist() == clip["input_ids"].tolist()
    assert tokens.mask_BWL[:, 0].long().tolist() == clip["attention_mask"].tolist()
    assert tokens.truncated_B.tolist() == [False, False, False]
    assert int(tokens.mask_BWL[2].sum()) == 2


def test_a_long_text_is_cut_with_its_end_token_kept_and_counted(folder):
    tokens = tokenizer_for(folder)([SHORT, LONG])
    assert tokens.ids_BWL.shape == (2, 1, TINY_MAX_TOKENS)
    assert tokens.truncated_B.tolist() == [False, True]
    whole = words_of(tokenizer_for(folder, long_text="windows")([LONG]), 0)
    assert words_of(tokens, 1) == whole[:ROOM]
    assert tokens.ids_BWL[1, 0, -1] == tokens.ids_BWL[0, 0, int(tokens.mask_BWL[0].sum()) - 1]


def test_windows_hold_all_words_in_order_and_a_text_that_fits_has_one(folder):
    windows, cut = tokenizer_for(folder, long_text="windows"), tokenizer_for(folder)
    tokens = windows([SHORT, LONG])
    num_words = len(words_of(tokens, 1))
    assert num_words == len(LONG.split())
    assert tokens.ids_BWL.shape[1] == -(-num_words // ROOM) > 1
    assert not tokens.truncated_B.any()
    assert not tokens.mask_BWL[0, 1:].any()
    assert all(a.equal(b) for a, b in zip(windows([SHORT]), cut([SHORT]), strict=True))


def test_a_text_of_exactly_the_room_has_one_window_and_one_word_more_two(folder):
    word = LONG.split()[0]
    windows = tokenizer_for(folder, long_text="windows")
    assert windows([" ".join([word] * ROOM)]).ids_BWL.shape[1] == 1
    assert windows([" ".join([word] * (ROOM + 1))]).ids_BWL.shape[1] == 2
    assert tokenizer_for(folder)([" ".join([word] * ROOM)]).truncated_B.tolist() == [False]
    assert tokenizer_for(folder)([" ".join([word] * (ROOM + 1))]).truncated_B.tolist() == [True]


def test_words_beyond_the_last_window_are_cut_and_counted(folder):
    tokens = tokenizer_for(folder, long_text="windows", max_windows=2)([SHORT, LONG])
    assert tokens.ids_BWL.shape[1] == 2
    assert tokens.truncated_B.tolist() == [False, True]
    assert len(words_of(tokens, 1)) == 2 * ROOM


def test_no_texts_are_an_error(folder):
    with pytest.raises(ValueError, match="at least one text"):
        tokenizer_for(folder)([])


def test_tokens_move_as_a_whole(folder):
    moved = tokenizer_for(folder)([SHORT]).to("meta")
    assert {part.device.type for part in moved} == {"meta"}
