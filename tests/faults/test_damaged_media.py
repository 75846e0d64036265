"""Damaged, awkward and hostile media through the whole flow, once copied and once encoded; then many looks at it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests.end_to_end.running import NO_MODELS, Output, expand_to, write_metadata, write_recipe
from tests.faults.damaged_media import FPS, NUM_CLIPS, NUM_FRAMES, SECRET, Kind, clip_of, kinds, make_corpus
from tests.media.making_clips import pitch_hz, read_number, sound_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

KINDS = kinds(Path("secret.mp4"))
MIN_CLIPS = 4
WAYS = {
    "copy": '[video]\naudio = "keep"\npreset = "ultrafast"\n',
    "encode": '[video]\naudio = "keep"\npreset = "ultrafast"\ncrf = 12\nforce_encode = true\ncheck = "decode"\n',
}
BODY = '[granularity.SVST]\n[granularity.LVLT]\noperation = "integrate"\nfrom = "SVST"\n'
IT = '[granularity.IT]\noperation = "compress_video"\nfrom = "SVST"\n'
ENCODED = [name for name, kind in KINDS.items() if not kind.reason or "garbage" in name]  # the others cost time only
CASES = [*(("copy", name) for name in KINDS), *(("encode", name) for name in ENCODED)]
COPIED = {"good", "truncated", "html", "garbage", "cover", "late-start", "index-last", "fragments", "open-gop"}


@dataclass(frozen=True)
class Shown:
    """One joined video as a stranger decodes it: what each picture says, and when it is shown."""

    row: dict[str, Any]
    times_s: np.ndarray
    numbers: list[int]
    path: Path

    def in_segment(self, position: int) -> list[int]:
        segment = self.row["segments"][position]
        start_s = segment["offset_s"] - 0.001
        inside = (self.times_s >= start_s) & (self.times_s < start_s + segment["duration_s"])
        return [self.numbers[index] for index in np.flatnonzero(inside)]


@pytest.fixture(scope="module")
def flow(running, tmp_path_factory):
    """The output of both ways, and what each of their videos shows, by source."""
    folder = tmp_path_factory.mktemp("damaged")
    clips, _ = make_corpus(folder)
    rows = [json.loads(line) for line in clips.read_text(encoding="utf-8").splitlines()]
    again = write_metadata(folder / "again.jsonl", [row for row in rows if row["Caption"].split()[0] in ENCODED])
    media = f'media = {{ kind = "column", column = "file", root = "{folder}/clips" }}'
    found = {}
    for way, video in WAYS.items():
        source = f'[source]\nclips = "{clips if way == "copy" else again}"\n{media}\n{NO_MODELS}'
        recipe = write_recipe(folder / way, source + video + BODY + (IT if way == "copy" else ""))
        output = expand_to(recipe)
        found[way] = (output, {row["source_id"]: shown(output, row, folder) for row in output.samples("LVLT")})
    return found


def shown(output: Output, row: dict[str, Any], folder: Path) -> Shown:
    path = folder / f"{row['key']}.mp4"
    with (output.folder / row["media_uri"]).open("rb") as tar:
        tar.seek(row["media_offset_bytes"])
        path.write_bytes(tar.read(row["media_size_bytes"]))
    times_s, numbers = [], []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                continue  # damage that was copied; the pictures after it have to be whole again
            times_s += [frame.time for frame in frames]
            numbers += [read_number(frame.to_ndarray(format="rgb24")) for frame in frames]
    assert times_s == sorted(set(times_s))
    return Shown(row, np.array(times_s), numbers, path)


def reason_of(kind: Kind, way: str) -> str | None:
    return kind.decoded or kind.reason if way == "encode" else kind.reason


def used_of(name: str, way: str) -> list[int]:
    """Positions of the clips that are in the sample."""
    kind = KINDS[name]
    return [position for position in range(NUM_CLIPS) if position not in kind.at or not reason_of(kind, way)]


@pytest.mark.parametrize(("way", "name"), CASES)
def test_a_bad_clip_is_lost_for_its_own_reason_and_takes_no_other_with_it(flow, name, way):
    output, _ = flow[way]
    kind, used = KINDS[name], used_of(name, way)
    expected = {f"{name} {position}": reason_of(kind, way) for position in kind.at if reason_of(kind, way)}
    if len(used) < MIN_CLIPS:
        expected |= {f"{name} {position}": "too_few_clips" for position in used}
    for granularity in ("LVLT", "IT") if way == "copy" else ("LVLT",):
        losses = {
            json.loads(row["row"])["text"]: row["reason"]
            for row in output.table("rejects")
            if row["granularity"] == granularity and row["source_id"] == f"{name}-source"
        }
        if granularity == "IT":
            expected = {text: reason for text, reason in expected.items() if reason != "too_few_clips"}
        assert losses == expected


@pytest.mark.parametrize(("way", "name"), [case for case in CASES if len(used_of(case[1], case[0])) >= MIN_CLIPS])
def test_what_is_joined_shows_the_right_pictures_in_the_right_order(flow, name, way):
    """First, middle and last picture of every segment say their clip and their place in it."""
    sample = flow[way][1][f"{name}-source"]
    kind, used = KINDS[name], used_of(name, way)
    segments = sample.row["segments"]
    assert [segment["text"] for segment in segments] == [f"{name} {position}" for position in used]
    end_s = 0.0
    for index, (position, segment) in enumerate(zip(used, segments, strict=True)):
        assert segment["offset_s"] == pytest.approx(end_s, abs=1e-5)
        end_s += segment["duration_s"]
        is_kind = position in kind.at
        num_frames = kind.num_frames if is_kind else NUM_FRAMES
        assert segment["duration_s"] == pytest.approx(num_frames / FPS, abs=0.5 / FPS)
        if is_kind and not kind.readable:
            continue
        first, middle, last = kind.frames if is_kind and kind.frames else (0, NUM_FRAMES // 2, NUM_FRAMES - 1)
        seen = sample.in_segment(index)
        assert len(seen) == num_frames
        assert {number >> 8 for number in seen} == {clip_of(name, position, KINDS)}
        assert [seen[at] & 255 for at in (0, len(seen) // 2, -1)] == [first, middle, last]
        assert [number & 255 for number in seen] == sorted(number & 255 for number in seen)
    assert sample.row["duration_s"] == pytest.approx(end_s, abs=1e-4)
    assert sample.times_s[-1] + 1 / FPS == pytest.approx(end_s, abs=1 / FPS)


def test_packets_are_copied_where_clips_go_together_and_encoded_where_not(flow):
    _, videos = flow["copy"]
    made_by = {name: videos[f"{name}-source"].row["made_by"] for name in KINDS if f"{name}-source" in videos}
    whole = {name for name, kind in KINDS.items() if kind.reason}  # good clips are left over
    sound = {"some-sound", "all-sound", "garbage-inside", "cover-first", "hours-in-header", "one-frame"}
    assert {name for name, way in made_by.items() if way == "copy"} == COPIED | sound | (whole & set(made_by))
    _, videos = flow["encode"]
    assert {video.row["made_by"] for video in videos.values()} == {"encode"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "at"), [("some-sound", (0, 1, 3)), ("all-sound", range(5)), ("cover", (2,))])
def test_kept_sound_is_silent_where_a_clip_has_none(flow, name, at, way):
    sample = flow[way][1][f"{name}-source"]
    sound = sound_in(sample.path)
    heard = [pitch_hz(sound[round((second + 0.1) * 48_000) : round((second + 0.9) * 48_000)]) for second in range(5)]
    assert heard == pytest.approx([440 if second in at else 0 for second in range(5)], abs=8)
    assert len(sound) / 48_000 == pytest.approx(5, abs=0.05)


def test_a_slow_and_fast_clip_is_shown_in_real_time(flow):
    for way in WAYS:
        sample = flow[way][1]["uneven-source"]
        position = used_of("uneven", way).index(2)
        frames = [number & 255 for number in sample.in_segment(position)]
        for time_s, frame in ((0.06, 0), (0.14, 1), (0.46, 4), (0.54, 6), (0.74, 12), (0.94, 18)):
            assert frames[int(time_s * FPS)] == pytest.approx(frame, abs=1), (way, time_s)


def test_the_image_of_each_clip_shows_its_middle(flow):
    output, _ = flow["copy"]
    members = output.members("IT")
    seen = set()
    for row in output.samples("IT"):
        name, _, position = row["text"].rpartition(" ")
        kind = KINDS[name]
        is_kind = int(position) in kind.at
        seen.add(row["text"])
        if is_kind and not kind.readable:
            continue
        with Image.open(io.BytesIO(members[row["key"]]["jpg"])) as image:
            number = read_number(np.asarray(image.convert("RGB")))
        middle = kind.frames[1] if is_kind and kind.frames else NUM_FRAMES // 2
        assert number >> 8 == clip_of(name, int(position), KINDS)
        assert number & 255 == pytest.approx(middle, abs=1)
    assert seen == {f"{name} {position}" for name in KINDS for position in used_of(name, "copy")}


def test_scripts_and_playlists_show_nothing_of_the_files_they_name(flow):
    for output, videos in flow.values():
        assert not any(number >> 8 == SECRET for video in videos.values() for number in video.numbers)
        for granularity in output.granularities:
            for tar in output.tars(granularity):
                assert b"root:" not in tar.read_bytes()
