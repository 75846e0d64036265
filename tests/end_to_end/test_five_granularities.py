"""A graph of the user's own: videos of videos by channel, their summaries, and what the pictures show."""

from __future__ import annotations

import pytest

from tests.end_to_end.running import (
    NO_MODELS,
    differ,
    expand_to,
    frames_of,
    metadata_of,
    source_table,
    write_metadata,
    write_recipe,
)

BODY = """
[granularity.SVST]
[granularity.LVLT]
operation = "integrate"
from = "SVST"
[granularity.LVST]
operation = "compress_text"
from = "LVLT"
summarizer = { backend = "extractive" }
gates = {}
video = "reference"
[granularity.XVXT]
operation = "integrate"
from = "LVLT"
by = "Channel"
min_clips = 2
[granularity.XVST]
operation = "compress_text"
from = "XVXT"
summarizer = { backend = "extractive" }
gates = {}
[granularity.XI]
operation = "compress_video"
from = "XVXT"
"""
CHANNELS = {"lzm8v_D9W90": "one", "-whkHrSQl47": "two", "zidFQNXBVCi": "one", "FIfI749p1zA": "two", "VFJ82b2k5x_": None}


@pytest.fixture(scope="module")
def five(running, corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("five")
    rows = [row | {"Channel": CHANNELS[row["YoutubeID"]]} for row in metadata_of(corpus)]
    clips = write_metadata(folder / "clips.jsonl", rows)
    return expand_to(write_recipe(folder, source_table(corpus, clips) + NO_MODELS + BODY))


def test_videos_of_one_channel_are_joined_and_the_others_have_their_reasons(five):
    (sample,) = five.samples("XVXT")
    long = five.by_source("LVLT")
    assert sample["parents"] == [long["lzm8v_D9W90"]["key"], long["zidFQNXBVCi"]["key"]]
    assert [segment["source_id"] for segment in sample["segments"]] == ["lzm8v_D9W90"] * 4 + ["zidFQNXBVCi"] * 7
    assert five.account("XVXT")["excluded"] == {"too_few_clips": 1, "missing_group_value": 1}
    assert sample["duration_s"] == pytest.approx(sum(long[s]["duration_s"] for s in ("lzm8v_D9W90", "zidFQNXBVCi")))
    assert sample["text"] == f"{long['lzm8v_D9W90']['text']} {long['zidFQNXBVCi']['text']}"


def test_the_longer_text_is_summarised_too(five):
    (long,), (short,) = five.samples("XVXT"), five.samples("XVST")
    assert short["parents"] == [long["key"]]
    assert short["source_text_digest"] == long["text_digest"]
    assert len(short["text"].split()) <= 30 < len(long["text"].split())
    assert five.members("XVST")[short["key"]]["mp4"] == five.members("XVXT")[long["key"]]["mp4"]


@pytest.mark.parametrize("granularity", ["LVLT", "XVXT"])
def test_every_segment_begins_and_ends_with_the_pictures_of_its_clip(five, corpus, granularity):
    files = {row["clip_id"]: corpus / "clips" / row["media_uri"].rsplit("/", 1)[1] for row in five.table("clips")}
    members = five.members(granularity)
    for sample in five.samples(granularity):
        assert sample["made_by"] == "copy"
        joined = frames_of(members[sample["key"]]["mp4"])
        num_frames = 0
        for segment in sample["segments"]:
            clip = frames_of(files[segment["clip_id"]])
            first = round(segment["offset_s"] * sample["fps"])
            assert first == num_frames
            # The packets are the clip's own, so the decoded pictures are too.
            assert differ(joined[first], clip[0]) == 0
            assert differ(joined[first + len(clip) - 1], clip[-1]) == 0
            num_frames += len(clip)
        assert len(joined) == num_frames


def test_a_referenced_video_is_found_in_its_parents_shard(five):
    long = five.members("LVLT")
    for row in five.samples("LVST"):
        assert set(five.members("LVST")[row["key"]]) == {"txt", "json"}
        with (five.folder / row["media_uri"]).open("rb") as tar:
            tar.seek(row["media_offset_bytes"])
            assert tar.read(row["media_size_bytes"]) == long[row["parents"][0]]["mp4"]
