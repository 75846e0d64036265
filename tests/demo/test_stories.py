from __future__ import annotations

import random

import pytest

from gex_pipeline.demo.stories import make_sources, make_story
from gex_pipeline.demo.vocabulary import ACTIONS, ROUND_SHAPES, stands_out


def test_more_sources_of_one_seed_begin_with_the_same_ones():
    assert make_sources(12, 7, 12)[:5] == make_sources(5, 7, 12)
    assert make_sources(5, 7, 12) != make_sources(5, 8, 12)


def test_ids_are_unique_and_some_begin_with_a_dash_or_end_with_an_underscore():
    ids = [source.youtube_id for source in make_sources(48, 7, 12)]
    assert len(set(ids)) == 48 and all(len(one) == 11 for one in ids)
    assert sum(one.startswith("-") for one in ids) >= 8
    assert sum(one.endswith("_") for one in ids) >= 8


def test_about_a_quarter_of_the_sources_is_too_short_for_a_group():
    counts = [len(source.clips) for source in make_sources(200, 1, 12)]
    assert sum(count < 4 for count in counts) == 50
    assert set(counts) == set(range(1, 9))


def test_every_channel_has_several_sources():
    channels = [source.channel for source in make_sources(60, 1, 12)]
    assert len(set(channels)) == 10
    assert all(channels.count(channel) == 6 for channel in channels)


@pytest.mark.parametrize("fps", [10, 12, 24, 25, 30])
def test_cuts_are_whole_frames_and_whole_milliseconds_in_time_order(fps):
    for source in make_sources(8, 5, fps):
        end = 0
        for clip in source.clips:
            assert clip.start_frame >= end
            end = clip.start_frame + clip.num_frames
            assert 2 * fps <= clip.num_frames <= 4 * fps
            assert (clip.start_frame * 1000) % fps == 0 and (end * 1000) % fps == 0


def test_a_story_repeats_no_action_and_asks_nothing_that_cannot_be_seen():
    for seed in range(300):
        story = make_story(random.Random(seed).randint(1, 8), random.Random(seed))
        assert len({scene.action for scene in story}) == len(story)
        assert len({scene.actor for scene in story}) == 1
        for scene in story:
            action = ACTIONS[scene.action]
            assert not (action.turns and scene.actor.shape in ROUND_SHAPES)
            assert (scene.other is not None) == action.needs_other
            assert stands_out(scene.actor.color, scene.backdrop.color)
            assert scene.other is None or stands_out(scene.other.color, scene.backdrop.color)
