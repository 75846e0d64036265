from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest

from gex_pipeline.shard_format import (
    DamagedRunError,
    Frames,
    Receipt,
    SampleRecord,
    Segment,
    ShardWriter,
    frame_extension,
    frame_number,
    is_key,
    iter_run,
    make_key,
    shard_name,
    split_run,
)

KEYS = [make_key("LVLT", [f"clip{number}"]) for number in range(5)]


class _Pieces(io.BytesIO):
    """What was asked of it at a time."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.sizes: list[int] = []

    def read(self, size: int | None = -1) -> bytes:
        self.sizes.append(size)
        return super().read(size)


def test_a_stream_is_copied_in_pieces_that_are_worth_a_request_each(tmp_path):
    """Out of an object store, 16 kB at a time were sixteen times the requests."""
    stream = _Pieces(bytes(9_000_000))
    with ShardWriter(tmp_path / "a.tar") as writer:
        span = writer.add_stream("a.mp4", stream, 9_000_000)
    assert span.size_bytes == 9_000_000
    assert stream.sizes == [4 << 20, 4 << 20, 9_000_000 - (8 << 20)]


def record_of(key: str, **more) -> SampleRecord:
    segment = Segment("clip0", "v.1", 0.0, 2.5, 10.0, 12.5, "Ein Hund läuft.")
    values = {
        "key": key,
        "granularity": "LVLT",
        "source_id": "v.1",
        "parents": ("clip0",),
        "segments": (segment,),
        "text": "Ein Hund läuft. 犬 👨‍👩‍👧",
        "duration_s": 2.5,
        "width_px": 96,
        "height_px": 64,
        "fps": 25.0,
        "codec": "h264",
        "made_by": "copy",
    }
    return SampleRecord(**(values | more))


def write(path, keys=KEYS):
    media = path.parent / "media.bin"
    spans = {}
    with ShardWriter(path) as writer:
        for number, key in enumerate(keys):
            content = bytes([number]) * (number * 511 + number)  # empty, short, just over and around a block
            media.write_bytes(content)
            spans[f"{key}.mp4"] = (writer.add_file(f"{key}.mp4", media), content)
            text = f"caption {number}".encode()
            spans[f"{key}.txt"] = (writer.add_bytes(f"{key}.txt", text), text)
            extra = record_of(key).to_json("hash")
            spans[f"{key}.json"] = (writer.add_stream(f"{key}.json", io.BytesIO(extra + b"rest"), len(extra)), extra)
    return writer, spans


def test_every_span_says_where_its_bytes_lie(tmp_path):
    _, spans = write(tmp_path / "x.tar")
    content = (tmp_path / "x.tar").read_bytes()
    assert len(spans) == 15
    for span, expected in spans.values():
        assert content[span.offset_bytes : span.offset_bytes + span.size_bytes] == expected


def test_tarfile_reads_the_members_in_order_with_a_fixed_header(tmp_path):
    _, spans = write(tmp_path / "x.tar")
    with tarfile.open(tmp_path / "x.tar") as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == list(spans)
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
        for member in members:
            assert archive.extractfile(member).read() == spans[member.name][1]
            assert member.offset_data == spans[member.name][0].offset_bytes


def test_equal_input_gives_equal_bytes_and_the_digest_is_that_of_the_file(tmp_path):
    first, _ = write(tmp_path / "a.tar")
    second, _ = write(tmp_path / "b.tar")
    content = (tmp_path / "a.tar").read_bytes()
    assert content == (tmp_path / "b.tar").read_bytes()
    assert first.sha256 == second.sha256 == hashlib.sha256(content).hexdigest()
    assert first.num_bytes == len(content)


def test_other_input_gives_another_digest(tmp_path):
    first, _ = write(tmp_path / "a.tar")
    second, _ = write(tmp_path / "b.tar", list(reversed(KEYS)))
    assert first.sha256 != second.sha256


def test_webdataset_reads_a_shard_with_no_code_of_ours(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    _, spans = write(tmp_path / "x.tar")
    samples = list(webdataset.WebDataset(str(tmp_path / "x.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == KEYS
    for sample in samples:
        assert sample["mp4"] == spans[f"{sample['__key__']}.mp4"][1]
        assert json.loads(sample["json"])["key"] == sample["__key__"]


def test_wids_reads_a_shard_with_no_code_of_ours(tmp_path):
    wids = pytest.importorskip("wids")
    _, _spans = write(tmp_path / "x.tar")
    shard = {"url": str(tmp_path / "x.tar"), "nsamples": len(KEYS)}
    index = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": "x", "shardlist": [shard]}
    (tmp_path / "index.json").write_text(json.dumps(index))
    data = wids.ShardListDataset(str(tmp_path / "index.json"), cache_dir=str(tmp_path / "cache"))
    assert len(data) == 5
    assert data[3]["__key__"] == KEYS[3]


@pytest.mark.parametrize("sizes", [[1], [0, 511, 512, 513, 5000]])
def test_a_run_is_the_range_from_the_first_frame_s_header_to_the_last_one_s_padding(tmp_path, sizes):
    pictures = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    with ShardWriter(tmp_path / "x.tar") as writer:
        writer.add_bytes(f"{KEYS[0]}.txt", b"before")
        span = writer.add_run(KEYS[1], pictures)
        after = writer.add_bytes(f"{KEYS[1]}.txt", b"after")
    content = (tmp_path / "x.tar").read_bytes()
    run = content[span.offset_bytes : span.offset_bytes + span.size_bytes]
    assert span.offset_bytes == 1024
    assert after.whole.offset_bytes == span.offset_bytes + span.size_bytes
    assert split_run(run) == pictures
    with tarfile.open(tmp_path / "x.tar") as archive:
        members = [item for item in archive if item.name.endswith(".jpg")]
    assert [item.name for item in members] == [f"{KEYS[1]}.f{number:03d}.jpg" for number in range(len(sizes))]
    with (tmp_path / "x.tar").open("rb") as stream:
        stream.seek(span.offset_bytes)
        found = [one.offset_bytes + span.offset_bytes for one in iter_run(stream, span.size_bytes)]
    assert found == [item.offset_data for item in members]


def test_what_is_no_whole_run_says_where(tmp_path):
    with ShardWriter(tmp_path / "x.tar") as writer:
        span = writer.add_run(KEYS[0], [b"one", b"two"])
        writer.add_bytes(f"{KEYS[0]}.json", b"{}")
    content = (tmp_path / "x.tar").read_bytes()
    assert split_run(b"") == []
    with pytest.raises(DamagedRunError, match="damaged header at byte 0: "):
        split_run(b"x" * 1024)
    with pytest.raises(DamagedRunError, match=r"damaged header at byte 1024: "):
        split_run(content[:1100])
    with pytest.raises(DamagedRunError, match=r"holds '[0-9a-f]{32}.f001.jpg', which is no whole frame of it"):
        split_run(content[: span.size_bytes - 1])
    with pytest.raises(DamagedRunError, match=r"holds '[0-9a-f]{32}.json', which is no whole frame of it"):
        split_run(content[: span.size_bytes + 1024])
    backwards = tarfile.TarInfo("a.f000.jpg")
    backwards.size = -512  # the next header would be this one again, for ever
    with pytest.raises(DamagedRunError, match=r"holds 'a\.f000\.jpg', which is no whole frame of it"):
        next(iter_run(io.BytesIO(backwards.tobuf(tarfile.GNU_FORMAT)), 512))


def test_frames_are_numbered_by_their_extension():
    assert [frame_extension(number) for number in (0, 7, 999)] == ["f000.jpg", "f007.jpg", "f999.jpg"]
    assert [frame_number(text) for text in ("f000.jpg", "f999.jpg", "f1000.jpg")] == [0, 999, 1000]
    assert [frame_number(text) for text in ("jpg", "f00.jpg", "f000.png", "xf000.jpg", "f000.jpg.x")] == [None] * 5


def test_the_json_says_what_the_frames_are_and_where_referenced_ones_lie():
    frames = Frames(num=32, short_side_px=256, quality=90, width_px=455, height_px=256)
    said = json.loads(record_of(KEYS[0], frames=frames).to_json("hash"))
    assert said["frames"] == vars(frames)
    assert "video" not in said
    assert "frames" not in json.loads(record_of(KEYS[0]).to_json("hash"))
    place = {"media_uri": "LVLT/x.tar", "media_offset_bytes": 512, "media_size_bytes": 9}
    beside = record_of(KEYS[0], frames=frames, **place, frames_offset_bytes=1024, frames_size_bytes=2048)
    assert json.loads(beside.to_json("hash"))["video"] == {
        "shard": "LVLT/x.tar",
        "offset_bytes": 512,
        "size_bytes": 9,
        "frames_offset_bytes": 1024,
        "frames_size_bytes": 2048,
    }


def test_keys_are_hex_and_hold_no_dot():
    key = make_key("LVLT", ["a.b:c/d", "ü"])
    assert is_key(key)
    assert len(key) == 32
    assert not set(key) & set(".:/")
    assert key == hashlib.sha256("LVLT\na.b:c/d\nü".encode()).hexdigest()[:32]


def test_a_key_depends_on_granularity_parents_and_their_order():
    keys = {make_key("A", ["1", "2"]), make_key("A", ["2", "1"]), make_key("B", ["1", "2"]), make_key("A", ["1"])}
    assert len(keys) == 4


@pytest.mark.parametrize(
    "text", ["", "a" * 31, "a" * 33, "A" * 32, "g" * 32, "a" * 32 + "\n", "a" * 16 + "." + "a" * 15]
)
def test_what_is_no_key_is_not_taken_for_one(text):
    assert not is_key(text)


def test_the_json_member_says_everything_about_a_sample():
    content = json.loads(record_of(KEYS[0], scores={"rouge1": 0.5}).to_json("abc"))
    assert content["key"] == KEYS[0]
    assert content["parents"] == ["clip0"]
    assert content["segments"] == [
        {
            "clip_id": "clip0",
            "source_id": "v.1",
            "offset_s": 0.0,
            "duration_s": 2.5,
            "start_s": 10.0,
            "end_s": 12.5,
            "text": "Ein Hund läuft.",
        }
    ]
    assert content["recipe_hash"] == "abc"
    assert content["scores"] == {"rouge1": 0.5}
    assert content["num_words"] == 5
    assert content["text_digest"] == hashlib.sha256("Ein Hund läuft. 犬 👨‍👩‍👧".encode()).hexdigest()
    assert not {"source_text_digest", "video"} & set(content)
    assert {"duration_s", "width_px", "height_px", "fps", "codec", "made_by", "granularity", "source_id"} <= set(
        content
    )


def test_the_json_of_a_referenced_summary_says_where_its_video_is():
    record = record_of(
        KEYS[0], source_text_digest="d", media_uri="LVLT/x.tar", media_offset_bytes=512, media_size_bytes=9
    )
    content = json.loads(record.to_json("abc"))
    assert content["source_text_digest"] == "d"
    assert content["video"] == {"shard": "LVLT/x.tar", "offset_bytes": 512, "size_bytes": 9}


def test_equal_samples_have_equal_json_whatever_the_order_of_their_scores():
    one, two = record_of("k", scores={"a": 1.0, "b": 2.0}), record_of("k", scores={"b": 2.0, "a": 1.0})
    assert one.to_json("h") == two.to_json("h")


def test_shards_are_named_by_granularity_and_number():
    assert shard_name("LVLT", 12) == "LVLT-000012"
    assert Receipt("LVLT", 12, "p", "r", 1, 1, "s").name == "LVLT-000012"
