"""Integrating by re-encoding against one bare ffmpeg that does the same in a filter graph.

Draws four ten-second clips (320x180, H.264), or makes them of filmed ones, of 1280x720 if told so. Bare: one ``ffmpeg``
with four inputs and the concat filter, x264 at our quality and preset, one thread. Ours: `gex_pipeline.media.join`
told to re-encode, which also probes every clip, brings each to the common form in a process of its own, joins them by
copy and reads the result again. One process each, in turn. Exits with 1 when a video has a wrong number of frames.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from frame_writing import SIZES_PX, find_sources, make_clip, processor_s
from integrate_copy import CLIP_S, FPS, HEIGHT_PX

NUM_CLIPS = 4


def bare(clips: list[Path], output: Path) -> None:
    """One ffmpeg, decoding, concatenating and encoding."""
    from gex_pipeline.media.ffmpeg import ffmpeg_binary
    from gex_pipeline.media.settings import VideoSettings

    settings = VideoSettings()
    inputs = [word for clip in clips for word in ("-threads", "1", "-i", str(clip))]
    command = [
        *(ffmpeg_binary(), "-nostdin", "-loglevel", "error", "-y", *inputs),
        *("-filter_complex", f"concat=n={len(clips)}:v=1:a=0[v]", "-map", "[v]", "-filter_complex_threads", "1"),
        *("-c:v", "libx264", "-crf", str(settings.crf), "-preset", settings.preset, "-threads", "1", str(output)),
    ]
    subprocess.run(command, check=True)


def ours(clips: list[Path], output: Path) -> None:
    """Probe and join, by re-encoding."""
    from gex_pipeline.media.join import Piece, Probed, join_pieces, probe_pieces
    from gex_pipeline.media.settings import VideoSettings

    settings = VideoSettings(force_encode=True)
    found = probe_pieces([Piece(clip, None, CLIP_S) for clip in clips], settings)
    joined = join_pieces([answer for answer in found if isinstance(answer, Probed)], output, settings)
    if joined.way != "encode":
        raise SystemExit("WRONG it was not re-encoded")


def count_frames(video: Path) -> int:
    """Frames of a video, by decoding it."""
    import av

    with av.open(str(video)) as container:
        return sum(1 for _ in container.decode(video=0))


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="times each side is timed (default 5)")
    parser.add_argument("--clips", type=Path, help="a folder of filmed .mp4 clips (default: clips are drawn)")
    sizes_px = {height_px: (width_px, height_px) for width_px, height_px in SIZES_PX}
    parser.add_argument("--height", type=int, default=180, choices=sizes_px, help="of the clips in px (default 180)")
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {"bare": [], "ours": []}
    processor: dict[str, list[float]] = {"bare": [], "ours": []}
    with tempfile.TemporaryDirectory(prefix="gex-benchmark-") as scratch:
        clips = find_sources(arguments.clips, Path(scratch))[:NUM_CLIPS]
        if arguments.clips or arguments.height != HEIGHT_PX:
            size_px = sizes_px[arguments.height]
            clips = [make_clip(clip, Path(scratch) / f"{at}.mp4", CLIP_S, size_px) for at, clip in enumerate(clips)]
        for _ in range(arguments.repeats):
            for name, join in (("bare", bare), ("ours", ours)):
                output = Path(scratch) / f"{name}.mp4"
                started, started_processor_s = time.perf_counter(), processor_s()
                join(clips, output)
                seconds[name].append(time.perf_counter() - started)
                processor[name].append(processor_s() - started_processor_s)
                if (found := count_frames(output)) != NUM_CLIPS * CLIP_S * FPS:
                    print(f"WRONG {name} has {found} frames, expected {NUM_CLIPS * CLIP_S * FPS}")
                    return 1
    for name, values in seconds.items():
        median, processor_median = statistics.median(values), statistics.median(processor[name])
        print(
            f"{name:<5} {median:6.2f} s a group of {NUM_CLIPS} clips, {NUM_CLIPS * CLIP_S / median:6.1f} x real time;"
            f" {processor_median:6.2f} s of processor, {NUM_CLIPS * CLIP_S / processor_median:6.1f} x"
        )
    ratio = statistics.median(a / b for a, b in zip(seconds["bare"], seconds["ours"], strict=True))
    print(f"ours : bare {ratio:.2f} (median of the pairs; above 1 ours is faster)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
