"""What a granularity can be made of: videos, frames, images; and what groups without time refuse."""

from __future__ import annotations

import pytest

from gex_pipeline.errors import RecipeError
from gex_pipeline.recipe import make_recipe
from tests.test_recipe import BASE

FRAMES = {"num": 4, "short_side_px": 32}


def with_nodes(**nodes):
    return make_recipe({**BASE, "granularity": nodes})


def lvlt(**more):
    return {"operation": "integrate", "from": "SVST", **more}


def lvst(**more):
    return {"operation": "compress_text", "from": "LVLT", "summarizer": {"backend": "extractive"}, **more}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({"SVST": {"frames": FRAMES}}, r"granularity.SVST: .*there are none of the clips; say pack = true"),
        (
            {"SVST": {}, "IT": {"operation": "compress_video", "from": "SVST", "frames": FRAMES}},
            "granularity.IT: 'frames' are sampled from videos, and compress_video makes images; leave it out",
        ),
        (
            {"SVST": {}, "LVLT": lvlt(frames=FRAMES), "LONG": {"operation": "integrate", "from": "LVLT"}},
            r"\[granularity.LONG\]: integrate needs videos, and LVLT holds frames only; say beside = true in ",
        ),
        (
            {"SVST": {}, "LVLT": lvlt(frames=FRAMES), "IT": {"operation": "compress_video", "from": "LVLT"}},
            r"\[granularity.IT\]: compress_video needs videos, and LVLT holds frames only",
        ),
        (
            {"SVST": {}, "LVLT": lvlt(frames=FRAMES), "LVST": lvst(frames=FRAMES)},
            r"\[granularity.LVST\]: .* LVLT holds frames only; leave 'frames' out to pass on those of LVLT",
        ),
        (
            {"SVST": {}, "LVLT": lvlt(), "LVST": lvst(frames=FRAMES, video="reference")},
            "granularity.LVST: video = 'reference' points to the parent's media, frames too",
        ),
        (
            {"SVST": {}, "LVLT": lvlt(frames={**FRAMES, "besides": True})},
            "frames.besides: unknown key; did you mean 'b",
        ),
        ({"SVST": {}, "LVLT": lvlt(frames={"num": 0, "short_side_px": 32})}, r"granularity.LVLT.frames.num = 0: "),
        ({"SVST": {}, "LVLT": lvlt(frames={"num": 8})}, "granularity.LVLT.frames.short_side_px: missing"),
    ],
)
def test_frames_that_cannot_be_are_refused_with_what_to_do(nodes, message):
    with pytest.raises(RecipeError, match=message):
        with_nodes(**nodes)


IT = {"operation": "compress_video", "from": "SVST"}


def of_images(operation, **more):
    return {"operation": operation, "from": "IT", **more}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            {"SLIDES": of_images("integrate")},
            r"\[granularity.SLIDES\]: integrate needs videos, and IT holds images; make it .* from = 'SVST'",
        ),
        (
            {"IT2": of_images("compress_video")},
            r"\[granularity.IT2\]: compress_video needs videos, and IT holds images",
        ),
        (
            {"ITS": lvst(**{"from": "IT"}), "SLIDES": of_images("integrate") | {"from": "ITS"}},
            r"\[granularity.SLIDES\]: integrate needs videos, and ITS holds images; .* from = 'SVST'",
        ),
        (
            {"ITS": lvst(**{"from": "IT"}, frames=FRAMES)},
            r"\[granularity.ITS\]: frames are sampled from videos, and IT holds images; leave 'frames' out",
        ),
    ],
)
def test_what_needs_videos_is_not_made_of_images(nodes, message):
    """Slides joined from middle frames were planned, and every single one was rejected at the end of a run."""
    with pytest.raises(RecipeError, match=message):
        with_nodes(SVST={}, IT=IT, **nodes)


def test_images_may_be_summarised_and_made_of_what_was_summarised():
    nodes = {"LVST": lvst(), "IT": IT | {"from": "LVST"}, "ITS": lvst(**{"from": "IT"})}
    recipe = with_nodes(SVST={}, LVLT=lvlt(), **nodes)
    assert [name for name in recipe.granularity if recipe.holds_images(name)] == ["IT", "ITS"]


def test_random_groups_refuse_what_only_time_could_keep():
    """They were taken and did nothing."""
    for more, message in (
        ({"max_gap_s": 2}, "granularity.LVLT.?: by = 'random' has no gaps .*, found max_gap_s = 2; leave it out"),
        ({"max_gap_s": 0}, "found max_gap_s = 0; leave it out"),
        ({"overlap": "reject"}, "by = 'random' looks at no overlaps, found overlap = 'reject'; leave it out"),
    ):
        with pytest.raises(RecipeError, match=message):
            with_nodes(SVST={}, LVLT=lvlt(by="random", **more))
        assert with_nodes(SVST={}, LVLT=lvlt(by="Channel", **more)).granularity["LVLT"].by == "Channel"
    assert with_nodes(SVST={}, LVLT=lvlt(by="random", max_gap_s=None, overlap="keep")).hash


def test_frames_are_passed_on_with_the_media_and_stay_out_of_what_is_made_of_clips():
    long = {"operation": "integrate", "from": "LVLT"}
    recipe = with_nodes(SVST={"pack": True, "frames": FRAMES}, LVLT=lvlt(frames=FRAMES), LVST=lvst())
    assert [recipe.holds_frames_only(name) for name in ("SVST", "LVLT", "LVST")] == [True] * 3
    recipe = with_nodes(SVST={}, LVLT=lvlt(frames={**FRAMES, "beside": True}), LVST=lvst(), LONG=long)
    assert [recipe.holds_frames_only(name) for name in recipe.granularity] == [False] * 4
    assert recipe.frames_of("LVST") == recipe.granularity["LVLT"].frames
    assert recipe.frames_of("LONG") is None


def test_frames_are_part_of_the_hash_and_their_absence_is_not():
    plain = with_nodes(SVST={}, LVLT=lvlt())
    hashes = {plain.hash}
    for frames in (FRAMES, {**FRAMES, "num": 5}, {**FRAMES, "beside": True}, {**FRAMES, "quality": 80}):
        hashes.add(with_nodes(SVST={}, LVLT=lvlt(frames=frames)).hash)
    assert len(hashes) == 5
    stated = with_nodes(SVST={}, LVLT=lvlt(frames={**FRAMES, "quality": 90, "beside": False}))
    assert stated.hash == with_nodes(SVST={}, LVLT=lvlt(frames=FRAMES)).hash
