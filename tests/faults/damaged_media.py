"""A corpus of damaged and awkward media, made by the real encoders: one source of five clips for each kind.

Every picture says which clip and which frame it is (see making_clips). Clip 2 of a source is of its kind, unless the
kind names others; the rest are good. Neighbouring sources have other clip numbers, so that a mix-up shows.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from tests.end_to_end.planting import row_of
from tests.end_to_end.running import write_metadata
from tests.faults.mp4_boxes import STBL, box, change, find, full, with_samples
from tests.media.making_clips import Make, make_clip, number_of, picture_of, run_real_ffmpeg

NUM_CLIPS, NUM_FRAMES, FPS = 5, 25, 25
SECRET = 15  # the clip that no sample may show
TONE_HZ = 440
MOOV_LAST = Make(num_frames=NUM_FRAMES, movflags="+write_colr")
X265 = {"preset": "ultrafast", "x265-params": "log-level=none"}
VP9 = {"cpu-used": "8", "crf": "20"}
HTML = "<!doctype html>\n<html><head><title>429</title></head><body>Too many requests</body></html>\n"

Maker = Callable[[Path, int], object]


@dataclass(frozen=True)
class Kind:
    """What is done to some clips of a source, and how these must end."""

    make: Maker
    reason: str | None = None  # none: it is used
    at: tuple[int, ...] = (2,)
    frames: tuple[int, ...] | None = None  # frame number shown at the start, middle and end; none: those of a good clip
    decoded: str | None = None  # the reason when every frame is decoded, where that is another
    readable: bool = True  # whether its own pictures still say a number
    num_frames: int = NUM_FRAMES  # of its segment, at the rate of the others
    claims_s: float = 1.0  # what the metadata say of its length


def made(**changes: Any) -> Maker:
    """A clip with other settings of the encoder; `suffix` writes another container under the same name."""
    suffix = changes.pop("suffix", ".mp4")
    make = replace(Make(num_frames=NUM_FRAMES), **changes)

    def write(path: Path, clip: int) -> None:
        other = path.with_name(f"made{suffix}")
        make_clip(other, clip, make)
        other.replace(path)

    return write


def passed(*arguments: str, before: tuple[str, ...] = (), **changes: Any) -> Maker:
    """A clip that went through ffmpeg once more."""

    def write(path: Path, clip: int) -> None:
        stored = make_clip(path.with_name("stored.mp4"), clip, replace(Make(num_frames=NUM_FRAMES), **changes))
        run_real_ffmpeg(*before, "-i", stored, *arguments, "-f", "mp4", path)
        stored.unlink()

    return write


def edited(edit: Callable[[bytes], bytes], make: Make = MOOV_LAST) -> Maker:
    """A clip whose bytes are changed."""

    def write(path: Path, clip: int) -> None:
        make_clip(path, clip, make)
        path.write_bytes(edit(path.read_bytes()))

    return write


def written(content: str | bytes) -> Maker:
    """Anything but a video."""
    return lambda path, _: path.write_bytes(content.encode() if isinstance(content, str) else content)


def turned(quarter_turns: int) -> Maker:
    """Stored on its side, with the note by which players turn it back."""
    return passed(
        *("-c", "copy"),
        before=("-display_rotation", str(90 * quarter_turns)),
        turn=lambda picture: np.rot90(picture, -quarter_turns).copy(),
    )


def _picture(path: Path, _clip: int, kind: str = "JPEG") -> None:
    Image.new("RGB", (96, 64), "red").save(path, kind)


def _gif(path: Path, clip: int) -> None:
    stored = make_clip(path.with_name("stored.mp4"), clip, Make(num_frames=5))
    run_real_ffmpeg("-i", stored, "-f", "gif", path)
    stored.unlink()


def _cover(*tracks: str) -> Maker:
    """Sound or pictures with a cover picture."""

    def write(path: Path, clip: int) -> None:
        stored = make_clip(path.with_name("stored.mp4"), clip, Make(num_frames=NUM_FRAMES, tone_hz=TONE_HZ))
        cover = path.with_name("cover.jpg")
        _picture(cover, clip)
        number = tracks.count("0:v")
        run_real_ffmpeg(
            *("-i", stored, "-i", cover, *(part for track in tracks for part in ("-map", track)), "-c", "copy"),
            *(f"-disposition:v:{number if tracks[0] == '0:v' else 0}", "attached_pic", "-f", "mp4", path),
        )
        stored.unlink()
        cover.unlink()

    return write


def _garbage(content: bytes, num_bytes: int = 600) -> bytes:
    spoiled, start = bytearray(content), content.index(b"mdat") + 4
    middle = len(find(content, "mdat")) // 2
    spoiled[start + middle : start + middle + num_bytes] = np.random.default_rng(7).bytes(num_bytes)
    return bytes(spoiled)


_noise = np.random.default_rng(3)
NOISE = Make(
    num_frames=NUM_FRAMES,
    turn=lambda picture: picture // 2 + _noise.integers(0, 99, picture.shape, np.uint8),
    movflags="+write_colr",
)
OPEN_GOP = {"preset": "ultrafast", "crf": "12", "x264-params": "open-gop=1:keyint=8:bframes=3:b-adapt=0"}


def clip_from_second_key(path: Path, clip: int) -> None:
    """Begins with a key frame that does not make the decoder forget what it showed before, as cutters write it."""
    stored = make_clip(path.with_name("stored.mp4"), clip, Make(num_frames=NUM_FRAMES, options=OPEN_GOP))
    with av.open(str(stored)) as source, av.open(str(path), "w", format="mp4") as target:
        track = target.add_stream_from_template(source.streams.video[0])
        start = None
        for packet in source.demux(video=0):
            if start is None and packet.is_keyframe and packet.pts > 0:
                start = (packet.pts, packet.dts)
            if start is None or packet.pts is None or packet.pts < start[0]:
                continue
            packet.pts, packet.dts, packet.stream = packet.pts - start[1], packet.dts - start[1], track
            target.mux_one(packet)
    stored.unlink()


def _two_sizes(path: Path, clip: int) -> None:
    """The size of the pictures changes in the middle, as in recordings of adaptive streams."""
    parts = [_part(path.with_name("part0.ts"), clip, range(13), (96, 64))]
    parts.append(_part(path.with_name("part1.ts"), clip, range(13, 25), (192, 128)))
    run_real_ffmpeg("-f", "concat", "-safe", "0", "-i", _script(path, parts), "-c", "copy", "-f", "mp4", path)
    for part in [*parts, path.with_name("script.txt")]:
        part.unlink()


def _part(path: Path, clip: int, frames: range, size_px: tuple[int, int]) -> Path:
    numbers = iter([frames[0], *frames])  # the first picture is asked for twice, once for its size

    def picture(_: np.ndarray) -> np.ndarray:
        return picture_of(number_of(clip, next(numbers)), size_px)

    options = {"preset": "ultrafast", "crf": "12", "bf": "0"}
    return make_clip(path, clip, Make(num_frames=len(frames), size_px=size_px, turn=picture, options=options))


def _script(path: Path, parts: list[Path]) -> Path:
    script = path.with_name("script.txt")
    script.write_text("ffconcat version 1.0\n" + "".join(f"file {part}\n" for part in parts))
    return script


def _same_bytes(content: bytes) -> bytes:
    """Every sample is the first picture: a file of 60 kB stands for a video of 10 MB."""
    size_bytes = struct.unpack(">I", find(content, *STBL, "stsz")[12:16])[0]
    return with_samples(content, 15_000, size_bytes, 1, chunks=15_000)


def _edits(content: bytes) -> bytes:
    """An edit list that shows the clip two hundred thousand times."""
    edit = struct.pack(">IiI", 1000, 0, 0x10000)
    elst = box("elst", full(200_000) + edit * 200_000)
    return change(content, ("moov", "trak", "edts"), lambda _: elst)


def _lie_about_size(path: Path, _clip: int) -> None:
    """The header says 96 x 64, the pictures have 256 million pixels."""
    huge = path.with_name("huge.mkv")
    _huge(huge, 0)
    run_real_ffmpeg("-i", huge, "-c", "copy", "-f", "mov", path)
    huge.unlink()
    content = path.read_bytes()
    assert content.count(struct.pack(">HH", 16000, 16000)) == 1
    content = content.replace(struct.pack(">HH", 16000, 16000), struct.pack(">HH", 96, 64))
    path.write_bytes(
        content.replace(struct.pack(">II", 16000 << 16, 16000 << 16), struct.pack(">II", 96 << 16, 64 << 16))
    )


def _hours_in_header(content: bytes) -> bytes:
    def ten_hours(payload: bytes, at: int) -> bytes:
        scale = struct.unpack(">I", payload[12:16])[0] if at != 20 else 1000
        return payload[:at] + struct.pack(">I", 36_000 * scale) + payload[at + 4 :]

    for path, at in ((("moov", "mvhd"), 16), (("moov", "trak", "tkhd"), 20), (("moov", "trak", "mdia", "mdhd"), 16)):
        content = change(content, path, lambda payload, at=at: ten_hours(payload, at))
    return content


def _no_time(content: bytes) -> bytes:
    return change(content, (*STBL, "stts"), lambda _: full(1, NUM_FRAMES, 0))


def _huge(path: Path, clip: int) -> None:
    """A picture of 256 million pixels, all of one colour."""
    run_real_ffmpeg(
        *("-f", "lavfi", "-i", "color=black:size=16000x16000:rate=25", "-frames:v", "1"),
        *("-pix_fmt", "monob", "-c:v", "png", "-f", "matroska", path),
    )


def _long_still(path: Path, clip: int) -> None:
    """Five hours of one picture in a few kilobytes."""
    run_real_ffmpeg(
        *("-f", "lavfi", "-i", "color=black:size=96x64:rate=1/60:duration=18000"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-f", "mp4", path),
    )


def _missing(path: Path, _clip: int) -> None:
    path.symlink_to(path.with_name("nowhere.mp4"))


def _uneven() -> tuple[float, ...]:
    """Slow for half a second, then fast: a second in all."""
    return tuple(round(time, 3) for time in [*np.arange(5) * 0.1, *(0.5 + np.arange(15) / 30)])


def kinds(secret: Path) -> dict[str, Kind]:
    """All kinds by name; `secret` is the file that scripts point to."""
    hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{{}}{secret}\n#EXT-X-ENDLIST\n"
    return {
        "good": Kind(made(), at=()),
        # what a download leaves
        "truncated": Kind(edited(lambda b: b[: len(b) // 2], Make(num_frames=NUM_FRAMES)), "media_truncated"),
        "end-missing": Kind(edited(lambda b: b[:-10], Make(num_frames=NUM_FRAMES)), "media_truncated"),
        "no-index": Kind(edited(lambda b: b[: b.index(b"moov") - 4]), "media_truncated"),
        "no-bytes": Kind(written(""), "media_empty", at=(0,)),
        "text": Kind(written("this is no video\n" * 90), "not_a_video", at=(4,)),
        "html": Kind(written(HTML), "not_a_video"),
        "zeros": Kind(written(bytes(5000)), "not_a_video"),
        "missing": Kind(_missing, "media_missing"),
        "folder": Kind(lambda path, _: path.mkdir(), "media_missing"),
        "garbage": Kind(edited(_garbage), "undecodable"),
        "garbage-inside": Kind(edited(lambda b: _garbage(b, 200), NOISE), decoded="undecodable", readable=False),
        # other things than a video
        "sound": Kind(passed("-vn", "-c", "copy", tone_hz=TONE_HZ), "not_a_video"),
        "cover-only": Kind(_cover("0:a", "1:v"), "not_a_video"),
        "cover": Kind(_cover("0:v", "0:a", "1:v")),
        "cover-first": Kind(_cover("1:v", "0:v")),
        "jpeg": Kind(_picture, "not_a_video"),
        "gif": Kind(_gif, "not_a_video"),
        # files that name other files
        "concat-script": Kind(written(f"ffconcat version 1.0\nfile {secret}\n"), "not_a_video", at=(1, 2)),
        "concat-passwd": Kind(written("ffconcat version 1.0\nfile /etc/passwd\n"), "not_a_video"),
        "playlist": Kind(written(hls.format("")), "not_a_video"),
        "playlist-url": Kind(written(hls.format("file://")), "not_a_video"),
        "playlist-subfile": Kind(written(hls.format("subfile,,start,0,end,0,,:")), "not_a_video"),
        "dash": Kind(written(f'<?xml version="1.0"?><MPD><BaseURL>file://{secret}</BaseURL></MPD>'), "not_a_video"),
        "sdp": Kind(written("v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n"), "not_a_video"),
        # times
        "one-frame": Kind(made(num_frames=1), frames=(0, 0, 0), num_frames=1, claims_s=0.4),
        "one-frame-for-all": Kind(made(num_frames=1), "duration_mismatch"),
        "uneven": Kind(made(num_frames=20, times_s=_uneven()), frames=(0, 4, 19)),
        "late-start": Kind(passed("-c", "copy", before=("-itsoffset", "1.5")), at=(0, 3)),
        "hidden-frames": Kind(passed("-c", "copy", before=("-ss", "1.0"), num_frames=50), frames=(25, 37, 49)),
        "negative-start": Kind(passed("-c", "copy", "-output_ts_offset", "-0.2"), frames=(5, 15, 24), num_frames=20),
        "other-clock": Kind(passed("-c", "copy", "-video_track_timescale", "90000"), at=(1, 3)),
        "hours-in-header": Kind(edited(_hours_in_header)),
        "no-time": Kind(edited(_no_time), "duration_mismatch"),
        # pictures
        "odd-size": Kind(made(size_px=(97, 65), pix_fmt="yuv444p"), at=(0, 2)),
        "turned-90": Kind(turned(1), at=(0, 3)),
        "turned-180": Kind(turned(2)),
        "turned-270": Kind(turned(3)),
        "mixed-sizes": Kind(made(size_px=(192, 128)), at=(1, 3)),
        "wide": Kind(made(size_px=(8192, 256)), at=(2,)),
        "one-pixel": Kind(made(size_px=(1, 1), pix_fmt="yuv444p"), readable=False),
        "oblong-pixels": Kind(passed("-vf", "setsar=2", "-c:v", "libx264", "-crf", "12"), at=(2,)),
        "interlaced": Kind(made(options={"preset": "ultrafast", "crf": "12", "flags": "+ildct+ilme"})),
        "ten-bit": Kind(made(pix_fmt="yuv420p10le"), at=(0, 1)),
        "yuv444": Kind(made(pix_fmt="yuv444p")),
        "open-gop": Kind(made(options=OPEN_GOP), at=(0, 1, 2, 3, 4)),
        "between-keys": Kind(clip_from_second_key, frames=(8, 16, 24), num_frames=17, at=(1, 2, 3)),
        "two-sizes": Kind(_two_sizes),
        # codecs and containers
        "hevc": Kind(made(codec="libx265", options=X265), at=(0, 2)),
        "vp9": Kind(made(codec="libvpx-vp9", options=VP9)),
        "webm": Kind(made(codec="libvpx-vp9", options=VP9, suffix=".webm"), at=(0, 1, 2, 3, 4)),
        "mpeg4": Kind(made(codec="mpeg4", options={"qscale": "2", "b": "2M"})),
        "mkv": Kind(made(suffix=".mkv")),
        "ts": Kind(made(suffix=".ts")),
        "avi": Kind(made(codec="mpeg4", options={"qscale": "2", "b": "2M"}, suffix=".avi")),
        "index-last": Kind(made(movflags="+write_colr")),
        "fragments": Kind(made(movflags="+frag_keyframe+empty_moov")),
        # sound
        "some-sound": Kind(made(tone_hz=TONE_HZ), at=(0, 1, 3)),
        "all-sound": Kind(made(tone_hz=TONE_HZ), at=(0, 1, 2, 3, 4)),
        # small files that grow
        "huge-pictures": Kind(_huge, "media_too_large"),
        "many-frames": Kind(edited(lambda b: with_samples(b, 40_000_000, 1, 1)), "media_too_large"),
        "ten-hours": Kind(edited(lambda b: with_samples(b, 36_000_000, 1, 13)), "media_too_large"),
        "same-bytes": Kind(edited(_same_bytes), "media_too_large"),
        "many-edits": Kind(edited(_edits), "media_too_large"),
        "lies-about-size": Kind(_lie_about_size, "undecodable"),
        "still-hours": Kind(_long_still, "duration_mismatch"),
    }


def make_corpus(folder: Path) -> tuple[Path, dict[str, Kind]]:
    """Write clips and metadata into `folder`; returns the metadata file and the kinds, one a source."""
    (folder / "clips").mkdir(parents=True)
    good = {clip: make_clip(folder / f"good{clip}.mp4", clip, Make(num_frames=NUM_FRAMES)) for clip in range(16)}
    found = kinds(good[SECRET])
    rows = []
    for name, kind in found.items():
        for position in range(NUM_CLIPS):
            clip = clip_of(name, position, found)
            path = folder / "clips" / f"{name}-{position}.mp4"
            if position in kind.at:
                kind.make(path, clip)
            else:
                path.hardlink_to(good[clip])
            claims_s = kind.claims_s if position in kind.at else 1.0
            row = row_of(f"{name}-source", float(position), f"{name} {position}", claims_s)
            rows.append({**row, "file": path.name})
    return write_metadata(folder / "clips.jsonl", rows), found


def clip_of(name: str, position: int, found: dict[str, Kind]) -> int:
    """The number that the pictures of a clip say."""
    return (list(found).index(name) * NUM_CLIPS + position) % SECRET
