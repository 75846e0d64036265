"""Θ_v: a video reduced to its middle frame, with the video's text (SVST → IT).

Paper: GEXIA §3.1 and appendix F.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import model_validator

from gex_pipeline.errors import RejectedError
from gex_pipeline.operations.base import Group, Made, Operation, Workspace, as_piece, segments_of
from gex_pipeline.recipe import NodeSettings
from gex_pipeline.shard_format import SampleRecord

_TYPICAL_JPEG_BYTES = 30_000  # a planning figure for shard sizes only


class CompressVideoSettings(NodeSettings):
    """Parameters of `compress_video`: none of its own."""

    @model_validator(mode="before")
    @classmethod
    def _has_no_frames(cls, table: Any) -> Any:
        if isinstance(table, dict) and "frames" in table:
            raise ValueError("'frames' are sampled from videos, and compress_video makes images; leave it out")
        return table


class CompressVideo(Operation):
    """Any granularity → one image and its text."""

    Parameters: ClassVar[type[NodeSettings]] = CompressVideoSettings
    symbol: ClassVar[str] = "Θ_v"
    media_extension: ClassVar[str] = "jpg"

    @property
    def bytes_a_sample(self) -> int | None:
        """An image's size does not follow from the video's duration."""
        return _TYPICAL_JPEG_BYTES

    def make(self, group: Group, work: Workspace) -> Made:
        """Take the frame in the middle of the presentation time."""
        from gex_pipeline.media.frames import middle_frame_jpeg
        from gex_pipeline.media.join import probe_pieces

        (member,) = group.members
        with work.fetch(member, 0) as path:
            (answer,) = probe_pieces([as_piece(member, path)], self.recipe.video)
            if isinstance(answer, RejectedError):
                raise answer
            content, width_px, height_px = middle_frame_jpeg(answer.probe.path, self.recipe.video, member.media.cut_s)
        record = SampleRecord(
            key=group.key,
            granularity=self.granularity,
            source_id=member.source_id,
            parents=(member.id,),
            segments=segments_of(member, 0.0, 0.0),
            text=member.text,
            duration_s=0.0,
            width_px=width_px,
            height_px=height_px,
            fps=0.0,
            codec="jpeg",
            made_by="frame",
            media_extension=self.media_extension,
        )
        return Made(record, content)
