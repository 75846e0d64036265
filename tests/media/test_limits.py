"""What small files may stand for, how long they may take, and that one bad piece costs itself only."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from gex_pipeline.errors import Reason, RejectedError
from gex_pipeline.media.frames import frame_at, middle_frame_jpeg, sample_frames
from gex_pipeline.media.join import Piece, Probed, UnusablePiecesError, join_pieces, probe_pieces
from gex_pipeline.media.outline import read_outline
from gex_pipeline.media.poster import poster_jpeg
from gex_pipeline.media.probe import probe_video
from gex_pipeline.media.sampling import sample_jpegs
from gex_pipeline.media.settings import FrameSettings, VideoSettings
from gex_pipeline.media.source import open_video
from tests.faults.damaged_media import MOOV_LAST, OPEN_GOP, clip_from_second_key
from tests.faults.mp4_boxes import STBL, box, change, children, find, full, with_samples
from tests.media.making_clips import Make, make_clip, number_of, numbers_in, run_real_ffmpeg

FAST = VideoSettings(preset="ultrafast", crf=12)


def probed(paths: list[Path], settings: VideoSettings = FAST) -> list[Probed]:
    results = probe_pieces([Piece(path, None, None) for path in paths], settings)
    assert all(isinstance(result, Probed) for result in results), results
    return results


def rejected(path: Path, settings: VideoSettings = FAST) -> RejectedError:
    with pytest.raises(RejectedError) as caught:
        probe_video(path, settings)
    return caught.value


@pytest.mark.parametrize(
    ("name", "make", "count"),
    [
        ("a.mp4", Make(num_frames=30), 30),
        ("b.mp4", Make(num_frames=30, movflags="+frag_keyframe+empty_moov", options={"g": "10"}), 30),
        ("c.mp4", Make(num_frames=25, tone_hz=440), 48),  # the sound has more packets than the video frames
    ],
)
def test_the_index_is_counted_before_libav_makes_room_for_it(tmp_path: Path, name: str, make: Make, count: int) -> None:
    path = make_clip(tmp_path / name, 1, make)
    assert read_outline(path).num_indexed == count
    assert probe_video(path, VideoSettings(max_frames=count)).num_frames == make.num_frames
    error = rejected(path, VideoSettings(max_frames=count - 1))
    assert error.reason is Reason.media_too_large
    assert f"promises {count} frames or packets, more than max_frames = {count - 1}" in error.detail


def test_raw_sound_has_a_sample_for_each_value_and_is_no_long_index(tmp_path: Path) -> None:
    path, raw = make_clip(tmp_path / "a.mp4", 1, Make(num_frames=25, tone_hz=440)), tmp_path / "raw.mov"
    run_real_ffmpeg("-i", path, "-c:v", "copy", "-c:a", "pcm_s16le", raw)
    assert read_outline(raw).num_indexed == 25
    assert probe_video(raw, VideoSettings(max_frames=25)).has_audio


def test_a_thousand_million_samples_in_three_kilobytes_cost_no_memory_and_no_time(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 1, MOOV_LAST)
    path.write_bytes(with_samples(path.read_bytes(), 1_000_000_000, 1, 1))
    assert path.stat().st_size < 5000
    began_s = time.process_time()
    assert rejected(path).reason is Reason.media_too_large
    assert time.process_time() - began_s < 1


def test_whatever_opens_a_video_asks_what_its_index_promises(tmp_path: Path) -> None:
    """A file of 800 bytes that says 40 million samples took 1.45 GB where frames were shown or trained on."""
    path = make_clip(tmp_path / "a.mp4", 1, MOOV_LAST)
    path.write_bytes(with_samples(path.read_bytes(), 1_000_000_000, 1, 1))
    for look in (
        lambda: sample_frames(path, 1),
        lambda: frame_at(path, 0.0),
        lambda: middle_frame_jpeg(path, FAST),
        lambda: sample_jpegs(path, FrameSettings(num=1, short_side_px=16), 60.0),
        lambda: poster_jpeg(path.open("rb"), 0.0, 16),
    ):
        with pytest.raises(RejectedError, match="its index promises 1000000000 frames or packets"):
            look()


def test_an_index_behind_an_unknown_box_or_in_fragments_is_counted_too(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 1, MOOV_LAST)
    content = with_samples(path.read_bytes(), 1_000_000_000, 1, 1)
    at = content.index(b"moov") - 4
    for kind in (b"abcd", b"udta"):
        path.write_bytes(content[:at] + struct.pack(">I", 8) + kind + content[at:])
        assert rejected(path).reason is Reason.media_too_large
    for first in (b"udta", b"abcd"):  # libav passes over what it does not know; here that hid the index
        path.write_bytes(struct.pack(">I", 8) + first + content)
        assert rejected(path).reason is Reason.media_too_large
    make_clip(path, 1, Make(num_frames=25, movflags="+frag_keyframe+empty_moov"))
    whole = path.read_bytes()
    run = whole.index(b"trun") + 8
    path.write_bytes(whole[:run] + struct.pack(">I", 2_000_000_000) + whole[run + 4 :])
    assert rejected(path).reason is Reason.media_too_large


@pytest.mark.parametrize(
    "kind", ["stts", "stss", "ctts", "stsc", "stco", "co64", "stsz", "stz2"], ids=lambda kind: f"the-{kind}-table"
)
def test_a_table_that_says_more_than_its_box_holds_costs_its_clip_only(tmp_path: Path, kind: str) -> None:
    """One flipped bit in a count made libav ask for gigabytes, and its MemoryError ended the shard for ever."""
    good = make_clip(tmp_path / "good.mp4", 1)
    path = make_clip(tmp_path / "a.mp4", 2, MOOV_LAST)
    content = with_table(path.read_bytes(), kind)
    path.write_bytes(content)
    assert probe_video(path, FAST).num_frames == 25, "the table is one that libav reads"
    at = content.index(kind.encode()) + 4 + (8 if kind in ("stsz", "stz2") else 4)
    path.write_bytes(content[:at] + b"\x20" + content[at + 1 :])
    damaged, sound = probe_pieces([Piece(path, None, None), Piece(good, None, None)], FAST)
    assert isinstance(sound, Probed)
    assert isinstance(damaged, RejectedError)
    assert damaged.reason is Reason.undecodable
    assert f"its index is damaged: the table {kind} says it has 5368" in damaged.detail


@pytest.mark.parametrize(("kind", "depth"), [("mdia", 3000), ("stbl", 3000), ("traf", 3000), ("minf", 11)])
def test_boxes_that_lie_in_each_other_without_end_cost_their_clip_only(tmp_path: Path, kind: str, depth: int) -> None:
    """24 kB of them ended the shard with a RecursionError at every run, and no clip was named."""
    nested = b""
    for _ in range(depth):
        nested = box(kind, nested)
    head = box("ftyp", b"isom\0\0\2\0isomiso2mp41")
    index = box("moov", box("trak", b"" if kind == "traf" else nested))
    path = tmp_path / "a.mp4"
    path.write_bytes(head + index + (box("moof", nested) if kind == "traf" else b"") + box("mdat", b"x" * 100))
    assert rejected(path).detail == "its index is damaged: 11 boxes lie in each other"


def test_a_matroska_header_longer_than_a_disk_costs_its_clip_only(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(b"\x1a\x45\xdf\xa3\x01" + b"\xff" * 6 + b"\xfe" + b"x" * 50)
    error = rejected(path)
    assert (error.reason, "the EBML header is cut" in error.detail) == (Reason.media_truncated, True)


def with_table(content: bytes, kind: str) -> bytes:
    """The clip with this table, which may be one that its writer did not choose."""
    numbers = struct.unpack(f">{len(find(content, *STBL, 'stco')) // 4 - 2}I", find(content, *STBL, "stco")[8:])
    sizes = struct.unpack(">25I", find(content, *STBL, "stsz")[12:])
    if kind == "co64":
        large = struct.pack(f">II{len(numbers)}Q", 0, len(numbers), *numbers)
        return change(content, STBL, lambda stbl: _exchanged(stbl, "stco", "co64", large))
    if kind == "stz2":
        small = struct.pack(">III25H", 0, 16, 25, *sizes)
        return change(content, STBL, lambda stbl: _exchanged(stbl, "stsz", "stz2", small))
    return content


def _exchanged(stbl: bytes, old: str, new: str, payload: bytes) -> bytes:
    return b"".join(box(new, payload) if kind == old else box(kind, own) for kind, own in children(stbl))


def test_what_libav_cannot_make_room_for_costs_its_clip_only(tmp_path: Path) -> None:
    """Wherever the count stands: a MemoryError of libav's is the file's fault, and was the whole shard's."""
    path = make_clip(tmp_path / "a.mp4", 1, MOOV_LAST)
    hidden = box("stts", full(0x2000_0000, 25, 512))  # where no writer puts it, and libav reads it all the same
    path.write_bytes(change(path.read_bytes(), (*STBL[:-1], "dinf"), lambda dinf: dinf + hidden))
    for header_only in (False, True):
        with (
            pytest.raises(RejectedError, match="libav cannot make room for it") as caught,
            open_video(path, header_only=header_only),
        ):
            pass
        assert caught.value.reason is Reason.media_too_large
    for look in (lambda: probe_video(path, FAST), lambda: middle_frame_jpeg(path, FAST)):
        with pytest.raises(RejectedError, match="the table stts says it has 536870912 entries"):  # before libav sees it
            look()


HIDING: dict[str, Callable[[bytes, bytes, bytes], bytes]] = {
    "an index called free": lambda head, mvhd, trak: head + box("free", mvhd + trak),
    "an index called hoov": lambda head, mvhd, trak: head + box("hoov", mvhd + trak),
    "an index in the index": lambda head, mvhd, trak: head + box("moov", mvhd + box("moov", trak)),
    "a track beside the index": lambda head, mvhd, trak: head + box("moov", mvhd) + trak,
    "a track of user data": lambda head, mvhd, trak: head + box("moov", mvhd + box("udta", trak)),
    "what a track has as its user data": lambda head, mvhd, trak: (
        head + box("moov", mvhd + box("trak", trak[8:].replace(b"mdia", b"udta", 1)))
    ),
}


@pytest.mark.parametrize("where", HIDING)
def test_an_index_that_libav_finds_where_no_writer_puts_it_is_counted(tmp_path: Path, where: str) -> None:
    """Opening such a file of 800 bytes took 1.4 GB, before it was refused or not."""
    path = make_clip(tmp_path / "a.mp4", 1, MOOV_LAST)
    content = with_samples(path.read_bytes(), 1_000_000_000, 1, 1)
    head, moov = content[: content.index(b"moov") - 4], find(content, "moov")
    mvhd, trak = (box(kind, find(moov, kind)) for kind in ("mvhd", "trak"))
    path.write_bytes(HIDING[where](head, mvhd, trak))
    assert read_outline(path).num_indexed == 1_000_000_000
    assert rejected(path).reason is Reason.media_too_large


@pytest.mark.parametrize(("wide", "high"), [(0x7FFF_FFFF, 1), (30_000, 1), (1_000, 1), (1, 1_000)])
def test_pixels_of_an_absurd_shape_cost_their_clip_only(tmp_path: Path, wide: int, high: int) -> None:
    """A flipped bit made pictures a hundred thousand million pixels wide: an OverflowError, which no stage expects.

    Where they were the first of a sample, all others were to be written as wide, which no encoder does.
    """
    path, oblong = make_clip(tmp_path / "a.mp4", 1), tmp_path / "oblong.mp4"
    run_real_ffmpeg("-i", path, "-vf", "setsar=2", "-crf", "12", oblong)
    whole = oblong.read_bytes()
    at = whole.index(b"pasp") + 4
    oblong.write_bytes(whole[:at] + struct.pack(">II", wide, high) + whole[at + 8 :])
    if high > 1:
        assert probe_video(oblong, FAST).width_px == 1
        return
    for look in (probe_video, middle_frame_jpeg):
        with pytest.raises(RejectedError, match=f"are shown with {wide * 96} x 64 pixels; .* 16384 a side") as caught:
            look(oblong, FAST)
        assert caught.value.reason is Reason.media_too_large


def test_edits_are_counted_by_their_box_as_libav_does(tmp_path: Path) -> None:
    """An edit list that said it had one edit showed the clip as often as its box had room for."""
    path = make_clip(tmp_path / "a.mp4", 1, MOOV_LAST)
    edits = struct.pack(">IiI", 1000, 0, 0x10000) * 5
    for said in (0, 1, 5, 1 << 31):
        elst = box("elst", full(said) + edits)
        path.write_bytes(change(path.read_bytes(), ("moov", "trak", "edts"), lambda _, elst=elst: elst))
        assert read_outline(path).num_indexed == 125
        assert rejected(path, VideoSettings(max_frames=124)).reason is Reason.media_too_large


def test_an_edit_list_without_room_for_its_own_head_has_no_edits(tmp_path: Path) -> None:
    """The number of its edits came out below nothing, and the rest of the file was read as edits."""
    path = make_clip(tmp_path / "a.mp4", 1, MOOV_LAST)
    content = path.read_bytes()
    for num_bytes in (0, 2, 7):
        path.write_bytes(change(content, ("moov", "trak", "edts"), lambda _, num=num_bytes: box("elst", bytes(num))))
        assert read_outline(path).num_indexed == 25


def test_a_compressed_index_is_not_read(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 1, MOOV_LAST)
    path.write_bytes(change(path.read_bytes(), ("moov",), lambda moov: struct.pack(">I", 8) + b"cmov" + moov))
    error = rejected(path)
    assert error.reason is Reason.not_a_video
    assert "cmov" in error.detail


def test_a_clip_much_longer_than_its_metadata_is_not_that_clip(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 1, Make(num_frames=50))
    settings = VideoSettings(max_excess_s=1)
    fits, not_it = probe_pieces([Piece(path, None, 1.0), Piece(path, None, 0.9)], settings)
    assert isinstance(fits, Probed)
    assert isinstance(not_it, RejectedError)
    assert not_it.reason is Reason.duration_mismatch
    assert "claims 0.900 s, the file holds 2.000 s (max_excess_s = 1)" in not_it.detail
    cut = probe_pieces([Piece(path, (0.5, 0.9), 0.4)], settings)[0]
    assert isinstance(cut, Probed)


@pytest.mark.parametrize("force_encode", [False, True])
def test_a_sample_larger_than_the_limit_is_refused_and_leaves_nothing(tmp_path: Path, force_encode: bool) -> None:
    noise = np.random.default_rng(3)
    make = Make(num_frames=5, turn=lambda picture: noise.integers(0, 255, picture.shape, np.uint8))
    pieces = probed([make_clip(tmp_path / f"{clip}.mp4", clip, make) for clip in range(3)])
    (tmp_path / "out").mkdir()
    settings = VideoSettings(max_sample_bytes=50_000, force_encode=force_encode, crf=1, preset="ultrafast")
    with pytest.raises(RejectedError, match="max_sample_bytes = 50000") as caught:
        join_pieces(pieces, tmp_path / "out/out.mp4", settings)
    assert caught.value.reason is Reason.media_too_large
    assert not isinstance(caught.value, UnusablePiecesError)
    assert list((tmp_path / "out").iterdir()) == []
    assert join_pieces(pieces, tmp_path / "out/out.mp4", settings.model_copy(update={"max_sample_bytes": 500_000}))


def test_pieces_that_cannot_be_encoded_are_named_and_the_others_can_be_joined(tmp_path: Path) -> None:
    """Two files are damaged after they were probed, with what a probe would have found left out."""
    paths = [make_clip(tmp_path / f"{clip}.mp4", clip) for clip in range(5)]
    pieces = probed(paths)
    for index in (0, 3):
        paths[index].write_bytes(b"\0" * 4000)
    with pytest.raises(UnusablePiecesError, match="Invalid data found") as caught:
        join_pieces(pieces, tmp_path / "out.mp4", VideoSettings(force_encode=True, preset="ultrafast"))
    assert {index: error.reason for index, error in caught.value.rejected.items()} == dict.fromkeys(
        (0, 3), Reason.not_a_video
    )
    assert list(tmp_path.glob("out.mp4*")) == list(tmp_path.glob(".pieces-*")) == []
    joined = join_pieces([pieces[1], pieces[2], pieces[4]], tmp_path / "out.mp4", FAST)
    assert numbers_in(joined.path) == [number_of(clip, frame) for clip in (1, 2, 4) for frame in range(12)]


def test_the_time_limit_grows_with_the_length_beyond_a_minute() -> None:
    settings = VideoSettings(timeout_s=30)
    assert [settings.time_limit_s(duration_s) for duration_s in (0.1, 60, 90, 3600)] == [30, 30, 45, 1800]


def test_decoding_every_frame_and_looking_for_one_have_a_time_limit(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 1, Make(num_frames=60))
    error = rejected(path, VideoSettings(check="decode", timeout_s=1e-6))
    assert error.reason is Reason.ffmpeg_timeout
    assert "of 60 frames were decoded in 1e-06 s" in error.detail
    with pytest.raises(RejectedError, match="not decoded in 1e-06 s") as caught:
        middle_frame_jpeg(path, VideoSettings(timeout_s=1e-6))
    assert caught.value.reason is Reason.ffmpeg_timeout


def test_a_clip_that_begins_between_key_frames_is_not_copied(tmp_path: Path) -> None:
    """Its first picture does not make the decoder forget the clip before it."""
    for clip in (1, 2):
        clip_from_second_key(tmp_path / f"{clip}.mp4", clip)
    pieces = probed([tmp_path / "1.mp4", tmp_path / "2.mp4"])
    assert [piece.probe.starts_clean for piece in pieces] == [False, False]
    assert probed([make_clip(tmp_path / "3.mp4", 3, Make(options=OPEN_GOP))])[0].probe.starts_clean
    joined = join_pieces(pieces, tmp_path / "out.mp4", FAST)
    assert numbers_in(joined.path) == [number_of(clip, frame) for clip in (1, 2) for frame in range(8, 25)]


def test_parameters_inside_the_packets_must_be_those_of_the_header(tmp_path: Path) -> None:
    """A copy would show the clips after it with them."""
    path = make_clip(tmp_path / "a.mp4", 1, Make(options={"preset": "ultrafast", "x264-params": "repeat-headers=1"}))
    same = probe_video(path, FAST)
    assert same.starts_clean
    whole = path.read_bytes()
    sps = find(whole, *STBL, "stsd")
    record = sps[sps.index(b"avcC") + 4 :]
    units = record[8 : 8 + int.from_bytes(record[6:8], "big")]
    at = whole.rindex(units)
    assert at != whole.index(units)
    spoiled = bytearray(whole)
    spoiled[at + 3] += 1  # the level
    path.write_bytes(spoiled)
    assert not probe_video(path, FAST).starts_clean


def test_pictures_without_any_time_do_not_count_as_a_clip(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 1, MOOV_LAST)
    path.write_bytes(change(path.read_bytes(), (*STBL, "stts"), lambda _: full(1, 25, 0)))
    (result,) = probe_pieces([Piece(path, None, 1.0)], FAST)
    assert isinstance(result, RejectedError)
    assert result.reason is Reason.duration_mismatch


def test_sound_of_an_absurd_rate_is_silence(tmp_path: Path) -> None:
    """At one value a second, a packet of a megabyte would be resampled to a hundred gigabytes."""
    path, slow = make_clip(tmp_path / "a.mp4", 1, Make(num_frames=25)), tmp_path / "slow.mkv"
    (tmp_path / "values.raw").write_bytes(bytes(200_000))
    run_real_ffmpeg(
        *("-i", path, "-f", "s16le", "-ar", "48000", "-i", tmp_path / "values.raw", "-map", "0:v", "-map", "1:a"),
        *("-c:v", "copy", "-c:a", "pcm_s16le", slow),
    )
    content = slow.read_bytes()
    rate = b"\xb5\x88" + struct.pack(">d", 48_000)
    assert content.count(rate) == 1
    slow.write_bytes(content.replace(rate, b"\xb5\x88" + struct.pack(">d", 1)))
    settings = VideoSettings(audio="keep")
    joined = join_pieces(probed([slow], settings), tmp_path / "out.mp4", settings)
    with av.open(str(joined.path)) as container:
        assert container.streams.audio
    assert joined.duration_s == pytest.approx(1, abs=0.05)
