"""Frames that lie in shards as JPEG against decoding them from the video, as the trainer's workers read both.

Draws videos of several shapes (clips joined by stream copy, as the pipeline joins them) and takes frames of them as
224x224: by `trainer.videos.video_frames`, and by `trainer.frames.run_frames` out of runs of JPEG members: those that
the pipeline writes with a short side of 256 and of 224 pixels (frames are never enlarged), and one of frames that are
cut already. Beside them, the plain loop that decodes every frame. Each side in processes of its own, with one thread,
as a loader's workers read; from memory; in seconds of processor. Exits with 1 when a picture differs from the video's
by more than JPEG and scaling explain.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from integrate_copy import CLIP_S, FPS, draw_clip

from gex_pipeline.media.frames import encode_jpeg, sample_frames
from gex_pipeline.media.join import Piece, Probed, join_pieces, probe_pieces
from gex_pipeline.media.sampling import sample_jpegs
from gex_pipeline.media.settings import FrameSettings, VideoSettings
from gex_pipeline.shard_format import ShardWriter
from trainer.frames import run_frames
from trainer.videos import Frames, video_frames

SIZE_PX, QUALITY = 224, 90
SHORT_SIDES_PX = (256, 224)
LIMIT_S = 60.0
EVERY, VIDEO = "every frame decoded", "video"
MOST_DIFFERENCE = 6.0  # mean over all pixels, of 255


class Source(NamedTuple):
    """A video, and how many frames are taken of it."""

    name: str
    num_clips: int
    clip_s: int
    width_px: int
    height_px: int
    num_frames: int

    def __str__(self) -> str:
        seconds = self.num_clips * self.clip_s
        return f"{self.name}: {self.num_frames} frames of {seconds} s of {self.width_px}x{self.height_px}"


# how much of the video lies between two frames that are taken decides what decoding costs
SOURCES = (
    Source("LVLT", 5, CLIP_S, 320, 180, 32),
    Source("SVST", 1, CLIP_S, 320, 180, 16),
    Source("short 720p", 1, 5, 1280, 720, 8),
)


def draw_video(folder: Path, source: Source) -> Path:
    """Its clips joined without encoding."""
    clips = [folder / f"clip{seed}.mp4" for seed in range(source.num_clips)]
    for seed, clip in enumerate(clips):
        draw_clip(clip, seed, duration_s=source.clip_s, width_px=source.width_px, height_px=source.height_px)
    found = probe_pieces([Piece(clip, None, source.clip_s) for clip in clips], VideoSettings())
    joined = join_pieces([one for one in found if isinstance(one, Probed)], folder / "joined.mp4", VideoSettings())
    if joined.way != "copy":
        raise SystemExit("WRONG it was not joined by copy")
    return folder / "joined.mp4"


def write_run(folder: Path, jpegs: Sequence[bytes]) -> bytes:
    """The frames as a run of tar members, as a shard of frames holds them."""
    with ShardWriter(folder / "run.tar") as writer:
        run = writer.add_run("0" * 32, jpegs)
    return (folder / "run.tar").read_bytes()[run.offset_bytes :][: run.size_bytes]


def jpegs_of(pictures_DHWC: Frames) -> list[bytes]:
    """The frames as JPEG files."""
    return [encode_jpeg(picture, QUALITY) for picture in pictures_DHWC]


def decode_all(content: bytes) -> int:
    """Frames of a video, by decoding every one."""
    with av.open(io.BytesIO(content), "r", format="mov") as container:
        container.streams.video[0].codec_context.thread_count = 1
        return sum(1 for _ in container.decode(video=0))


def timed(side: str, content: bytes, num_frames: int, repeats: int) -> float:
    """Seconds of processor that so many frames take by one side, the median over repeats."""
    torch.set_num_threads(1)
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        if side == EVERY:
            decode_all(content)
        elif side == VIDEO:
            video_frames(content, "mov", num_frames, SIZE_PX)
        else:
            run_frames(content, num_frames, SIZE_PX)
        seconds.append(time.process_time() - started)
    return statistics.median(seconds)


def rounds_of(media: dict[str, bytes], num_frames: int, num_rounds: int, repeats: int) -> Iterator[dict[str, float]]:
    """Seconds by side, round by round; each is timed in a process of its own, as a loader's worker reads one kind."""
    for _ in range(num_rounds):
        seconds = {}
        for side, content in media.items():
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as worker:
                seconds[side] = worker.submit(timed, side, content, num_frames, repeats).result()
        yield seconds


def runs_of(video: Path, num_frames: int, folder: Path) -> dict[str, bytes]:
    """Runs of frames of a video by their size."""
    runs = {}
    for short_side_px in SHORT_SIDES_PX:
        settings = FrameSettings(num=num_frames, short_side_px=short_side_px, quality=QUALITY)
        frames, jpegs = sample_jpegs(video, settings, LIMIT_S)
        runs[f"JPEG {frames.width_px}x{frames.height_px}"] = write_run(folder, jpegs)
    whole_DHWC = sample_frames(video, num_frames, SIZE_PX)
    left = (whole_DHWC.shape[2] - SIZE_PX) // 2
    runs[f"JPEG {SIZE_PX}x{SIZE_PX}"] = write_run(folder, jpegs_of(whole_DHWC[:, :, left : left + SIZE_PX]))
    return runs


def measure(source: Source, num_rounds: int, repeats: int) -> bool:
    """Print a line for each side; whether all frames are those of the video."""
    print(source)
    with tempfile.TemporaryDirectory(prefix="gex-benchmark-") as scratch:
        video = draw_video(Path(scratch), source)
        content = video.read_bytes()
        runs = runs_of(video, source.num_frames, Path(scratch))
    if (found := decode_all(content)) != source.num_clips * source.clip_s * FPS:
        print(f"WRONG the video has {found} frames")
        return False
    expected = video_frames(content, "mov", source.num_frames, SIZE_PX).astype(np.int16)
    for name, run in runs.items():
        difference = float(np.abs(run_frames(run, source.num_frames, SIZE_PX) - expected).mean())
        print(
            f"  {name}: {len(run) / 1e6:.2f} MB (video {len(content) / 1e6:.2f} MB), differs by {difference:.2f} of 255"
        )
        if difference > MOST_DIFFERENCE:
            print(f"WRONG {name} are not the frames of the video")
            return False
    rounds = list(rounds_of({EVERY: content, VIDEO: content, **runs}, source.num_frames, num_rounds, repeats))
    for side in rounds[0]:
        rates = [source.num_frames / seconds[side] for seconds in rounds]
        ratios = [seconds[VIDEO] / seconds[side] for seconds in rounds]
        print(
            f"  {side:<20} {statistics.median(rates):6.0f} sampled frames/s of processor,"
            f" {statistics.median(ratios):5.1f} x the video ({min(ratios):.1f} to {max(ratios):.1f})"
        )
    return True


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="processes each side is timed in (default 5)")
    parser.add_argument("--repeats", type=int, default=9, help="times in each process (default 9)")
    arguments = parser.parse_args()
    return 0 if all(measure(source, arguments.rounds, arguments.repeats) for source in SOURCES) else 1


if __name__ == "__main__":
    sys.exit(main())
