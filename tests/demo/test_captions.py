from __future__ import annotations

import random

from gex_pipeline.demo.captions import CAPTION_WORDS, Actor, Backdrop, Scene, caption, reference
from gex_pipeline.demo.stories import make_story
from gex_pipeline.demo.vocabulary import ACTIONS, PATTERNS, SHAPES

STAR = Actor("star", "blue", "small")


def scene(action, pattern="dots", other=None, actor=STAR):
    return Scene(actor, action, Backdrop(pattern, "gray"), other)


def stories(count, num_scenes):
    return [make_story(num_scenes, random.Random(seed)) for seed in range(count)]


def test_a_caption_keeps_its_word_bounds_and_internvids_manner():
    for story in stories(60, 8):
        for one in story:
            text = caption(one, random.Random(1))
            assert CAPTION_WORDS[0] <= len(text.split()) <= CAPTION_WORDS[1], text
            assert text == text.lower() and text[-1].isalpha() and "  " not in text


def test_a_reference_keeps_its_word_bounds_for_every_length_of_story():
    for num_scenes in range(4, 9):
        for story in stories(100, num_scenes):
            text = reference(story)
            assert 10 <= len(text.split()) <= 20, text


def test_a_reference_tells_the_first_three_deeds_and_the_last():
    story = [scene("spin"), scene("fall"), scene("blink"), scene("rise"), scene("grow")]
    assert reference(story) == "a small blue star spins, falls, blinks and grows over gray dots"


def test_a_reference_names_the_other_shape_once_and_then_says_it():
    other = Actor("circle", "orange", "medium")
    story = [scene("chase", other=other), scene("fall"), scene("push", other=other), scene("fade")]
    assert reference(story) == "a small blue star chases an orange circle, falls, pushes it and fades over gray dots"


def test_a_reference_says_how_backgrounds_change():
    deeds = ["spin", "fall", "blink", "grow"]
    two = [scene(deed, pattern) for deed, pattern in zip(deeds, ["dots", "dots", "grid", "grid"], strict=True)]
    three = [scene(deed, pattern) for deed, pattern in zip(deeds, ["dots", "bricks", "grid", "grid"], strict=True)]
    assert reference(two).endswith("over dots and a grid")
    assert reference(three).endswith("over changing backgrounds")


def test_a_caption_names_shape_color_size_and_background():
    one = scene("spin", "horizontal_stripes")
    for seed in range(30):
        words = set(caption(one, random.Random(seed)).split())
        assert {"blue", "star", "gray", "horizontal", "stripes"} <= words
        assert words & {"small", "tiny"}


def test_a_caption_of_a_growing_shape_gives_it_no_size():
    for seed in range(30):
        assert not set(caption(scene("grow"), random.Random(seed)).split()) & {"small", "tiny", "large", "big"}


def test_no_wording_stands_for_two_actions_or_two_patterns():
    for table in (ACTIONS, PATTERNS):
        phrases = [phrase for entry in table.values() for phrase in entry.phrases]
        assert len(set(phrases)) == len(phrases)
    nouns = [noun for names in SHAPES.values() for noun in names]
    assert len(set(nouns)) == len(nouns)
