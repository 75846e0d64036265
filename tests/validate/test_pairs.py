from __future__ import annotations

import pytest

from gex_pipeline.validate.pairs import check_parallel, is_blank, rows_to_score


@pytest.mark.parametrize("text", ["", " ", "\t\n", "\u00a0", "\u200b\u200d", "\x00", "\u3000", "\ufeff "])
def test_a_text_with_nothing_to_see_is_blank(text):
    assert is_blank(text)


@pytest.mark.parametrize("text", ["a", ".", " 犬 ", "\u200bdog", "🐕", "שלום"])
def test_a_text_with_one_visible_character_is_not_blank(text):
    assert not is_blank(text)


def test_only_rows_with_two_texts_are_scored():
    assert rows_to_score(["a", "", "b", "c"], ["x", "y", " ", "z"]) == [0, 3]


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="found 2 on the left and 1 on the right"):
        check_parallel(["a", "b"], ["a"])


def test_a_bare_string_is_not_taken_for_a_list_of_letters():
    with pytest.raises(ValueError, match="bare string"):
        rows_to_score("dog", ["d", "o", "g"])
