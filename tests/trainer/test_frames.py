from __future__ import annotations

import io
import struct
import tarfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from gex_pipeline.errors import GexError
from gex_pipeline.media.source import video_track
from gex_pipeline.shard_format import ShardWriter
from tests.faults.damaged_media import MOOV_LAST, turned
from tests.faults.mp4_boxes import with_samples
from tests.media.making_clips import Make, make_clip, number_of, picture_of, run_real_ffmpeg
from tests.trainer.outputs import jpeg_of, numbers_of
from trainer import media_reader, videos
from trainer.catalog import CatalogSample
from trainer.frames import IMAGE_EXTENSIONS, random_places, read_frames, run_frames
from trainer.media_reader import DamagedMediaError, MediaReader
from trainer.videos import VIDEO_FORMATS, video_frames, video_length_s

KEY = "0" * 32


def sample_at(uri: Path | str | None, offset_bytes: int, size_bytes: int, extension: str = "mp4") -> CatalogSample:
    place = None if uri is None else str(uri)
    return CatalogSample(KEY, "LVLT", "s", 1, "text", 1.0, place, offset_bytes, size_bytes, extension)


def whole(path: Path, extension: str = "mp4") -> CatalogSample:
    return sample_at(path, 0, path.stat().st_size, extension)


def middles(num_frames: int, wanted: int) -> list[int]:
    """The frames that are shown in the middle of equal spans."""
    return [(2 * number + 1) * num_frames // (2 * wanted) for number in range(wanted)]


def frames_of(path: Path, wanted: int, size_px: int = 48) -> list[int]:
    return [frame for _, frame in numbers_of(read_frames(whole(path, path.suffix[1:]), wanted, size_px, MediaReader()))]


def write_run(path: Path, numbers: list[int], size_px: tuple[int, int] = (96, 96), key: str = KEY) -> tuple[int, int]:
    """A tar with a run of frames between a text and a JSON member; where the run lies."""
    with ShardWriter(path) as writer:
        writer.add_bytes(f"{key}.txt", b"text")
        run = writer.add_run(key, [jpeg_of(number, size_px) for number in numbers])
        writer.add_bytes(f"{key}.json", b"{}")
    return run.offset_bytes, run.size_bytes


@pytest.mark.parametrize("wanted", [1, 2, 7, 16, 32])
@pytest.mark.parametrize("group_of_pictures", [250, 12, 3])
def test_frames_are_those_in_the_middle_of_equal_spans_wherever_key_frames_are(tmp_path, wanted, group_of_pictures):
    options = {"preset": "ultrafast", "crf": "12", "bf": "3", "g": str(group_of_pictures), "b_strategy": "0"}
    path = make_clip(tmp_path / "a.mp4", 5, Make(num_frames=60, size_px=(96, 96), options=options))
    assert frames_of(path, wanted) == middles(60, wanted)


def test_more_frames_than_there_are_come_more_than_once_in_order(tmp_path):
    path = make_clip(tmp_path / "a.mp4", 1, Make(num_frames=3, size_px=(96, 96)))
    assert frames_of(path, 8) == middles(3, 8) == [0, 0, 0, 1, 1, 2, 2, 2]


def test_time_counts_and_not_the_number_of_frames_where_the_rate_varies(tmp_path):
    times_s = [0.0, 0.02, 0.04, 0.06, 0.5, 1.0, 1.5]
    path = make_clip(tmp_path / "a.mp4", 1, Make(num_frames=7, size_px=(96, 96), times_s=times_s))
    assert frames_of(path, 3)[1:] == [4, 5]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mkv", "libx264", {"g": "10"}),
        ("a.webm", "libvpx", {"cpu-used": "8", "crf": "10"}),
        ("a.avi", "mpeg4", {"bf": "0"}),
        ("a.ts", "libx264", {"g": "10", "bf": "2"}),  # seeks by the time of decoding
        ("a.m2ts", "libx264", {"g": "250", "bf": "2"}),
        ("a.mpg", "mpeg2video", {"g": "12", "bf": "2"}),
        ("a.wmv", "wmv2", {"g": "10"}),  # does not say how long a frame is shown
        ("a.flv", "flv", {"g": "10"}),
        ("a.mp4", "libsvtav1", {"preset": "12", "svtav1-params": "lp=1"}),  # dav1d hears only at first what to skip
    ],
)
def test_other_containers_and_codecs_give_the_same_frames(tmp_path, name, codec, options):
    path = make_clip(
        tmp_path / name, 3, Make(num_frames=30, size_px=(96, 96), codec=codec, options={"b": "2000000", **options})
    )
    assert frames_of(path, 6) == middles(30, 6)
    assert frames_of(path, 30) == list(range(30))
    assert video_length_s(path.read_bytes(), VIDEO_FORMATS[path.suffix[1:]]) == pytest.approx(1.2, abs=0.003)


def test_every_ending_that_annotations_look_for_can_be_read():
    from trainer.annotations.media_folder import IMAGE_ENDINGS, VIDEO_ENDINGS

    assert {f".{ending}" for ending in VIDEO_FORMATS} == VIDEO_ENDINGS
    assert {f".{ending}" for ending in IMAGE_EXTENSIONS} == IMAGE_ENDINGS


@pytest.mark.parametrize("group_of_pictures", [25, 4])
@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ((0.0, 1.0), [3, 9, 15, 21]),
        ((0.24, 0.56), [7, 9, 11, 13]),
        ((0.6, 0.6), [15, 15, 15, 15]),  # a moment
        ((0.9, 7.0), [22, 23, 24, 24]),  # cut to the video
        ((0.0, 0.04), [0, 0, 0, 0]),
    ],
)
def test_the_frames_of_a_part_lie_in_it(tmp_path, part, expected, group_of_pictures):
    options = {"preset": "ultrafast", "crf": "12", "bf": "2", "g": str(group_of_pictures)}
    path = make_clip(tmp_path / "a.mp4", 9, Make(num_frames=25, size_px=(96, 96), options=options))
    assert numbers_of(video_frames(path.read_bytes(), "mov", 4, 48, part)) == [(9, frame) for frame in expected]


@pytest.mark.parametrize("part", [(1.0, 1.0), (1.0, 3.0), (20.0, 30.0)])
def test_a_part_behind_the_end_is_damaged(tmp_path, part):
    path = make_clip(tmp_path / "a.mp4", 9, Make(num_frames=25, size_px=(96, 96)))
    with pytest.raises(DamagedMediaError, match=r"its part from .* s lies behind the video's end, 1 s"):
        video_frames(path.read_bytes(), "mov", 4, 48, part)


def test_a_part_counts_from_the_first_frame_whatever_its_time_is(tmp_path):
    times_s = [5 + 0.1 * frame for frame in range(10)]
    path = make_clip(tmp_path / "a.mkv", 2, Make(num_frames=10, size_px=(96, 96), times_s=times_s))
    assert [frame for _, frame in numbers_of(video_frames(path.read_bytes(), "matroska", 2, 48, (0.2, 0.4)))] == [2, 3]


def test_far_key_frames_are_sought_instead_of_decoding_all_that_lies_between(tmp_path, monkeypatch):
    path = make_clip(tmp_path / "a.mp4", 5, Make(num_frames=200, size_px=(96, 96), options={"g": "20", "bf": "2"}))
    num_packets = 0
    real = videos.packets_of

    def counting(*arguments):
        nonlocal num_packets
        for packet in real(*arguments):
            num_packets += 1
            yield packet

    monkeypatch.setattr(videos, "packets_of", counting)
    assert frames_of(path, 2) == [50, 150]
    assert num_packets < 40


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_turned_videos_are_upright(tmp_path, quarter_turns):
    path = tmp_path / "a.mp4"
    turned(quarter_turns)(path, 6)
    found = read_frames(whole(path), 2, 64, MediaReader())
    assert found.shape == (2, 3, 64, 64)
    shown = tmp_path / "shown.png"
    run_real_ffmpeg("-i", path, "-frames:v", "1", shown)
    with Image.open(shown) as upright:
        first = np.asarray(upright.convert("RGB"))
    side = min(first.shape[:2])
    top, left = (first.shape[0] - side) // 2, (first.shape[1] - side) // 2
    expected = np.asarray(Image.fromarray(first[top : top + side, left : left + side]).resize((64, 64)))
    decoded = video_frames(path.read_bytes(), "mov", 25, 64)[0].transpose(1, 2, 0)
    assert np.abs(decoded.astype(int) - expected).mean() < 8


def test_the_middle_of_a_wide_and_of_a_tall_picture_is_kept(tmp_path):
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = (200, 30, 60)
    for picture in (wide, wide.swapaxes(0, 1)):
        Image.fromarray(picture).save(tmp_path / "a.png")
        (found,) = read_frames(whole(tmp_path / "a.png", "png"), 1, 20, MediaReader())
        assert found.shape == (3, 20, 20)
        assert found[:, 2:-2, 2:-2].reshape(3, -1).mean(axis=1).round().tolist() == [200, 30, 60]


def with_narrow_pixels(path: Path) -> Path:
    """A video of 96 x 48 pixels, each twice as high as wide."""
    stored = make_clip(path.with_name("stored.mp4"), 1, Make(num_frames=5, size_px=(96, 48)))
    run_real_ffmpeg("-i", stored, "-vf", "setsar=1/2", "-crf", "12", path)
    return path


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    path = with_narrow_pixels(tmp_path / "a.mp4")
    assert frames_of(path, 2) == middles(5, 2)  # all twelve columns are there: nothing was cut off


def test_pixels_of_an_absurd_shape_are_damage(tmp_path):
    """A flipped bit was an OverflowError, which ended the training."""
    path = with_narrow_pixels(tmp_path / "a.mp4")
    content = path.read_bytes()
    at = content.index(b"pasp") + 4
    absurd = content[:at] + struct.pack(">II", 0x7FFF_FFFF, 1) + content[at + 8 :]
    with pytest.raises(DamagedMediaError, match=r"its pictures are shown with \d{12} x 48 pixels; .* 16384 a side"):
        video_frames(absurd, "mov", 2, 48)


def test_an_image_is_one_frame_turned_as_its_data_say(tmp_path):
    picture = Image.fromarray(picture_of(number_of(3, 77), (96, 96)))
    exif = picture.getexif()
    exif[0x0112] = 6  # the picture is stored a quarter to the left
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.jpg", exif=exif, quality=95)
    found = read_frames(whole(tmp_path / "a.jpg", "jpg"), 1, 48, MediaReader())
    assert numbers_of(found) == [(3, 77)]


def test_several_frames_of_an_image_are_a_mistake_in_the_settings(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg_of(1))
    with pytest.raises(GexError, match="LVLT holds images, of which 4 frames are asked; set num_frames to 1"):
        read_frames(whole(tmp_path / "a.jpg", "jpg"), 4, 48, MediaReader())


@pytest.mark.parametrize("wanted", [1, 4, 8])
def test_frames_that_were_decoded_before_are_read_by_one_range(tmp_path, wanted):
    place = write_run(tmp_path / "a.tar", [number_of(9, index) for index in range(8)])
    found = read_frames(sample_at(tmp_path / "a.tar", *place, "frames"), wanted, 48, MediaReader())
    assert numbers_of(found) == [(9, frame) for frame in middles(8, wanted)]


def test_a_run_whose_key_has_a_folder_is_read_as_the_tools_for_shards_read_it(tmp_path):
    """It was refused: "which is no whole frame of it"."""
    begin, size = write_run(tmp_path / "a.tar", [number_of(9, index) for index in range(2)], key="part/k")
    assert numbers_of(run_frames((tmp_path / "a.tar").read_bytes()[begin : begin + size], 2, 48)) == [(9, 0), (9, 1)]


@pytest.mark.parametrize("size_px", [64, 180, 224, 500])
def test_frames_of_any_size_are_cut_and_scaled_as_pillow_does_it(tmp_path, size_px):
    place = write_run(tmp_path / "a.tar", [number_of(9, index) for index in range(11)], (320, 180))
    found = read_frames(sample_at(tmp_path / "a.tar", *place, "frames"), 11, size_px, MediaReader())
    assert found.shape == (11, 3, size_px, size_px)
    for index in (0, 7, 10):
        picture = Image.open(io.BytesIO(jpeg_of(number_of(9, index), (320, 180))))
        picture.draft("RGB", (size_px, size_px))
        side = picture.height
        square = picture.crop(((picture.width - side) // 2, 0, (picture.width + side) // 2, side))
        expected = np.asarray(square.resize((size_px, size_px), Image.Resampling.BICUBIC), np.int16)
        assert np.abs(found[index].transpose(1, 2, 0) - expected).max() <= 2


def test_random_places_are_within_their_spans_and_follow_from_seed_epoch_and_key():
    places = [random_places(8, seed, epoch, key) for seed in (0, 1) for epoch in range(40) for key in ("a", "b")]
    assert len({tuple(one) for one in places}) == len(places)
    assert random_places(8, 1, 39, "b") == places[-1]
    assert random_places(3, 1, 39, "b") == places[-1][:3]
    flat = np.array(places).ravel()
    assert 0 <= flat.min() < 0.01
    assert 0.99 < flat.max() < 1
    assert np.histogram(flat, 4, (0, 1))[0] == pytest.approx([320] * 4, abs=60)


@pytest.mark.parametrize("stored", [False, True])
def test_random_frames_lie_in_their_own_spans_and_middles_are_where_they_were(tmp_path, stored):
    """There was no way to see other frames than the middle ones, in no epoch."""
    if stored:
        place = write_run(tmp_path / "a.tar", [number_of(9, index) for index in range(24)])
        sample = sample_at(tmp_path / "a.tar", *place, "frames")
    else:
        sample = whole(make_clip(tmp_path / "a.mp4", 9, Make(num_frames=24, size_px=(96, 96), options={"g": "5"})))

    def frames(places):
        return [frame for _, frame in numbers_of(read_frames(sample, 4, 48, MediaReader(), places))]

    assert frames(None) == frames([0.5] * 4) == middles(24, 4) == [3, 9, 15, 21]
    assert frames([0.0, 0.17, 0.83, 1 - 2**-53]) == [0, 7, 16, 23]
    found = [frames(random_places(4, 0, epoch, KEY)) for epoch in range(12)]
    assert all([frame // 6 for frame in one] == [0, 1, 2, 3] for one in found)
    assert len({tuple(one) for one in found}) == 12


def test_random_frames_of_a_part_lie_in_it(tmp_path):
    content = make_clip(tmp_path / "a.mp4", 9, Make(num_frames=25, size_px=(96, 96))).read_bytes()
    found = [video_frames(content, "mov", 2, 48, (0.24, 0.56), random_places(2, 0, epoch, KEY)) for epoch in range(12)]
    numbers = [[frame for _, frame in numbers_of(frames)] for frames in found]
    assert {first for first, _ in numbers} == {6, 7, 8, 9}
    assert {second for _, second in numbers} == {10, 11, 12, 13}


def test_of_just_as_many_stored_frames_as_are_read_all_are_taken_wherever(tmp_path):
    begin, size = write_run(tmp_path / "a.tar", [number_of(9, index) for index in range(7)])
    run = (tmp_path / "a.tar").read_bytes()[begin : begin + size]
    for places in (None, [0.0] * 7, [1 - 2**-53] * 7):
        assert [frame for _, frame in numbers_of(run_frames(run, 7, 48, places))] == list(range(7))


def test_frames_of_several_sizes_are_no_run(tmp_path):
    with ShardWriter(tmp_path / "a.tar") as writer:
        run = writer.add_run(KEY, [jpeg_of(1, (96, 96)), jpeg_of(1, (96, 60))])
    content = (tmp_path / "a.tar").read_bytes()[run.offset_bytes :][: run.size_bytes]
    with pytest.raises(DamagedMediaError, match="its frames have several sizes"):
        run_frames(content, 2, 48)


def test_webdataset_sees_a_run_of_frames_as_one_sample(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    write_run(tmp_path / "a.tar", [number_of(9, index) for index in range(3)])
    (sample,) = webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False)
    assert sample["__key__"] == KEY
    assert set(sample) >= {"txt", "json", "f000.jpg", "f001.jpg", "f002.jpg"}


def test_a_run_of_frames_that_is_damaged_or_something_else_says_where(tmp_path):
    begin, size = write_run(tmp_path / "a.tar", [1, 2])
    run = (tmp_path / "a.tar").read_bytes()[begin : begin + size]
    with pytest.raises(DamagedMediaError, match="damaged header at byte 0"):
        run_frames(b"x" * 512 + run[512:], 1, 48)
    with pytest.raises(DamagedMediaError, match=r"holds '0+\.f001.jpg', which is no whole frame"):
        run_frames(run[:-1024], 2, 48)
    with pytest.raises(DamagedMediaError, match=r"holds '0+\.json', which is no whole frame"):
        run_frames((tmp_path / "a.tar").read_bytes()[begin : begin + size + 1024], 1, 48)
    with pytest.raises(DamagedMediaError, match="there are no frames in it"):
        run_frames(b"", 1, 48)
    backwards = tarfile.TarInfo("a.f000.jpg")
    backwards.size = -512  # the next header would be this one again, for ever
    with pytest.raises(DamagedMediaError, match=r"holds 'a\.f000\.jpg', which is no whole frame"):
        run_frames(backwards.tobuf(tarfile.GNU_FORMAT), 1, 48)


def test_an_index_that_promises_a_thousand_million_frames_is_refused_before_there_is_room_for_them(tmp_path):
    """A file of 800 bytes took 1.45 GB in every process that read it."""
    content = with_samples(make_clip(tmp_path / "a.mp4", 1, MOOV_LAST).read_bytes(), 1_000_000_000, 1, 1)
    with pytest.raises(DamagedMediaError, match="its index promises 1000000000 frames or packets"):
        video_frames(content, "mov", 4, 32)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it has no video or picture"),
        (b"<html>not a video</html>", "the video cannot be decoded"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n", "the video cannot be decoded"),
    ],
)
def test_what_is_no_video_is_damaged_and_opens_nothing_else(tmp_path, content, message):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DamagedMediaError, match=message):
        read_frames(whole(tmp_path / "a.mp4"), 2, 48, MediaReader())


def test_media_that_is_missing_cut_off_or_unknown_is_damaged_and_named(tmp_path):
    path = make_clip(tmp_path / "a.mp4", 1, Make(num_frames=5))
    reader = MediaReader()
    with pytest.raises(DamagedMediaError, match=r"gone.tar' does not exist"):
        reader.read(sample_at(tmp_path / "gone.tar", 0, 10))
    with pytest.raises(DamagedMediaError, match=r"a.mp4' ends 100 bytes before the sample does"):
        reader.read(sample_at(path, 0, path.stat().st_size + 100))
    with pytest.raises(DamagedMediaError, match="it has no video or picture"):
        reader.read(sample_at(None, 0, 0))
    for offset, size in ((-5, 10), (0, -10)):  # of a receipt that anyone wrote
        with pytest.raises(DamagedMediaError, match=rf"{offset}\+{size} is no range of bytes of"):
            reader.read(sample_at(path, offset, size))
    with pytest.raises(DamagedMediaError, match="media of kind 'gif' cannot be read"):
        read_frames(whole(path, "gif"), 1, 48, reader)
    (tmp_path / "a.jpg").write_bytes(jpeg_of(1)[:200])
    with pytest.raises(DamagedMediaError, match="an image cannot be decoded"):
        read_frames(whole(tmp_path / "a.jpg", "jpg"), 1, 48, reader)
    reader.close()


def test_a_video_without_pictures_or_with_sound_only_is_damaged(tmp_path):
    run_real_ffmpeg("-f", "lavfi", "-i", "sine=duration=0.2", "-c:a", "aac", tmp_path / "sound.mp4")
    with pytest.raises(DamagedMediaError, match="it has no video track that can be read, it has: audio"):
        video_frames((tmp_path / "sound.mp4").read_bytes(), "mov", 1, 48)


def test_open_tars_stay_few(tmp_path, monkeypatch):
    monkeypatch.setattr(media_reader, "_OPEN_TARS", 2)
    reader = MediaReader()
    for name in "abcab":
        (tmp_path / name).write_bytes(name.encode() * 3)
        assert reader.read(sample_at(tmp_path / name, 1, 2)) == name.encode() * 2
        assert len(reader._open) <= 2
    reader.close()
    assert not reader._open


def test_a_decoder_uses_one_thread(tmp_path):
    path = make_clip(tmp_path / "a.mp4", 1, Make(num_frames=5, fps=Fraction(25)))
    with av.open(str(path)) as container:
        assert video_track(container) is container.streams.video[0]
        assert container.streams.video[0].codec_context.thread_count == 1
