"""Frames in shards: what `verify` finds about them, with and without a digest that vouches for the bytes."""

from __future__ import annotations

import io
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from PIL import Image

from gex_pipeline.shard_format import Frames
from tests.report import outputs
from tests.shards import damage
from tests.shards.damage import ALPHA, BETA

LVLT, LVST = "LVLT/LVLT-000000.tar", "LVST/LVST-000000.tar"


@pytest.fixture
def framed(output):
    """The samples of an output whose LVLT was written anew with frames, and how to write others in their place."""
    samples = damage.framed_samples(output)

    def write(change=lambda jpegs: jpegs, **facts):
        changed = [
            (record, jpegs) if record is samples[1][0] else (replace(record, **facts), change(jpegs))
            for record, jpegs in samples
        ]
        damage.replace_shard(output, "LVLT", changed)

    write()
    return write


def smaller(jpeg: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(jpeg)).resize((8, 8)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_nothing_is_wrong_with_whole_frames(verify, output, framed):
    assert verify(output, "--deep").content["findings"] == []
    assert verify(damage.tar(output, "LVLT")).content["findings"] == []


def test_a_frame_too_few_or_of_another_size_is_told(verify, output, framed):
    framed(lambda jpegs: jpegs[:-1])
    (finding,) = verify(output).findings("frames")
    assert (finding["key"], finding["found"], finding["expected"]) == (
        ALPHA.key,
        "number of frames 4",
        "number of frames 5",
    )
    framed(lambda jpegs: (*jpegs[:2], smaller(jpegs[2]), *jpegs[3:]))
    (finding,) = verify(output).findings("frames")
    assert finding["found"] == "size in px of frame 2 (8, 8)"


def test_frames_that_are_not_told_of_are_too_many(verify, output, framed):
    framed(frames=None)
    assert verify(output).findings("frames")[0]["found"] == "number of frames 5"


def test_a_frame_in_the_middle_that_does_not_decode_is_found_when_every_one_is_looked_at(verify, output, framed):
    framed(lambda jpegs: (*jpegs[:2], jpegs[2][:-12], *jpegs[3:]))
    assert verify(output).code == 0  # the digest is that of what was written
    (finding,) = verify(output, "--deep").findings("frames")
    assert (finding["key"], finding["found"].startswith("frame 2: OSError")) == (ALPHA.key, True)
    framed(lambda jpegs: (*jpegs[:-1], b"no picture"))
    (finding,) = verify(output).findings("frames")
    assert finding["found"] == "frame 4: UnidentifiedImageError"
    framed(lambda jpegs: (*jpegs[:-1], damage.png_that_says_it_is(60_000, 60_000)))
    (finding,) = verify(output).findings("frames")
    assert finding["found"] == "frame 4: UnidentifiedImageError", "only a JPEG is a frame"


def test_bytes_that_went_wrong_in_a_frame_are_found_without_being_asked(verify, output, framed):
    offset, size = damage.member_offset(damage.tar(output, "LVLT"), f"{BETA.key}.f002.jpg")
    with damage.tar(output, "LVLT").open("r+b") as tar:
        tar.seek(offset)
        tar.write(bytes(size))
    assert verify(output).checks(BETA.key) == {"frames": {LVLT}}


def test_frames_of_other_clips_are_told_apart_when_looking_deep(verify, output, framed):
    framed(lambda jpegs: jpegs[::-1])
    assert verify(output).code == 0
    found = {finding["found"].partition(" differs by")[0] for finding in verify(output, "--deep").findings("joint")}
    assert "sampled (number 4) frame of segment 2" in found


def test_frames_out_of_their_order_or_place_are_told(verify, output, framed):
    members = damage.read_members(damage.tar(output, "LVLT"))
    at = [name for name, _ in members].index(f"{ALPHA.key}.f001.jpg")
    members[at], members[at + 1] = members[at + 1], members[at]
    damage.write_members(damage.tar(output, "LVLT"), members)
    (finding,) = verify(output).findings("place")
    assert (finding["key"], "not side by side in order" in finding["found"]) == (ALPHA.key, True)


def test_a_receipt_that_says_other_frames_than_the_json_is_told(verify, output, framed):
    frames = {"num": 5, "short_side_px": 99, "quality": 90, "width_px": 32, "height_px": 24}
    damage.change_receipt(output, "LVLT", ALPHA.key, frames=frames)
    assert "json" in verify(output).checks(ALPHA.key)


def test_referenced_frames_are_verified_where_they_lie(verify, output, framed):
    rows = {row["key"]: row for row in pq.read_table(output / "LVLT/LVLT-000000.parquet").to_pylist()}
    names = ("media_uri", "media_offset_bytes", "media_size_bytes", "media_extension")
    short = []
    for number, record in enumerate((ALPHA, BETA)):
        summary = outputs.summary_of(record, {name: pair[number] for name, pair in outputs.SCORES.items()})
        place = {name: rows[record.key][name] for name in names}
        frames = Frames(**rows[record.key]["frames"])
        short.append((replace(summary, made_by="reference", frames=frames, **place), b""))
    damage.replace_shard(output, "LVST", short)
    assert verify(output, "--deep").content["findings"] == []
    tar = damage.tar(output, "LVLT")
    content = bytearray(tar.read_bytes())
    content[rows[ALPHA.key]["media_offset_bytes"]] ^= 0xFF
    tar.write_bytes(content)
    key = next(record.key for record, _ in short if record.source_id == "alpha")
    assert verify(output, "--granularity", "LVST").checks(key) == {"reference": {LVST}}
