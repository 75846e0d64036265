from __future__ import annotations

import random

import numpy as np
import pytest

from gex_pipeline.demo.captions import Actor, Backdrop, Scene, caption
from gex_pipeline.demo.scenes import draw_scene, write_clip
from gex_pipeline.demo.stories import make_sources
from gex_pipeline.demo.vocabulary import ACTIONS, BACKDROP_COLORS, PATTERNS, SHAPE_COLORS, SHAPES
from tests.demo.looking import color_masks, decode, path_of

SIZE_PX = (144, 192)
SMALL_BLUE = Actor("square", "cyan", "small")
OTHER = Actor("star", "red", "medium")


def film(tmp_path, scene, seed=1, num_frames=36):
    path = tmp_path / "clip.mp4"
    write_clip(path, draw_scene(scene, num_frames, 12, SIZE_PX, (seed,)), 12, SIZE_PX)
    return decode(path)


def paths(tmp_path, action, seed=1):
    other = OTHER if ACTIONS[action].needs_other else None
    scene = Scene(SMALL_BLUE, action, Backdrop("gradient", "gray"), other)
    masks = color_masks(film(tmp_path, scene, seed))
    return path_of(masks["cyan"]), path_of(masks["red"])


def test_the_colors_that_are_seen_are_the_colors_that_the_captions_say(tmp_path):
    clips = [clip for source in make_sources(12, 21, 12) for clip in source.clips][::2]
    assert len(clips) > 20
    for number, clip in enumerate(clips):
        masks = color_masks(film(tmp_path, clip.scene, number, clip.num_frames))
        said = set(clip.caption.split())
        seen = {name for name in SHAPE_COLORS if masks[name].sum((1, 2)).max() > 90}
        assert seen == said & set(SHAPE_COLORS), clip.caption
        behind = max(BACKDROP_COLORS, key=lambda name: masks[name].sum())
        assert behind in said, clip.caption


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("action", "axis", "sign"),
    [
        ("slide_right", 0, 1),
        ("slide_left", 0, -1),
        ("roll_right", 0, 1),
        ("roll_left", 0, -1),
        ("zigzag_right", 0, 1),
        ("zigzag_left", 0, -1),
        ("rise", 1, -1),
        ("fall", 1, 1),
    ],
)
def test_a_shape_moves_the_way_its_caption_says(tmp_path, action, axis, sign, seed):
    main, _ = paths(tmp_path, action, seed)
    steps = np.diff(main[axis][1:-1])
    assert (sign * steps).min() > -0.01
    assert sign * (main[axis][-2] - main[axis][1]) > 0.6


def test_only_a_zigzag_leaves_its_line(tmp_path):
    straight, _ = paths(tmp_path, "slide_right")
    zigzag, _ = paths(tmp_path, "zigzag_right")
    assert np.ptp(straight[1][2:-2]) < 0.03
    assert np.ptp(zigzag[1][2:-2]) > 0.4


def test_growing_grows_shrinking_shrinks_and_pulsing_does_both(tmp_path):
    grown, shrunk, pulsed = (paths(tmp_path, action)[0][2] for action in ("grow", "shrink", "pulse"))
    assert grown[-1] > 10 * grown[3] and np.diff(grown[2:]).min() > -30
    assert shrunk[0] > 10 * shrunk[-4] and np.diff(shrunk[:-2]).max() < 30
    assert np.sum(np.diff(np.sign(pulsed - pulsed.mean())) != 0) >= 3


def test_a_blinking_shape_is_gone_again_and_again(tmp_path):
    area = paths(tmp_path, "blink")[0][2]
    assert set(area > 50) == {True, False}
    assert np.sum(np.diff((area > 50).astype(int)) == 1) >= 2


def test_a_fading_shape_goes_and_does_not_come_back(tmp_path):
    area = paths(tmp_path, "fade")[0][2]
    assert area[0] > 400 and area[-1] == 0


def test_a_spinning_shape_turns_without_leaving_its_place(tmp_path):
    scene = Scene(Actor("crescent", "cyan", "large"), "spin", Backdrop("gradient", "gray"))
    mask_THW = color_masks(film(tmp_path, scene))["cyan"]
    x, y, area = path_of(mask_THW)
    # A crescent's centre of mass goes around its centre: a full turn, and no further than its own width.
    assert 0.05 < np.ptp(x) < 0.25 and 0.05 < np.ptp(y) < 0.35
    assert np.ptp(area) < 0.2 * area.mean()


def test_a_bouncing_shape_returns_to_the_ground_several_times(tmp_path):
    (x, y, _), _ = paths(tmp_path, "bounce")
    assert np.ptp(x) < 0.02 and np.ptp(y) > 0.35 and y.max() > 0.8
    assert np.sum((np.diff(y)[:-1] > 0) & (np.diff(y)[1:] <= 0)) >= 2


def test_two_shapes_stand_to_each_other_as_the_action_says(tmp_path):
    gaps, shifts = {}, {}
    for action in ("orbit", "approach", "leave", "chase", "push", "pass"):
        main, other = paths(tmp_path, action)
        gap = np.hypot((main[0] - other[0]) * 4 / 3, main[1] - other[1])
        gaps[action], shifts[action] = gap[2:-3], np.ptp(other[0][2:-3])
    assert np.ptp(gaps["orbit"]) < 0.12
    assert gaps["approach"][-1] < 0.45 * gaps["approach"][0] and np.ptp(gaps["approach"][-5:]) < 0.02
    assert gaps["leave"][-1] > 2 * gaps["leave"][0]
    assert min(gaps["pass"][0], gaps["pass"][-1]) > 1.3 * gaps["pass"].min()
    assert shifts["chase"] > 0.4 and shifts["push"] > 0.1
    assert max(shifts[action] for action in ("orbit", "approach", "leave", "pass")) < 0.02


def test_sizes_are_as_different_as_their_names():
    areas = {}
    for size in ("small", "medium", "large"):
        scene = Scene(Actor("square", "cyan", size), "slide_right", Backdrop("gradient", "gray"))
        middle = list(draw_scene(scene, 24, 12, SIZE_PX, (1,)))[12]
        areas[size] = color_masks(middle[None])["cyan"].sum()
    assert areas["medium"] > 2 * areas["small"] and areas["large"] > 2 * areas["medium"]


def test_every_shape_and_every_pattern_has_a_look_of_its_own():
    def still(shape, pattern):
        scene = Scene(Actor(shape, "white", "large"), "grow", Backdrop(pattern, "gray"))
        return list(draw_scene(scene, 8, 12, SIZE_PX, (1,)))[-1].astype(float)

    by_shape = [still(shape, "gradient") > 200 for shape in SHAPES]
    by_pattern = [still("circle", pattern) for pattern in PATTERNS]
    for looks, least in ((by_shape, 0.015), (by_pattern, 5.0)):
        for index, first in enumerate(looks):
            assert all(np.abs(first * 1.0 - second * 1.0).mean() > least for second in looks[:index])


def test_stripes_run_as_they_are_called():
    def varies(pattern, axis):
        scene = Scene(Actor("star", "red", "small"), "fade", Backdrop(pattern, "navy"))
        last = list(draw_scene(scene, 12, 12, SIZE_PX, (4,)))[-1].astype(float)
        return np.ptp(last, axis=axis).max() > 1

    assert varies("vertical_stripes", 1) and not varies("vertical_stripes", 0)
    assert varies("horizontal_stripes", 0) and not varies("horizontal_stripes", 1)


def test_every_action_can_be_drawn_with_every_size_it_allows():
    for name, action in ACTIONS.items():
        for size in action.sizes:
            other = OTHER if action.needs_other else None
            scene = Scene(Actor("cross", "yellow", size), name, Backdrop("checks", "teal"), other)
            frames = list(draw_scene(scene, 24, 12, (72, 96), (2,)))
            assert len(frames) == 24 and frames[0].shape == (72, 96, 3) and frames[0].dtype == np.uint8
            yellow = color_masks(np.stack(frames))["yellow"].sum((1, 2))
            assert np.median(yellow) > 20 or name in {"blink", "fade"}, (name, size)
            assert caption(scene, random.Random(0))
