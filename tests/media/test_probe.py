from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from gex_pipeline.errors import Reason, RejectedError
from gex_pipeline.media.probe import _pix_fmt_of_record, check_claimed_duration, probe_video
from gex_pipeline.media.settings import VideoSettings
from gex_pipeline.media.source import open_video
from tests.media.making_clips import Make, make_clip, run_real_ffmpeg

SETTINGS = VideoSettings()


def rejected(path: Path, settings: VideoSettings = SETTINGS) -> RejectedError:
    with pytest.raises(RejectedError) as caught:
        probe_video(path, settings)
    return caught.value


def test_a_clip_is_described_as_it_is(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 1, Make(num_frames=30, fps=Fraction(30000, 1001), tone_hz=440))
    probe = probe_video(path, SETTINGS)
    assert (probe.num_frames, probe.width_px, probe.height_px) == (30, 96, 64)
    assert (probe.codec, probe.is_plain) == ("h264", True)
    assert probe.exact_duration_s == Fraction(1001, 1000)
    assert probe.fps == pytest.approx(30000 / 1001)
    assert probe.has_audio
    assert not probe_video(make_clip(tmp_path / "silent.mp4", 1), SETTINGS).has_audio
    assert probe.starts_clean
    assert not probe.is_variable_rate


def test_equal_parameters_give_equal_copy_signatures_and_others_do_not(tmp_path: Path) -> None:
    same = [make_clip(tmp_path / f"{n}.mp4", n, Make(num_frames=10 + n)) for n in range(2)]
    size = make_clip(tmp_path / "size.mp4", 3, Make(size_px=(96, 80)))
    rate = make_clip(tmp_path / "rate.mp4", 4, Make(fps=30))
    depth = make_clip(tmp_path / "depth.mp4", 5, Make(pix_fmt="yuv444p"))
    first, second, *others = [probe_video(path, SETTINGS) for path in (*same, size, rate, depth)]
    assert first.copy_signature == second.copy_signature
    assert len({first.copy_signature, *(other.copy_signature for other in others)}) == 4


def test_the_pixel_format_read_from_the_header_is_the_decoders(tmp_path: Path) -> None:
    for pix_fmt in ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le"):
        path = make_clip(tmp_path / f"{pix_fmt}.mp4", 1, Make(num_frames=2, pix_fmt=pix_fmt))
        with open_video(path, header_only=True) as (_, stream):
            assert (stream.codec_context.pix_fmt, _pix_fmt_of_record(stream)) == (None, pix_fmt)
        with av.open(str(path)) as container:
            assert next(container.decode(video=0)).format.name == pix_fmt


def test_a_missing_file_is_rejected_as_missing(tmp_path: Path) -> None:
    assert rejected(tmp_path / "none.mp4").reason is Reason.media_missing
    assert rejected(tmp_path).reason is Reason.media_missing


def test_a_file_of_no_bytes_is_rejected_as_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    path.touch()
    assert rejected(path).reason is Reason.media_empty


def test_text_and_pictures_named_mp4_are_not_videos(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("<html>Video unavailable</html>\n" * 50)
    picture = tmp_path / "jpeg.mp4"
    Image.new("RGB", (64, 48), "red").save(picture, "JPEG")
    for path in (text, picture):
        assert rejected(path).reason is Reason.not_a_video


def test_a_playlist_named_mp4_does_not_make_another_file_open(tmp_path: Path) -> None:
    make_clip(tmp_path / "secret.mp4", 1)
    for name, content in (
        ("concat.mp4", "ffconcat version 1.0\nfile secret.mp4\n"),
        ("hls.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n"),
    ):
        path = tmp_path / name
        path.write_text(content)
        assert rejected(path).reason is Reason.not_a_video


def test_a_file_name_that_looks_like_an_option_or_an_address_is_only_a_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "made.mp4", 1)
    for name in ("-i.mp4", "http:x.mp4", "00:00:01_%d.mp4"):
        (tmp_path / name).write_bytes((tmp_path / "made.mp4").read_bytes())
        assert probe_video(Path(name), SETTINGS).num_frames == 12


def test_titles_may_be_in_any_character_set(tmp_path: Path) -> None:
    """A title in Latin-1 made opening fail with a UnicodeDecodeError, which no stage expects."""
    path, titled = make_clip(tmp_path / "a.mp4", 1), tmp_path / "titled.mp4"
    run_real_ffmpeg("-i", path, "-c", "copy", "-metadata", "title=caXXe", titled)
    whole = titled.read_bytes()
    assert b"caXXe" in whole
    titled.write_bytes(whole.replace(b"caXXe", b"caf\xe9e"))
    assert probe_video(titled, SETTINGS).num_frames == 12


def test_sound_alone_is_not_a_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    run_real_ffmpeg("-f", "lavfi", "-i", "sine=duration=0.5", "-c:a", "aac", path)
    error = rejected(path)
    assert error.reason is Reason.not_a_video
    assert "audio" in error.detail


def test_a_cover_picture_is_not_a_video(tmp_path: Path) -> None:
    cover, path = tmp_path / "cover.jpg", tmp_path / "cover.mp4"
    Image.new("RGB", (64, 48), "red").save(cover)
    run_real_ffmpeg(
        *("-f", "lavfi", "-i", "sine=duration=0.5", "-i", cover, "-map", "0", "-map", "1"),
        *("-c:a", "aac", "-c:v", "copy", "-disposition:v:0", "attached_pic", path),
    )
    assert rejected(path).reason is Reason.not_a_video


@pytest.mark.parametrize("share", [0.5, 0.99])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_a_truncated_clip_is_rejected_as_truncated(tmp_path: Path, name: str, share: float) -> None:
    path = make_clip(tmp_path / name, 1, Make(num_frames=60, options={"preset": "ultrafast", "crf": "12", "bf": "0"}))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    error = rejected(path)
    assert error.reason is Reason.media_truncated
    assert "should end at byte" in error.detail


def test_an_mp4_without_its_index_is_rejected_as_truncated(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 1, Make(num_frames=60, movflags="+write_colr"))
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"moov") - 4])
    error = rejected(path)
    assert error.reason is Reason.media_truncated
    assert "no moov box" in error.detail


def test_an_index_without_its_media_is_rejected_as_truncated(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 1, Make(num_frames=60))
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"mdat") - 4])
    assert rejected(path).reason is Reason.media_truncated


def test_bytes_behind_the_end_are_no_truncation(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 1)
    path.write_bytes(path.read_bytes() + b"\xff\xff\xff\xffjunk" + bytes(100))
    assert probe_video(path, SETTINGS).num_frames == 12


def test_a_video_track_without_frames_is_rejected(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 1, Make(movflags="+empty_moov+frag_keyframe"))
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"moof") - 4])
    assert rejected(path).reason is Reason.no_frames


def spoiled(path: Path, start: int, count: int) -> Path:
    whole = bytearray(path.read_bytes())
    first = whole.index(b"mdat") + 4
    whole[first + start : first + start + count] = np.random.default_rng(7).bytes(count)
    path.write_bytes(whole)
    return path


def test_damage_that_runs_over_the_sizes_of_units_is_found_without_decoding(tmp_path: Path) -> None:
    path = spoiled(make_clip(tmp_path / "a.mp4", 1, Make(num_frames=40)), 1500, 400)
    error = rejected(path)
    assert error.reason is Reason.undecodable
    assert "of its video track is damaged" in error.detail


def test_damage_inside_of_a_picture_is_found_by_decoding_and_only_then(tmp_path: Path) -> None:
    make = Make(num_frames=40, turn=lambda picture: np.random.default_rng(3).integers(0, 255, picture.shape, np.uint8))
    path = spoiled(make_clip(tmp_path / "a.mp4", 1, make), 3000, 400)
    assert probe_video(path, SETTINGS).num_frames == 40
    assert rejected(path, VideoSettings(check="decode")).reason is Reason.undecodable


def test_decoding_every_frame_accepts_a_sound_clip(tmp_path: Path) -> None:
    for name, make in (("a.mp4", Make()), ("b.webm", Make(codec="libvpx-vp9", options={"cpu-used": "8"}))):
        assert probe_video(make_clip(tmp_path / name, 1, make), VideoSettings(check="decode")).num_frames == 12


def test_a_claim_beyond_the_tolerance_is_a_mismatch(tmp_path: Path) -> None:
    probe = probe_video(make_clip(tmp_path / "a.mp4", 1, Make(num_frames=25)), SETTINGS)
    check_claimed_duration(probe, 1.5, SETTINGS)
    check_claimed_duration(probe, 0.1, SETTINGS)
    with pytest.raises(RejectedError, match=r"claims 1\.600 s, the file holds 1\.000 s") as caught:
        check_claimed_duration(probe, 1.6, SETTINGS)
    assert caught.value.reason is Reason.duration_mismatch


def test_a_file_that_says_it_is_too_long_is_refused(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 1, Make(num_frames=25))
    error = rejected(path, VideoSettings(max_duration_s=0.9))
    assert error.reason is Reason.duration_mismatch
    assert "max_duration_s = 0.9" in error.detail


def test_one_wild_time_does_not_make_a_video_of_hours(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.ts", 1, Make(num_frames=3, times_s=[0.0, 0.04, 9000.0]))
    error = rejected(path, VideoSettings(max_duration_s=3600))
    assert error.reason is Reason.duration_mismatch


def test_a_variable_rate_is_seen_and_a_rounded_constant_rate_is_none(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.08, 0.2, 0.24, 0.5, 0.54, 0.58]
    variable = make_clip(tmp_path / "v.mp4", 1, Make(num_frames=8, times_s=times))
    probe = probe_video(variable, SETTINGS)
    assert probe.is_variable_rate
    assert probe.duration_s == pytest.approx(0.62)
    rounded = make_clip(tmp_path / "r.mkv", 1, Make(num_frames=20, fps=30))  # matroska counts milliseconds
    assert not probe_video(rounded, SETTINGS).is_variable_rate


def test_an_edit_list_that_hides_frames_does_not_start_clean(tmp_path: Path) -> None:
    path, cut = make_clip(tmp_path / "a.mp4", 1, Make(num_frames=50)), tmp_path / "cut.mp4"
    run_real_ffmpeg("-ss", "1.0", "-i", path, "-c", "copy", cut)
    probe = probe_video(cut, SETTINGS)
    assert not probe.starts_clean
    assert probe.num_frames == 25
    assert probe.duration_s == pytest.approx(1.0, abs=0.041)


def test_size_is_as_shown_with_turned_and_oblong_pixels(tmp_path: Path) -> None:
    path, turned, wide = make_clip(tmp_path / "a.mp4", 1), tmp_path / "turned.mp4", tmp_path / "wide.mp4"
    run_real_ffmpeg("-display_rotation", "90", "-i", path, "-c", "copy", turned)
    run_real_ffmpeg("-i", path, "-vf", "setsar=4/3", wide)
    probe = probe_video(turned, SETTINGS)
    assert (probe.width_px, probe.height_px, probe.is_plain) == (64, 96, False)
    probe = probe_video(wide, SETTINGS)
    assert (probe.width_px, probe.height_px, probe.is_plain) == (128, 64, False)


def test_probing_agrees_with_libav_on_other_containers(tmp_path: Path) -> None:
    for name, codec in (("a.mkv", "libx264"), ("b.avi", "mpeg4"), ("c.webm", "libvpx-vp9"), ("d.ts", "libx264")):
        path = make_clip(tmp_path / name, 1, Make(codec=codec, options={}))
        probe = probe_video(path, SETTINGS)
        with av.open(str(path)) as container:
            assert probe.num_frames == sum(1 for _ in container.decode(video=0)), name
        assert probe.duration_s == pytest.approx(12 / 25, abs=0.01), name
