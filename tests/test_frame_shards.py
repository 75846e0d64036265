"""Shards of frames from their plans, for real: drawn clips in; runs of JPEG members, receipts and losses out."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import av
import numpy as np
import pytest

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.media.sampling import decode_jpeg
from gex_pipeline.ray_scorer import VideoToScore, frames_to_score
from gex_pipeline.shard_format import split_run
from gex_pipeline.shard_job import build_shard
from tests.faults.damaged_media import NOISE
from tests.media.making_clips import make_clip, number_of, numbers_in, read_number
from tests.test_shard_job import CLIP_FRAMES, NUMBERS, build, build_summaries, folder, losses, media, recipe, samples

__all__ = ["folder"]
FRAMES = {"num": 6, "short_side_px": 32}
BESIDE = {**FRAMES, "beside": True}
OF_CLIPS = {"a": ["a-0", "a-1", "a-2", "a-3", "a-4"], "b": ["b-0", "b-1", "b-2"]}


def lvlt(frames, **more):
    return {"operation": "integrate", "from": "SVST", "min_clips": 3, "frames": frames, **more}


def lvst(**more):
    return {"operation": "compress_text", "from": "LVLT", "summarizer": {"backend": "extractive"}, **more}


def run_of(made, row, start="media") -> bytes:
    offset, size = row[f"{start}_offset_bytes"], row[f"{start}_size_bytes"]
    return storage.read_range(f"{made.output_uri}/{row['media_uri']}", offset, size)


def numbers(run: bytes) -> list[int]:
    return [read_number(decode_jpeg(jpeg)) for jpeg in split_run(run)]


def expected(source: str, num: int = 6) -> list[int]:
    """What the frames in the middle of equal spans of a joined video say."""
    shown = [number_of(NUMBERS[name], frame) for name in OF_CLIPS[source] for frame in range(CLIP_FRAMES)]
    return [shown[(2 * number + 1) * len(shown) // (2 * num)] for number in range(num)]


def test_frames_stand_in_the_video_s_place_and_are_read_by_one_range(folder):
    made = recipe(folder, {"SVST": {}, "LVLT": lvlt(FRAMES)})
    _, (result,) = build(made)
    assert (result.num_samples, result.num_lost) == (2, 0)
    with tarfile.open(f"{made.output_uri}/LVLT/LVLT-000000.tar") as archive:
        names = archive.getnames()
        facts = {name[:32]: json.loads(archive.extractfile(name).read()) for name in names if name.endswith("json")}
    endings = [*(f"f{number:03d}.jpg" for number in range(6)), "txt", "json"]
    assert names == [f"{key}.{kind}" for key in sorted(facts) for kind in endings]
    for row in samples(made):
        assert (row["media_extension"], row["media_uri"]) == ("frames", "LVLT/LVLT-000000.tar")
        assert (row["frames_offset_bytes"], row["frames_size_bytes"]) == (None, None)
        assert numbers(run_of(made, row)) == expected(row["source_id"])
        described = {"num": 6, "short_side_px": 32, "quality": 90, "width_px": 48, "height_px": 32}
        assert row["frames"] == facts[row["key"]]["frames"] == described
        assert (row["width_px"], row["height_px"], row["codec"], row["made_by"]) == (96, 64, "h264", "copy")
        assert row["duration_s"] == pytest.approx(len(row["parents"]) * 0.48, abs=1e-6)


def test_frames_stand_behind_the_video_where_both_are_wanted(folder):
    made = recipe(folder, {"SVST": {}, "LVLT": lvlt(BESIDE)})
    build(made)
    plain = recipe(folder, output="plain")
    build(plain)
    videos = {row["key"]: media(plain, row, folder / "x.mp4").read_bytes() for row in samples(plain)}
    with tarfile.open(f"{made.output_uri}/LVLT/LVLT-000000.tar") as archive:
        endings = [name.partition(".")[2] for name in archive.getnames()][:9]
    assert endings == ["mp4", *(f"f{number:03d}.jpg" for number in range(6)), "txt", "json"]
    for row in samples(made):
        assert row["media_extension"] == "mp4"
        assert media(made, row, folder / "x.mp4").read_bytes() == videos[row["key"]]
        assert numbers(run_of(made, row, "frames")) == expected(row["source_id"])


def test_the_same_recipe_gives_the_same_bytes(folder):
    made = recipe(folder, {"SVST": {}, "LVLT": lvlt(BESIDE)})
    job, _ = build(made)
    tar = Path(f"{made.output_uri}/LVLT/LVLT-000000.tar")
    before = hashlib.sha256(tar.read_bytes()).hexdigest()
    tar.unlink()
    build_shard(job, 0)
    assert hashlib.sha256(tar.read_bytes()).hexdigest() == before


@pytest.mark.parametrize("video", ["embed", "reference"])
@pytest.mark.parametrize("frames", [FRAMES, BESIDE], ids=["alone", "beside"])
def test_a_summary_passes_on_what_its_parent_has(folder, frames, video):
    made = recipe(folder, {"SVST": {}, "LVLT": lvlt(frames), "LVST": lvst(video=video)})
    build(made)
    build_summaries(made, folder, "LVLT")
    parents = {row["key"]: row for row in samples(made)}
    with tarfile.open(f"{made.output_uri}/LVST/LVST-000000.tar") as archive:
        members = {name: archive.extractfile(name).read() for name in archive.getnames()}
    for row in samples(made, "LVST"):
        long = parents[row["parents"][0]]
        assert (row["media_extension"], row["frames"]) == (long["media_extension"], long["frames"])
        own = [name for name in members if name.startswith(row["key"])]
        assert len(own) == (2 if video == "reference" else 8 if frames is FRAMES else 9)
        start = "media" if frames is FRAMES else "frames"
        assert split_run(run_of(made, row, start)) == split_run(run_of(made, long, start))
        assert numbers(run_of(made, row, start)) == expected(row["source_id"])
        assert row["media_uri"] == ("LVLT" if video == "reference" else "LVST") + row["media_uri"][4:]
        facts = json.loads(members[f"{row['key']}.json"])
        assert facts["frames"] == row["frames"]
        if video == "reference":
            place = {"shard": long["media_uri"]} | {k: long[f"media_{k}"] for k in ("offset_bytes", "size_bytes")}
            names = ("frames_offset_bytes", "frames_size_bytes") if frames is BESIDE else ()
            assert facts["video"] == place | {name: long[name] for name in names}
        if frames is BESIDE:
            assert run_of(made, row) == run_of(made, long)


def test_a_summary_may_have_frames_of_its_own(folder):
    made = recipe(folder, {"SVST": {}, "LVLT": lvlt(BESIDE), "LVST": lvst(frames={"num": 3, "short_side_px": 64})})
    build(made)
    build_summaries(made, folder, "LVLT")
    for row in samples(made, "LVST"):
        assert (row["media_extension"], row["made_by"]) == ("frames", "embed")
        assert numbers(run_of(made, row)) == expected(row["source_id"], 3)
        assert row["frames"] == {"num": 3, "short_side_px": 64, "quality": 90, "width_px": 96, "height_px": 64}


def test_videos_are_joined_out_of_samples_that_have_frames_beside_them(folder):
    granularity = {
        "SVST": {},
        "LVLT": {**lvlt(BESIDE), "min_clips": 2, "max_clips": 2},
        "LONG": {"operation": "integrate", "from": "LVLT", "min_clips": 2},
    }
    made = recipe(folder, granularity)
    build(made)
    build(made, "LONG")
    (row,) = samples(made, "LONG")
    assert (row["frames"], row["media_extension"]) == (None, "mp4")
    shown = [number_of(NUMBERS[name], frame) for name in OF_CLIPS["a"][:4] for frame in range(CLIP_FRAMES)]
    assert numbers_in(media(made, row, folder / "x.mp4")) == shown


def test_packed_clips_can_be_frames_and_their_damage_costs_themselves(folder):
    (folder / "clips/a-1.mp4").write_bytes(b"")
    made = recipe(folder, {"SVST": {"pack": True, "frames": FRAMES}})
    _, (result,) = build(made, "SVST")
    assert (result.num_samples, losses(made, "SVST")) == (7, {"a-1": "media_empty"})
    for row in samples(made, "SVST"):
        clip = NUMBERS[row["text"].removeprefix("caption of ")]
        assert numbers(run_of(made, row)) == [number_of(clip, frame) for frame in (1, 3, 5, 7, 9, 11)]


def spoil_inside(path: Path) -> None:
    """Overwrite half of a packet; its header stays, so that only a decoder sees it."""
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][5]
        start, end = packet.pos + packet.size // 2, packet.pos + packet.size
    content = bytearray(path.read_bytes())
    content[start:end] = b"\xff" * (end - start)
    path.write_bytes(content)


def test_a_frame_that_does_not_decode_rejects_its_sample_and_those_lost_before_keep_their_reasons(folder):
    (folder / "clips/a-4.mp4").write_bytes(b"")
    spoil_inside(make_clip(folder / "clips/a-2.mp4", NUMBERS["a-2"], NOISE))
    plain = recipe(folder, output="plain")
    build(plain)
    assert losses(plain) == {"a-4": "media_empty"}  # its packets are there: nothing but a decoder sees it
    made = recipe(folder, {"SVST": {}, "LVLT": lvlt({"num": 60, "short_side_px": 32})})
    _, (result,) = build(made)
    assert result.num_samples == 1
    assert losses(made) == {"a-4": "media_empty"} | dict.fromkeys(OF_CLIPS["a"][:4], "undecodable")


def test_a_parent_s_run_that_is_damaged_fails_the_shard_by_name(folder):
    made = recipe(folder, {"SVST": {}, "LVLT": lvlt(FRAMES), "LVST": lvst()})
    build(made)
    tar = Path(f"{made.output_uri}/LVLT/LVLT-000000.tar")
    content = bytearray(tar.read_bytes())
    content[:512] = b"x" * 512
    tar.write_bytes(content)
    with pytest.raises(GexError, match=r"LVLT-000000.tar': the run of frames has a damaged header at byte 0"):
        build_summaries(made, folder, "LVLT")


@pytest.mark.parametrize("frames", [FRAMES, BESIDE], ids=["alone", "beside"])
def test_scores_of_videos_are_taken_of_what_the_sample_has(folder, frames):
    made = recipe(folder, {"SVST": {}, "LVLT": lvlt(frames)})
    build(made)
    for row in samples(made):
        place = (row["media_offset_bytes"], row["media_size_bytes"], row["media_extension"])
        video = VideoToScore(f"{made.output_uri}/{row['media_uri']}", *place, "long", "short")
        seen = [read_number(picture) for picture in frames_to_score(video, 3)]
        # of the frames alone, those in the middle of equal parts of what there is
        assert seen == (expected(row["source_id"])[1::2] if frames is FRAMES else expected(row["source_id"], 3))


def test_readers_of_others_see_one_sample_with_its_frames(folder):
    webdataset, wids = pytest.importorskip("webdataset"), pytest.importorskip("wids")
    made = recipe(folder, {"SVST": {}, "LVLT": lvlt(BESIDE)})
    build(made)
    tar = f"{made.output_uri}/LVLT/LVLT-000000.tar"
    found = {one["__key__"]: one for one in webdataset.WebDataset(tar, shardshuffle=False)}
    rows = {row["key"]: row for row in samples(made)}
    assert found.keys() == rows.keys()
    endings = {"mp4", "txt", "json", *(f"f{number:03d}.jpg" for number in range(6))}
    for key, one in found.items():
        assert {name for name in one if not name.startswith("__")} == endings
        said = [read_number(decode_jpeg(one[f"f{number:03d}.jpg"])) for number in range(6)]
        assert said == expected(rows[key]["source_id"])
    listed = wids.ShardListDataset([{"url": tar, "nsamples": 2}], cache_dir=str(folder / "wids"))
    assert len(listed) == 2
    for one in listed:
        assert {name for name in one if not name.startswith("__")} == {f".{kind}" for kind in endings}
        picture = one[".f003.jpg"]
        picture = np.asarray(picture if not hasattr(picture, "read") else decode_jpeg(picture.read()))
        assert read_number(picture) == expected(rows[one["__key__"]]["source_id"])[3]
