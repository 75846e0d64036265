from __future__ import annotations

import pytest

from gex_pipeline.summarize.writing import first_words, num_words


@pytest.mark.parametrize(
    ("text", "english", "num"),
    [
        ("a man is riding a bike - fast!", "", 8),
        ("\u0628\u0686\u0647\u200c\u0647\u0627 \u0645\u06cc\u200c\u062e\u0648\u0631\u0646\u062f", "children eat", 2),
        ("한 남자가 공원에서 달리고 있다", "a man is running in a park", 5),  # Korean has spaces
        ("एक आदमी पार्क में दौड़ रहा है।", "a man is running in a park", 7),
        ("一个穿红衣服的男人在公园里跑步", "a man in red clothes is running in a park", 10),
        ("一只狗在草地上追球。孩子们在喝水。", "a dog chases a ball on the grass, children drink", 10),
        ("男の人が公園で本を読んでいる", "a man is reading a book in a park", 7),
        ("ผู้ชายใส่เสื้อสีแดงกำลังวิ่งในสวน", "a man in a red shirt is running in a garden", 8),
        ("បុរសកំពុងរត់នៅក្នុងសួន", "a man is running in a garden", 5),
        ("犬", "a dog", 1),
        ("5 。 ๆ", "three things between spaces", 3),
    ],
)
def test_words_are_counted_in_scripts_with_and_without_spaces(text: str, english: str, num: int) -> None:
    assert num_words(text) == num, english


def test_the_first_words_are_whole_words_or_as_many_letters_as_are_words() -> None:
    assert first_words(" a man  rides a bike", 3) == ["a", "man", "rides"]
    assert first_words("a man", 3) == ["a", "man"]
    assert first_words("a 一只狗在草地上追球", 3) == ["a", "一只狗"]
    assert first_words("一只狗, 在草地上追球", 4) == ["一只狗,", "在草地"]
    assert first_words("一只狗, 在草地上追球", 2) == ["一只狗,"]
    # A vowel that stands above its letter stays with it.
    assert first_words("กำลังวิ่งในสวน", 2) == ["กำลังวิ่ง"]


def test_a_long_text_without_spaces_ends_at_a_comma_that_is_not_far_from_the_bound() -> None:
    assert first_words("一只狗在草地上\uff0c追着一个红色的球", 6) == ["一只狗在草地上"]
    assert first_words("一只狗\uff0c在草地上追着一个红色的球", 6) == ["一只狗\uff0c在草地上追着"]
