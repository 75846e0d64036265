"""Frames of a sample that was just made: its video in; the same sample with frames in the video's place or beside it.

Any operation that makes videos and whose parameters are `VideoNodeSettings` has this; it need not know of it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gex_pipeline import storage
from gex_pipeline.media.settings import FrameSettings
from gex_pipeline.operations.base import Made, MediaPlace, Workspace
from gex_pipeline.shard_format import FRAMES_EXTENSION


def with_frames(made: Made, settings: FrameSettings, work: Workspace) -> Made:
    """The sample with the frames that `settings` ask for; ``duration_s`` and the like stay those of its video.

    Raises:
        RejectedError: a frame of its video does not decode.
        GexError: the parent's shard that the video lies in is damaged.
    """
    from gex_pipeline.media.sampling import sample_jpegs

    if made.record is None:
        return made
    path = _local_video(made, work)
    limit_s = work.recipe.video.time_limit_s(made.record.duration_s)
    frames, pictures = sample_jpegs(path, settings, limit_s)
    if settings.beside:
        return replace(made, record=replace(made.record, frames=frames), frames=pictures)
    record = replace(made.record, frames=frames, media_extension=FRAMES_EXTENSION)
    return replace(made, record=record, media=None, frames=pictures)


def _local_video(made: Made, work: Workspace) -> Path:
    if isinstance(made.media, Path):
        return made.media
    if not isinstance(made.media, MediaPlace) or made.media.offset_bytes is None or made.media.size_bytes is None:
        raise AssertionError(f"frames are sampled from videos; {type(made.media).__name__} is none")
    path = work.folder / "embedded.mp4"
    storage.copy_range(made.media.uri, made.media.offset_bytes, made.media.size_bytes, path)
    return path
