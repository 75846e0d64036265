"""Videos, pictures and posters straight out of the tars."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gex_pipeline.browse.media import parse_range
from gex_pipeline.errors import GexError
from tests.end_to_end.object_store import ObjectStore
from tests.report import outputs
from tests.shards import damage
from tests.shards.damage import ALPHA, BETA

ADDRESS = f"/media?granularity=LVLT&key={ALPHA.key}"


@pytest.fixture(scope="module")
def video(whole) -> bytes:
    return damage.media_of(whole, "LVLT", ALPHA.key)


def test_a_video_is_served_as_it_is_in_the_tar(site, video):
    answer = site.ask(ADDRESS)
    assert (answer.status, answer.body == video) == (200, True)
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, None),
        ("bytes=100-299", 100, 300),
        ("bytes=700-999999999", 700, None),
        ("bytes=-50", -50, None),
        ("bytes=-999999999", 0, None),
    ],
)
def test_a_range_has_its_exact_bytes(site, video, header, start, end):
    answer = site.ask(ADDRESS, Range=header)
    expected = video[start:end]
    first = start % len(video)
    assert (answer.status, answer.body == expected) == (206, True)
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(expected) - 1}/{len(video)}"
    assert answer.headers["content-length"] == str(len(expected))


NO_RANGES = ["bytes=5-2", "bytes=-", "lines=1-2", "bytes=0-1,4-5", "bytes=a-b", "bytes=1", f"bytes=0-{'9' * 5000}"]


@pytest.mark.parametrize("header", NO_RANGES)
def test_what_is_no_single_range_gives_the_whole(site, video, header):
    answer = site.ask(ADDRESS, Range=header)
    assert (answer.status, answer.body == video) == (200, True)


def test_a_range_behind_the_end_is_refused(site, video):
    for header in (f"bytes={len(video)}-", "bytes=-0"):
        answer = site.ask(ADDRESS, Range=header)
        assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{len(video)}")
        assert "no byte of" in answer.content["error"]


def test_a_range_of_nothing_is_refused():
    with pytest.raises(GexError, match="no byte of"):
        parse_range("bytes=0-", 0)


def test_head_says_the_same_without_the_bytes(site, video):
    answer = site.ask(ADDRESS, method="HEAD", Range="bytes=10-19")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (206, b"", "10")
    assert site.ask(ADDRESS, method="HEAD").headers["content-length"] == str(len(video))


def test_a_poster_shows_the_middle_of_the_first_segment(site):
    answer = site.ask(f"/poster?granularity=LVLT&key={ALPHA.key}")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg")
    picture = np.asarray(Image.open(io.BytesIO(answer.body)))
    assert picture.shape == (*outputs.SIZE_PX[::-1], 3)
    assert np.abs(picture.mean((0, 1)) - outputs.RED).max() < 16
    again = site.ask(f"/poster?granularity=LVLT&key={ALPHA.key}")
    assert again.body == answer.body


def test_a_picture_is_its_own_poster_and_is_served_as_it_is(site, whole):
    sample = site.json("/api/samples", granularity="IT", sort="key")["samples"][0]
    content = dict(damage.read_members(damage.tar(whole, "IT")))[f"{sample['key']}.jpg"]
    media = site.ask(f"/media?granularity=IT&key={sample['key']}")
    assert (media.body == content, media.headers["content-type"]) == (True, "image/jpeg")
    assert Image.open(io.BytesIO(site.ask(f"/poster?granularity=IT&key={sample['key']}").body)).size == outputs.SIZE_PX


def test_a_video_that_points_into_another_shard_is_followed(browse, output, video):
    parent = next(record for record in _records(output, "LVLT") if record["key"] == ALPHA.key)
    place = {name: parent[name] for name in ("media_uri", "media_offset_bytes", "media_size_bytes")}
    short = [
        (replace(outputs.summary_of(record, {}), made_by="reference", **(place if record is ALPHA else {})), b"video")
        for record in (ALPHA, BETA)
    ]
    damage.replace_shard(output, "LVST", short)
    site = browse(output)
    key = outputs.summary_of(ALPHA, {}).key
    assert site.ask(f"/media?granularity=LVST&key={key}", Range="bytes=5-99").body == video[5:100]
    sample = site.json(f"/api/sample?granularity=LVST&key={key}")
    assert (sample["is_referenced"], sample["media_uri"]) == (True, "LVLT/LVLT-000000.tar")
    assert site.ask(f"/poster?granularity=LVST&key={key}").status == 200


def test_damage_is_told_in_a_sentence_and_stops_nothing_else(browse, output):
    path = damage.tar(output, "LVLT")
    offset, size = damage.member_offset(path, f"{ALPHA.key}.mp4")
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = bytes(size)
    path.write_bytes(content)
    damage.tar(output, "IT").unlink()
    short = damage.tar(output, "LVST")
    short.write_bytes(short.read_bytes()[:1024])
    site = browse(output)
    answer = site.ask(f"/poster?granularity=LVLT&key={ALPHA.key}")
    assert (answer.status, "cannot be read as a video" in answer.content["error"]) == (422, True)
    for name, sentence in (("IT", "its shard IT/IT-000000.tar is missing"), ("LVST", "ends at byte 1024")):
        key = site.json("/api/samples", granularity=name)["samples"][0]["key"]
        for kind, status in (("media", 404), ("poster", 422)):
            answer = site.ask(f"/{kind}?granularity={name}&key={key}")
            assert (answer.status, sentence in answer.content["error"]) == (status, True)
        assert site.json(f"/api/sample?granularity={name}&key={key}")["key"] == key
    assert site.ask(f"/poster?granularity=LVLT&key={BETA.key}").status == 200


def test_damaged_pictures_have_a_sentence_and_damage_beside_a_sound_picture_costs_nothing(browse, output):
    """One of Pillow's ways to say that a picture is damaged, and its trouble with a word of EXIF, were no sentence."""
    records = [record for record, _ in outputs.image_samples(output.parent)]
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8))
    whole = encoded(noise, "PNG")
    second = whole.index(b"IDAT", whole.index(b"IDAT") + 4)
    damaged = {
        "SyntaxError": whole[:second] + b"\xff\0\xff\0" + whole[second + 4 :],
        "DecompressionBombError": damage.png_that_says_it_is(6_001, 6_000),
        "UnidentifiedImageError": encoded(noise, "GIF"),
    }
    contents = [*damaged.values(), *[encoded(noise, "JPEG", exif=TURNED_BY_DAMAGED_EXIF)] * (len(records) - 3)]
    damage.replace_shard(output, "IT", list(zip(records, contents, strict=True)))
    site = browse(output)
    for record, name in zip(records, damaged, strict=False):
        answer = site.ask(f"/poster?granularity=IT&key={record.key}")
        assert (answer.status, answer.content) == (422, {"error": f"its picture cannot be read: {name}"})
    answer = site.ask(f"/poster?granularity=IT&key={records[3].key}")
    assert answer.status == 200, answer.content
    assert Image.open(io.BytesIO(answer.body)).size == (144, 216)


# The picture is to be turned by a quarter, and its width is given as a text.
TURNED_BY_DAMAGED_EXIF = b"".join(
    (
        *(b"Exif\0\0", b"MM\0*", struct.pack(">IH", 8, 2), struct.pack(">HHIHH", 0x112, 3, 1, 6, 0)),
        *(struct.pack(">HHI4s", 0x100, 2, 3, b"ab\0\0"), bytes(4)),
    )
)


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_receipt_that_points_out_of_the_shards_is_not_followed(browse, output):
    (output.parent / "secret.tar").write_bytes(b"secret" * 99)
    samples = [(name, record.key) for name in ("LVLT", "LVST") for record in map(_of(name), (ALPHA, BETA))]
    uris = ("dataset.json", "../secret.tar", "/etc/hostname", "tables/clips-000000.parquet")
    for (name, key), uri in zip(samples, uris, strict=True):
        damage.change_receipt(output, name, key, media_uri=uri, media_offset_bytes=0, media_size_bytes=6)
    site = browse(output)
    for name, key in samples:
        answer = site.ask(f"/media?granularity={name}&key={key}")
        assert (answer.status, "is no shard of this data set" in answer.content["error"]) == (404, True)
        assert site.ask(f"/poster?granularity={name}&key={key}").status == 422


def _of(name):
    return (lambda record: record) if name == "LVLT" else (lambda record: outputs.summary_of(record, {}))


def test_an_output_in_an_object_store_is_browsed_by_range_requests(browse, whole, video):
    from pyarrow import fs

    store = ObjectStore()
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    environment = {**dict.fromkeys(names, "test"), "AWS_ENDPOINT_URL": store.url, "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        remote, base = fs.FileSystem.from_uri(store.make_bucket("browsed"))
        fs.copy_files(str(whole), f"{base}/out", fs.LocalFileSystem(), remote)
    try:
        site = browse("s3://browsed/out", environment=environment)
        assert site.ask(ADDRESS, Range="bytes=20-120").body == video[20:121]
        assert site.ask(f"/poster?granularity=LVLT&key={ALPHA.key}").status == 200
        assert site.json(f"/api/lineage?granularity=LVLT&key={ALPHA.key}")["num_children"] == 1
        assert sum(row["num"] for row in site.json("/api/losses/counts")["counts"]) == 8
        site.stop()
    finally:
        store.close()


def _records(output, name):
    import pyarrow.parquet as pq

    return pq.read_table(output / name / f"{name}-000000.parquet").to_pylist()


def test_answers_are_json_whatever_the_text_holds(site):
    sample = site.json(f"/api/sample?granularity=LVLT&key={ALPHA.key}")
    assert sample["segments"][2]["text"] == outputs.HOSTILE
    assert outputs.HOSTILE in sample["text"]
    assert json.dumps(sample)


@pytest.fixture
def framed(browse, output):
    """A site over an output whose LVLT has frames in place of videos; and the frames of a sample."""
    samples = damage.framed_samples(output)
    damage.replace_shard(output, "LVLT", samples)
    return browse(output), next(jpegs for record, jpegs in samples if record.key == ALPHA.key)


def test_frames_in_the_video_s_place_are_served_one_by_one(framed):
    site, jpegs = framed
    sample = site.json(f"/api/sample?granularity=LVLT&key={ALPHA.key}")
    assert (sample["kind"], sample["frames"]["num"], sample["frames"]["height_px"]) == ("frames", 5, 24)
    for number, jpeg in enumerate(jpegs):
        answer = site.ask(f"{ADDRESS}&frame={number}")
        assert (answer.status, answer.headers["content-type"], answer.body) == (200, "image/jpeg", jpeg)
    made = site.ask(f"/poster?granularity=LVLT&key={ALPHA.key}").body
    poster, middle = (Image.open(io.BytesIO(body)) for body in (made, jpegs[2]))
    assert np.abs(np.asarray(poster).astype(int) - np.asarray(middle)).mean() < 4
    for query, status, sentence in (
        ("&frame=5", 404, "has 5 frames; there is none with number 5"),
        ("&frame=x", 400, "is not a whole number"),
        ("", 404, "has no video or picture"),
    ):
        answer = site.ask(f"{ADDRESS}{query}")
        assert (answer.status, sentence in answer.content["error"]) == (status, True)


def test_a_run_of_frames_that_is_damaged_is_told_in_a_sentence(framed, output):
    site, _ = framed
    tar = damage.tar(output, "LVLT")
    content = bytearray(tar.read_bytes())
    start = content.index(f"{BETA.key}.f000.jpg".encode())
    content[start : start + 300] = bytes(300)
    tar.write_bytes(content)
    answer = site.ask(f"/poster?granularity=LVLT&key={BETA.key}")
    assert (answer.status, "the run of frames" in answer.content["error"]) == (422, True)
    sample = site.json(f"/api/sample?granularity=LVLT&key={BETA.key}")
    assert (sample["frames"]["num"], "the run of frames" in sample["frames"]["error"]) == (0, True)
