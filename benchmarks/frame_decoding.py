"""Frames that lie in shards as JPEG against decoding them from the video, as the trainer's workers read both.

Draws 50 s of 320x180 H.264 (five clips joined by stream copy, as the pipeline joins them) and takes 32 frames of it as
224x224: by `trainer.frames.video_frames`, and by `trainer.frames.run_frames` out of a run of JPEG members that was
written from the same frames, once whole (398x224) and once cut to the square. Below them, the plain loop that decodes
every frame. One process, one thread, from memory; seconds of processor beside wall time. Exits with 1 when a picture
differs from the video's by more than JPEG and scaling explain.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from integrate_copy import CLIP_S, FPS, draw_clip

from gex_pipeline.media.frames import encode_jpeg, sample_frames
from gex_pipeline.media.join import Piece, Probed, join_pieces, probe_pieces
from gex_pipeline.media.settings import VideoSettings
from gex_pipeline.shard_format import ShardWriter
from trainer.frames import Frames, run_frames, video_frames

NUM_CLIPS, NUM_FRAMES, SIZE_PX, QUALITY = 5, 32, 224, 90
MOST_DIFFERENCE = 6.0  # mean over all pixels, of 255


def draw_video(folder: Path) -> Path:
    """Five clips joined without encoding."""
    clips = [folder / f"clip{seed}.mp4" for seed in range(NUM_CLIPS)]
    for seed, clip in enumerate(clips):
        draw_clip(clip, seed)
    found = probe_pieces([Piece(clip, None, CLIP_S) for clip in clips], VideoSettings())
    joined = join_pieces([one for one in found if isinstance(one, Probed)], folder / "joined.mp4", VideoSettings())
    if joined.way != "copy":
        raise SystemExit("WRONG it was not joined by copy")
    return folder / "joined.mp4"


def write_run(folder: Path, pictures_DHWC: Frames) -> bytes:
    """The frames as a run of tar members, as a shard of frames holds them."""
    with ShardWriter(folder / "run.tar") as writer:
        run = writer.add_run("0" * 32, [encode_jpeg(picture, QUALITY) for picture in pictures_DHWC])
    return (folder / "run.tar").read_bytes()[run.offset_bytes :][: run.size_bytes]


def decode_all(content: bytes) -> int:
    """Frames of a video, by decoding every one."""
    with av.open(io.BytesIO(content), "r", format="mov") as container:
        container.streams.video[0].codec_context.thread_count = 1
        return sum(1 for _ in container.decode(video=0))


def timed(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Seconds of processor and of wall time, the median of each."""
    processor_s, wall_s = [], []
    for _ in range(repeats):
        started = time.process_time(), time.perf_counter()
        work()
        processor_s.append(time.process_time() - started[0])
        wall_s.append(time.perf_counter() - started[1])
    return statistics.median(processor_s), statistics.median(wall_s)


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="times each side is timed (default 9)")
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory(prefix="gex-benchmark-") as scratch:
        video = draw_video(Path(scratch))
        whole_DHWC = sample_frames(video, NUM_FRAMES, SIZE_PX)
        left = (whole_DHWC.shape[2] - SIZE_PX) // 2
        content = video.read_bytes()
        runs = {
            "JPEG 398x224": write_run(Path(scratch), whole_DHWC),
            "JPEG 224x224": write_run(Path(scratch), whole_DHWC[:, :, left : left + SIZE_PX]),
        }
    if (found := decode_all(content)) != NUM_CLIPS * CLIP_S * FPS:
        print(f"WRONG the video has {found} frames")
        return 1
    expected = video_frames(content, "mov", NUM_FRAMES, SIZE_PX).astype(np.int16)
    for name, run in runs.items():
        difference = float(np.abs(run_frames(run, NUM_FRAMES, SIZE_PX) - expected).mean())
        print(
            f"{name}: {len(run) / 1e6:.2f} MB (video {len(content) / 1e6:.2f} MB), differs by {difference:.2f} of 255"
        )
        if difference > MOST_DIFFERENCE:
            print(f"WRONG {name} are not the frames of the video")
            return 1
    sides: dict[str, Callable[[], object]] = {
        "every frame decoded": lambda: decode_all(content),
        "video": lambda: video_frames(content, "mov", NUM_FRAMES, SIZE_PX),
        **{name: lambda run=run: run_frames(run, NUM_FRAMES, SIZE_PX) for name, run in runs.items()},  # type: ignore[misc]
    }
    seconds = {name: timed(work, repeats) for name, work in sides.items()}
    for name, (processor_s, wall_s) in seconds.items():
        ratio = seconds["video"][0] / processor_s
        print(
            f"{name:<20} {NUM_FRAMES / processor_s:7.0f} sampled frames/s of processor "
            f"({NUM_FRAMES / wall_s:.0f} by the clock), {ratio:5.1f} x the video"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
