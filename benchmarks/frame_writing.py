"""Frames and middle frames as the pipeline writes them, against the bare ffmpeg that writes the same ones as JPEG.

Makes five clips of 10 s and a video of 45 s, of five others joined by stream copy, twice: 320x180 at constant quality,
and 1280x720 at 0.8 Mb/s, 1 MB a clip. They are drawn, or filmed ones out of a folder, scaled and repeated. Of them:
SVST, 16 frames of each clip, and LVLT, 32 of the long video, both with a short side of 224 px, by
`gex_pipeline.media.sampling.sample_jpegs`; IT, the middle frame of each clip, by
`gex_pipeline.media.frames.middle_frame_jpeg`. Bare: one `ffmpeg` a video with one thread, which selects the same frames
by number or seeks the middle; its start is counted, as that of our worker, which is one for all, is not. In turns, in
seconds of processor. Exits with 1 when frames are missing, or differ by more than two JPEG encoders explain.
"""

from __future__ import annotations

import argparse
import io
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from integrate_copy import CLIP_S, FPS, draw_clip
from PIL import Image

from gex_pipeline.media.ffmpeg import ffmpeg_binary
from gex_pipeline.media.frames import middle_frame_jpeg
from gex_pipeline.media.join import Piece, Probed, join_pieces, probe_pieces
from gex_pipeline.media.sampling import fit_short_side, sample_jpegs
from gex_pipeline.media.settings import FrameSettings, VideoSettings

NUM_CLIPS, LONG_S, SHORT_SIDE_PX, LIMIT_S = 5, 45, 224, 60.0
SIZES_PX = {(320, 180): ("-crf", "23"), (1280, 720): ("-b:v", "800k", "-maxrate", "1200k", "-bufsize", "1600k")}
SVST = FrameSettings(num=16, short_side_px=SHORT_SIDE_PX)
LVLT = FrameSettings(num=32, short_side_px=SHORT_SIDE_PX)
# else the parts of the long video are of several kinds, which cannot be joined by stream copy
ONE_COLOUR = "format=yuv420p,setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
MOST_DIFFERENCE = 4.0  # mean over all pixels, of 255
_BARE = ("-nostdin", "-loglevel", "error", "-y", "-threads", "1")
_AS_JPEG = ("-q:v", "2", "-threads", "1")

Write = Callable[[], Sequence[bytes]]


def ffmpeg(*words: str) -> None:
    """Run the pipeline's ffmpeg."""
    subprocess.run([ffmpeg_binary(), *words], check=True)


def find_sources(filmed: Path | None, folder: Path) -> list[Path]:
    """Clips out of all of a folder, or drawn ones."""
    if filmed:
        found = sorted(filmed.glob("*.mp4"))
        return found[:: -(-len(found) // NUM_CLIPS)]
    drawn = [folder / f"drawn{seed}.mp4" for seed in range(NUM_CLIPS)]
    for seed, path in enumerate(drawn):
        draw_clip(path, seed)
    return drawn


def make_clip(source: Path, target: Path, seconds: int, size_px: tuple[int, int]) -> Path:
    """The source again and again for so long, as H.264 of this size."""
    size = f"{size_px[0]}:{size_px[1]}"
    fit = f"fps={FPS},scale={size}:force_original_aspect_ratio=increase,crop={size},setsar=1,{ONE_COLOUR}"
    source_words = ("-nostdin", "-loglevel", "error", "-stream_loop", "-1", "-i", str(source))
    ffmpeg(*source_words, "-t", str(seconds), "-an", "-vf", fit, "-c:v", "libx264", *SIZES_PX[size_px], str(target))
    return target


def make_videos(sources: Sequence[Path], folder: Path, size_px: tuple[int, int]) -> tuple[list[Path], Path]:
    """The clips, and the long video."""
    clips = [make_clip(path, folder / f"clip{number}.mp4", CLIP_S, size_px) for number, path in enumerate(sources)]
    piece_s = LONG_S // len(sources)
    parts = [make_clip(path, folder / f"part{number}.mp4", piece_s, size_px) for number, path in enumerate(sources)]
    found = probe_pieces([Piece(path, None, piece_s) for path in parts], VideoSettings())
    joined = join_pieces([one for one in found if isinstance(one, Probed)], folder / "joined.mp4", VideoSettings())
    if joined.way != "copy":
        raise SystemExit("WRONG it was not joined by copy")
    return clips, folder / "joined.mp4"


def our_frames(videos: Sequence[Path], settings: FrameSettings) -> list[bytes]:
    """Frames of all videos by the pipeline."""
    return [jpeg for video in videos for jpeg in sample_jpegs(video, settings, LIMIT_S)[1]]


def bare_frames(videos: Sequence[Path], settings: FrameSettings, seconds: int, size_px: tuple[int, int]) -> list[bytes]:
    """The same by one ffmpeg a video, which decodes until the last of them."""
    num_frames = seconds * FPS
    numbers = [(2 * place + 1) * num_frames // (2 * settings.num) for place in range(settings.num)]
    wanted = "+".join(f"eq(n\\,{number})" for number in numbers)
    width_px, height_px = fit_short_side(settings.short_side_px, size_px)
    how = ("-vf", f"select={wanted},scale={width_px}:{height_px}:flags=bicubic", "-filter_threads", "1")
    return _written(videos, (), (*how, "-fps_mode", "passthrough", "-frames:v", str(settings.num)))


def our_middles(videos: Sequence[Path]) -> list[bytes]:
    """Middle frames of all videos by the pipeline."""
    return [middle_frame_jpeg(video, VideoSettings())[0] for video in videos]


def bare_middles(videos: Sequence[Path]) -> list[bytes]:
    """The same by one ffmpeg a video, which seeks."""
    return _written(videos, ("-ss", str(CLIP_S / 2)), ("-frames:v", "1"))


def _written(videos: Sequence[Path], before: Sequence[str], how: Sequence[str]) -> list[bytes]:
    jpegs: list[bytes] = []
    with tempfile.TemporaryDirectory(prefix="gex-benchmark-") as folder:
        for number, video in enumerate(videos):
            ffmpeg(*_BARE, *before, "-i", str(video), *how, *_AS_JPEG, f"{folder}/{number}-%03d.jpg")
            jpegs += [path.read_bytes() for path in sorted(Path(folder).glob(f"{number}-*.jpg"))]
    return jpegs


def timed(write: Write) -> tuple[float, Sequence[bytes]]:
    """Seconds of processor, those of its processes included, and what was written."""
    before_s = processor_s()
    jpegs = write()
    return processor_s() - before_s, jpegs


def processor_s() -> float:
    """Seconds of processor that this process and those that it waited for have taken."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def pixels(jpeg: bytes) -> np.ndarray:
    """A JPEG file as signed numbers."""
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"), dtype=np.int16)


def wrong(ours: Sequence[bytes], bare: Sequence[bytes], expected: int) -> str:
    """What is wrong with the frames, if anything."""
    if (len(ours), len(bare)) != (expected, expected):
        return f"{len(ours)} and {len(bare)} frames were written, expected {expected}"
    pairs = [(pixels(one), pixels(other)) for one, other in zip(ours, bare, strict=True)]
    if any(one.shape != other.shape for one, other in pairs):
        return "frames are of different sizes"
    difference = max(float(np.abs(one - other).mean()) for one, other in pairs)
    return f"a frame differs by {difference:.1f} of 255" if difference > MOST_DIFFERENCE else ""


def measure(name: str, expected: int, sides: tuple[Write, Write], num_rounds: int) -> str:
    """Print what a shape costs; what is wrong with it."""
    rates, ratios = [], []
    for _ in range(num_rounds):
        (our_s, ours), (bare_s, bare) = (timed(side) for side in sides)
        if found := wrong(ours, bare, expected):
            return f"{name}: {found}"
        rates.append((expected / our_s, expected / bare_s))
        ratios.append(bare_s / our_s)
    ours_per_s, bare_per_s = ([pair[side] for pair in rates] for side in (0, 1))
    num_bytes = sum(map(len, ours)) / expected
    print(
        f"{name:<32} ours {_median(ours_per_s)}, bare {_median(bare_per_s)} pictures/s of processor, ours : bare "
        f"{_median(ratios, 2)}; {num_bytes / 1e3:.1f} kB each, {num_bytes / pixels(ours[0])[..., 0].size:.3f} a pixel",
        flush=True,
    )
    return ""


def _median(values: Sequence[float], digits: int = 1) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="a folder of filmed .mp4 clips (default: clips are drawn)")
    parser.add_argument("--rounds", type=int, default=5, help="times each side is timed (default 5)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gex-benchmark-") as scratch:
        sources = find_sources(arguments.clips, Path(scratch))
        for size_px in SIZES_PX:
            folder = Path(scratch) / f"{size_px[1]}p"
            folder.mkdir()
            clips, joined = make_videos(sources, folder, size_px)
            num_bytes = sum(path.stat().st_size for path in clips) / len(clips)
            print(f"{size_px[0]}x{size_px[1]}, {len(clips)} clips of {num_bytes / 1e6:.2f} MB", flush=True)
            shapes: dict[str, tuple[int, tuple[Write, Write]]] = {
                f"SVST, {SVST.num} of {CLIP_S} s": (
                    SVST.num * len(clips),
                    (partial(our_frames, clips, SVST), partial(bare_frames, clips, SVST, CLIP_S, size_px)),
                ),
                f"LVLT, {LVLT.num} of {LONG_S} s": (
                    LVLT.num,
                    (partial(our_frames, [joined], LVLT), partial(bare_frames, [joined], LVLT, LONG_S, size_px)),
                ),
                f"IT, the middle of {CLIP_S} s": (
                    len(clips),
                    (partial(our_middles, clips), partial(bare_middles, clips)),
                ),
            }
            for name, (expected, sides) in shapes.items():
                if problem := measure(name, expected, sides, arguments.rounds):
                    print(f"WRONG {problem}")
                    return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
