"""The scoring worker and what it looks at: pairs of texts, or samples' media with their texts, in; rows of scores out.

It imports no ray: `ray_jobs.ScorerPool` runs it on Ray's workers. A sample whose media cannot be read is no error here:
it has no scores, and says why.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gex_pipeline import storage
from gex_pipeline.errors import RejectedError
from gex_pipeline.shard_format import FRAMES_EXTENSION, IMAGE_EXTENSIONS, DamagedRunError
from gex_pipeline.validate.settings import ScorerSettings

CLIP_VIDEO_NAMES = ("clip_video_long_text", "clip_video_short_text")


@dataclass(frozen=True)
class VideoToScore:
    """A sample's video, its frames or its picture, in its tar, and the texts it is compared with."""

    uri: str
    offset_bytes: int
    size_bytes: int
    extension: str
    long_text: str
    short_text: str


@dataclass(frozen=True)
class VideoScores:
    """CLIP cosines of a sample's media with its texts; none where it could not be looked at, and why."""

    scores: dict[str, float] = field(default_factory=dict)
    refusal: str = ""


def frames_to_score(row: VideoToScore, num_frames: int) -> list[Any]:
    """Frames that stand for a video, or for the frames in its place, as RGB of shape (H, W, 3); a picture is itself.

    Raises:
        RejectedError: not_a_video, no_frames, undecodable or ffmpeg_timeout.
        DamagedRunError: what should be a run of frames is none.
    """
    from gex_pipeline.media.frames import sample_frames
    from gex_pipeline.media.sampling import run_pictures
    from gex_pipeline.report.pictures import open_picture

    if row.extension == FRAMES_EXTENSION:
        return list(run_pictures(storage.read_range(row.uri, row.offset_bytes, row.size_bytes), num_frames))
    if row.extension in IMAGE_EXTENSIONS:
        return [open_picture(storage.read_range(row.uri, row.offset_bytes, row.size_bytes))]
    with tempfile.TemporaryDirectory(prefix="gex-clip-") as folder:
        video = Path(folder) / "video.mp4"
        storage.copy_range(row.uri, row.offset_bytes, row.size_bytes, video)
        return list(sample_frames(video, num_frames))


class Scorer:
    """The scoring worker: loads its models at the first call and keeps them on `device` (None: the GPU it has)."""

    def __init__(self, scores: ScorerSettings, device: str | None) -> None:
        from gex_pipeline.validate.scorers import TextScorers

        self._scorers = TextScorers(scores, device=device)
        self._num_frames = scores.clip_frames

    def score_texts(self, pairs: list[tuple[str, str]]) -> list[dict[str, float]]:
        """Scores of each summary against its long text."""
        return self._scorers.score([summary for summary, _ in pairs], [long_text for _, long_text in pairs])

    def score_videos(self, rows: list[VideoToScore]) -> list[VideoScores]:
        """CLIP cosines of each sample's media with its long and its short text."""
        return [self._score_video(row) for row in rows]

    def cpu_s(self) -> float:
        """Processor seconds of this worker."""
        return time.process_time()

    def _score_video(self, row: VideoToScore) -> VideoScores:
        clip = self._scorers.clip
        try:
            seen = clip.embed_video(frames_to_score(row, self._num_frames))
        except (RejectedError, DamagedRunError) as error:
            return VideoScores(refusal=str(error))
        long_text, short_text = clip.embed_texts([row.long_text, row.short_text])
        return VideoScores(
            dict(zip(CLIP_VIDEO_NAMES, (float(seen @ long_text), float(seen @ short_text)), strict=True))
        )
