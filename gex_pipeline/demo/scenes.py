"""Draws the frames of one scene and writes them as one clip file.

In: a `Scene`, a size, a number of frames, a seed. Out: RGB frames, and MP4 files (H.264, yuv420p, no audio, constant
rate, first frame a key frame, no B-frames so that the first frame is at time zero). Invariants: the same arguments give
the same bytes with the same libraries (one encoding thread, bit-exact muxing, no dates); all files of one size and rate
share their codec parameters, so they can be joined without encoding. The index precedes the media data in each file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gex_pipeline.demo.backdrops import draw_backdrop
from gex_pipeline.demo.captions import Actor, Scene
from gex_pipeline.demo.motions import Stage, Track, move
from gex_pipeline.demo.shapes import Pose, draw_shape
from gex_pipeline.demo.vocabulary import SHAPE_COLORS, SIZES

Bytes = NDArray[np.uint8]


def draw_scene(
    scene: Scene, num_frames: int, fps: int, size_px: tuple[int, int], seed: tuple[int, ...]
) -> Iterator[Bytes]:
    """Yield the frames of `scene`, RGB [H, W, 3]; `size_px` = (height, width)."""
    rng = np.random.default_rng(seed)
    height_px, width_px = size_px
    backdrop_HWC = draw_backdrop(scene.backdrop.pattern, scene.backdrop.color, size_px, rng)
    stage = Stage(
        progress=np.linspace(0.0, 1.0, num_frames),
        seconds=np.arange(num_frames) / fps,
        aspect=width_px / height_px,
        radius=SIZES[scene.actor.size],
        other_radius=SIZES[scene.other.size] if scene.other else 0.0,
        rng=rng,
    )
    main, other = move(scene.action, stage)
    drawn = [(scene.actor, _poses(main, num_frames, height_px))]
    if scene.other is not None and other is not None:
        drawn.insert(0, (scene.other, _poses(other, num_frames, height_px)))
    for frame in range(num_frames):
        yield _draw_frame(backdrop_HWC, [(actor, poses[frame]) for actor, poses in drawn])


def _draw_frame(backdrop_HWC: NDArray[np.float64], actors: list[tuple[Actor, Pose]]) -> Bytes:
    picture_HWC = backdrop_HWC.copy()
    for actor, pose in actors:
        draw_shape(picture_HWC, actor.shape, SHAPE_COLORS[actor.color], pose)
    return (picture_HWC + 0.5).astype(np.uint8)


def _poses(track: Track, num_frames: int, height_px: int) -> list[Pose]:
    columns = np.empty((num_frames, 5))
    lengths = (track.x, track.y, track.radius)
    for index, values in enumerate((*(height_px * length for length in lengths), track.angle, track.alpha)):
        columns[:, index] = values
    return [Pose(*map(float, row)) for row in columns]


def write_clip(path: Path, frames: Iterable[Bytes], fps: int, size_px: tuple[int, int]) -> None:
    """Encode `frames` into the MP4 file `path`, which is overwritten."""
    import av

    height_px, width_px = size_px
    options = {"fflags": "+bitexact", "movflags": "+faststart"}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=fps, options=_X264)
        stream.width, stream.height, stream.pix_fmt = width_px, height_px, "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        for index, frame_HWC in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
            frame.pts, frame.time_base, frame.duration = index, Fraction(1, fps), 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


# Fixed quantiser and nothing that looks ahead: x264's rate control works in floats, and with it about one clip in three
# hundred came out with other bytes on a busy machine.
_X264: dict[str, Any] = {
    "preset": "veryfast",
    "qp": "22",
    "flags": "+bitexact",
    "x264-params": "threads=1:bframes=0:keyint=48:scenecut=0:rc-lookahead=0:mbtree=0:aq-mode=0:weightp=0",
}
