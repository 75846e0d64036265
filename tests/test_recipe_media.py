"""Where a recipe has its clips; what a granularity is made of: videos, frames, images; what random groups refuse."""

from __future__ import annotations

import pytest

from gex_pipeline.errors import RecipeError
from gex_pipeline.recipe import make_recipe
from tests.making_runs import clip_row, recipe_of, run_ingest, write_jsonl
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


@pytest.mark.parametrize("name", ["my {x} data", "a}b", "{YoutubeID}", "{{}}", "[2024] a%20b?"])
@pytest.mark.parametrize("uri", ["clips/{YoutubeID}.mp4", "./clips//{YoutubeID}.mp4", "../{{x}}/{YoutubeID}.mp4"])
def test_braces_in_the_name_of_the_recipe_s_folder_are_no_fields(tmp_path, name, uri):
    folder = tmp_path / name
    write_jsonl(folder / "clips.jsonl", [clip_row("v1")])
    _, (clip,), _ = run_ingest(recipe_of(folder, {"media": {"kind": "files", "uri": uri}}))
    expected = f"{folder}/../{{x}}/v1.mp4" if uri[:2] == ".." else f"{folder}/clips/v1.mp4"
    assert clip["media_uri"] == expected


def test_a_template_that_cannot_be_read_is_shown_as_it_was_written(tmp_path):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row("v1")])
    with pytest.raises(
        RecipeError, match=r"source.media: the template 'a\}b/\{YoutubeID\}.mp4' cannot be read: Single"
    ):
        run_ingest(recipe_of(tmp_path, {"media": {"kind": "files", "uri": "a}b/{YoutubeID}.mp4"}}))


@pytest.mark.parametrize("uri", ["/data/{YoutubeID}.mp4", "s3://bucket//{YoutubeID}.mp4"])
def test_a_template_of_its_own_place_is_taken_as_it_is(tmp_path, uri):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row("v1")])
    _, (clip,), _ = run_ingest(recipe_of(tmp_path, {"media": {"kind": "files", "uri": uri}}))
    assert clip["media_uri"] == uri.replace("{YoutubeID}", "v1")
