"""The source node: the clips themselves, packed as shards when the recipe says ``pack = true``.

Packing brings SVST into the published data set, so that a trainer reads all granularities alike.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from gex_pipeline.operations.base import Group, Made, Operation, Workspace, as_piece, segments_of
from gex_pipeline.recipe import NodeSettings, VideoNodeSettings
from gex_pipeline.shard_format import SampleRecord


class SourceNodeSettings(VideoNodeSettings):
    """Parameters of the source granularity."""

    pack: bool = False  # write the clips as shards too; off, they stay where they are

    @model_validator(mode="after")
    def _frames_need_shards(self) -> SourceNodeSettings:
        if self.frames is not None and not self.pack:
            raise ValueError("frames are written into shards, and there are none of the clips; say pack = true")
        return self


class Source(Operation):
    """SVST as it came, one clip a sample."""

    Parameters: ClassVar[type[NodeSettings]] = SourceNodeSettings

    @property
    def builds_shards(self) -> bool:
        """Whether the recipe asks for shards of the clips."""
        return bool(self.settings.pack)

    def make(self, group: Group, work: Workspace) -> Made:
        """Check one clip and write it in the common container."""
        from gex_pipeline.errors import RejectedError
        from gex_pipeline.media.join import join_pieces, probe_pieces

        (member,) = group.members
        with work.fetch(member, 0) as path:
            (answer,) = probe_pieces([as_piece(member, path)], self.recipe.video)
            if isinstance(answer, RejectedError):
                raise answer
            joined = join_pieces([answer], work.folder / "joined.mp4", self.recipe.video)
        record = SampleRecord(
            key=group.key,
            granularity=self.granularity,
            source_id=member.source_id,
            parents=(member.id,),
            segments=segments_of(member, 0.0, round(joined.duration_s, 6)),
            text=member.text,
            duration_s=round(joined.duration_s, 6),
            width_px=joined.width_px,
            height_px=joined.height_px,
            fps=round(joined.fps, 6),
            codec=joined.codec,
            made_by=joined.way,
        )
        return Made(record, joined.path)
