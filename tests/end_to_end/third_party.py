"""A distribution of somebody else with one operation in it, as pip would have put it on a path."""

from __future__ import annotations

from pathlib import Path

_CODE = '''
"""Shouts a clip's text and keeps its video."""

from pydantic import Field

from gex_pipeline.operations.base import Made, Operation, as_piece, segments_of
from gex_pipeline.recipe import NodeSettings
from gex_pipeline.shard_format import SampleRecord


class ShoutSettings(NodeSettings):
    marks: int = Field(default=1, ge=1)


class Shout(Operation):
    Parameters = ShoutSettings
    symbol = "!"

    def make(self, group, work):
        from gex_pipeline.media.join import join_pieces, probe_pieces

        (member,) = group.members
        with work.fetch(member, 0) as path:
            (answer,) = probe_pieces([as_piece(member, path)], self.recipe.video)
            if isinstance(answer, Exception):
                raise answer
            joined = join_pieces([answer], work.folder / "joined.mp4", self.recipe.video)
        record = SampleRecord(
            key=group.key,
            granularity=self.granularity,
            source_id=member.source_id,
            parents=(member.id,),
            segments=segments_of(member, 0.0, joined.duration_s),
            text=member.text.upper() + "!" * self.settings.marks,
            duration_s=joined.duration_s,
            width_px=joined.width_px,
            height_px=joined.height_px,
            fps=joined.fps,
            codec=joined.codec,
            made_by=joined.way,
        )
        return Made(record, joined.path)
'''


def install_third_party(folder: Path) -> Path:
    """Write the distribution; returns the folder that belongs on the path."""
    (folder / "shouting_edges.py").write_text(_CODE)
    info = folder / "shouting_edges-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shouting-edges\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gex.operations]\nshout = shouting_edges:Shout\n")
    return folder
