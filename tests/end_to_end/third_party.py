"""A distribution of somebody else with two operations in it, as pip would have put it on a path."""

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

_FRAGILE = '''
"""Joins clips, and crashes over some of them as a decoder does over a damaged file."""

import ctypes
import os
import signal
from multiprocessing import parent_process

from gex_pipeline.operations.integrate import Integrate


class Fragile(Integrate):
    def make(self, group, work):
        texts = " ".join(member.text for member in group.members)
        if "crash" in texts or texts.count("pair") > 1 or ("worker" in texts and parent_process() is None):
            ctypes.string_at(0)
        if "killed" in texts and parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().make(group, work)
'''


def install_third_party(folder: Path) -> Path:
    """Write the distribution; returns the folder that belongs on the path."""
    (folder / "shouting_edges.py").write_text(_CODE)
    (folder / "fragile_edges.py").write_text(_FRAGILE)
    info = folder / "shouting_edges-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shouting-edges\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[gex.operations]\nshout = shouting_edges:Shout\nfragile = fragile_edges:Fragile\n"
    )
    return folder
