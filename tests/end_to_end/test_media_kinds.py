"""Clips in tars, cuts of whole videos, files named in a column; every frame says which clip it is."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest

from tests.end_to_end.running import NO_MODELS, expand_to, frames_of, write_metadata, write_recipe
from tests.media.making_clips import Make, make_clip, number_of, read_number

LVLT = """
[granularity.SVST]
[granularity.LVLT]
operation = "integrate"
from = "SVST"
"""


def clip_rows(source: str, count: int, **more) -> list[dict]:
    return [
        {
            "YoutubeID": source,
            "Start_timestamp": f"00:00:{start:02d}.000",
            "End_timestamp": f"00:00:{start + 1:02d}.000",
            "Caption": f"part {start} of {source}",
            **more,
        }
        for start in range(count)
    ]


def numbers(video: bytes) -> list[int]:
    return [read_number(np.asarray(frame)) for frame in frames_of(video)]


def test_tars_as_video2dataset_writes_them(running, tmp_path):
    rows = [{**row, "key": f"{number:05d}0000{number}"} for number, row in enumerate(clip_rows("tarred00001", 5))]
    (tmp_path / "media").mkdir()
    for shard, part in enumerate((rows[:2], rows[2:])):
        with tarfile.open(tmp_path / f"media/{shard:05d}.tar", "w") as archive:
            for row in part:
                video = make_clip(tmp_path / "clip.mp4", rows.index(row), Make(num_frames=25)).read_bytes()
                texts = {"json": json.dumps({"caption": row["Caption"]}).encode(), "txt": row["Caption"].encode()}
                for extension, content in {**texts, "mp4": video}.items():
                    if row is rows[4] and extension == "mp4":
                        continue  # video2dataset leaves out what it could not fetch
                    member = tarfile.TarInfo(f"{row['key']}.{extension}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    clips = write_metadata(tmp_path / "clips.jsonl", rows)
    source = f'[source]\nclips = "{clips}"\nmedia = {{ kind = "tars", uri = "media/*.tar" }}\n'
    output = expand_to(write_recipe(tmp_path, source + NO_MODELS + LVLT))
    (sample,) = output.samples("LVLT")
    video = output.members("LVLT")[sample["key"]]["mp4"]
    assert numbers(video) == [number_of(clip, frame) for clip in range(4) for frame in range(25)]
    assert output.ingest["rejected"] == {"media_missing": 1}
    assert sample["made_by"] == "copy"


def test_whole_videos_are_cut_at_the_timestamps(running, tmp_path):
    rows = clip_rows("whole000001", 8)
    kept = [rows[index] for index in (1, 2, 4, 7)]
    beyond = {**rows[0], "Start_timestamp": "00:00:20.000", "End_timestamp": "00:00:21.000"}
    make_clip(tmp_path / "whole000001.mp4", 3, Make(num_frames=210))
    clips = write_metadata(tmp_path / "clips.jsonl", [*kept, beyond])
    source = f'[source]\nclips = "{clips}"\nmedia = {{ kind = "videos", uri = "{{YoutubeID}}.mp4" }}\n'
    output = expand_to(write_recipe(tmp_path, source + NO_MODELS + LVLT))
    (sample,) = output.samples("LVLT")
    expected = [number_of(3, second * 25 + frame) for second in (1, 2, 4, 7) for frame in range(25)]
    assert numbers(output.members("LVLT")[sample["key"]]["mp4"]) == expected
    assert sample["duration_s"] == pytest.approx(4.0, abs=0.001)
    assert [segment["offset_s"] for segment in sample["segments"]] == pytest.approx([0, 1, 2, 3], abs=0.001)
    assert output.reasons("LVLT") == {"duration_mismatch": 1}


def test_files_named_in_a_column_and_columns_of_other_names(running, tmp_path):
    rows = [
        {
            "video": "named000001",
            "from": second,
            "to": second + 1.0,
            "text": f"part {second}",
            "file": f"a/{second}.mp4",
        }
        for second in range(5)
    ]
    rows[4]["file"] = "../secret.mp4"
    (tmp_path / "files/a").mkdir(parents=True)
    for second in range(4):
        make_clip(tmp_path / f"files/a/{second}.mp4", second, Make(num_frames=25))
    make_clip(tmp_path / "secret.mp4", 9, Make(num_frames=25))
    clips = write_metadata(tmp_path / "clips.jsonl", rows)
    source = (
        f'[source]\nclips = "{clips}"\nmedia = {{ kind = "column", column = "file", root = "files" }}\n'
        'columns = { source_id = "video", start = "from", end = "to", caption = "text" }\n'
    )
    output = expand_to(write_recipe(tmp_path, source + NO_MODELS + LVLT))
    (sample,) = output.samples("LVLT")
    expected = [number_of(clip, frame) for clip in range(4) for frame in range(25)]
    assert numbers(output.members("LVLT")[sample["key"]]["mp4"]) == expected
    assert sample["text"] == "part 0. part 1. part 2. part 3."
    assert output.ingest["rejected"] == {"unsafe_media_path": 1}
