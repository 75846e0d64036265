"""Θ_t: a sample's long text summarised by a language model, its video unchanged (LVLT → LVST).

The summaries are made, checked, scored and gated before the shards are planned (see the summarise
stage); here they only meet their videos, by key and by the digest of the text they summarise.
Paper: GEXIA §3.1, appendix A.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from gex_pipeline.errors import Reason, RejectedError
from gex_pipeline.operations.base import Group, Made, Operation, Workspace
from gex_pipeline.recipe import Bound, NodeSettings
from gex_pipeline.shard_format import SampleRecord, text_digest
from gex_pipeline.summarize.settings import SummarizerSettings


class CompressTextSettings(NodeSettings):
    """Parameters of `compress_text`."""

    summarizer: SummarizerSettings  # who summarises, and how its answers are checked
    video: Literal["embed", "reference"] = "embed"  # copy the video's bytes, or point into the parent's shard
    gates: dict[str, Bound] = Field(
        default={"sentence_cosine": Bound(min=0.5)}
    )  # score -> bound; a summary outside is rejected
    publication: dict[str, Bound] = Field(default={})  # score -> bound of its mean; outside, nothing is published


class CompressText(Operation):
    """Any granularity with a long text → the same video with a short one."""

    Parameters: ClassVar[type[NodeSettings]] = CompressTextSettings
    symbol: ClassVar[str] = "Θ_t"
    needs_summaries: ClassVar[bool] = True

    @property
    def bytes_a_sample(self) -> int | None:
        """A referenced video adds nothing to the shard."""
        return 4_096 if self.settings.video == "reference" else None

    def make(self, group: Group, work: Workspace) -> Made:
        """Put the summary beside the parent's video.

        Raises:
            RejectedError: the summary was made from another text than the parent has now.
        """
        (member,) = group.members
        if group.new_text is None or group.source_text_digest != text_digest(member.text):
            raise RejectedError(Reason.no_answer, "the summary was made from another text", parent_id=member.id)
        referenced = self.settings.video == "reference"
        place = member.media
        record = SampleRecord(
            key=group.key,
            granularity=self.granularity,
            source_id=member.source_id,
            parents=(member.id,),
            segments=member.segments,
            text=group.new_text,
            source_text_digest=group.source_text_digest,
            scores=group.scores,
            made_by="reference" if referenced else "embed",
            media_uri=work.relative(place.uri) if referenced else None,
            media_offset_bytes=place.offset_bytes if referenced else None,
            media_size_bytes=place.size_bytes if referenced else None,
            **member.facts,
        )
        return Made(record, None if referenced else place)
