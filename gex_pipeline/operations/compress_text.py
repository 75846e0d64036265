"""Θ_t: a sample's long text summarised by a language model, its video or frames unchanged (LVLT → LVST).

The summaries are made, checked, scored and gated before the shards are planned (see the summarise
stage); here they only meet their videos, by key and by the digest of the text they summarise.
Paper: GEXIA §3.1, appendix A.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from gex_pipeline.errors import Reason, RejectedError
from gex_pipeline.operations.base import Group, Made, MediaPlace, Operation, Workspace
from gex_pipeline.recipe import Bound, NodeSettings, VideoNodeSettings
from gex_pipeline.shard_format import FRAMES_EXTENSION, SampleRecord, text_digest
from gex_pipeline.summarize.settings import SummarizerSettings


class CompressTextSettings(VideoNodeSettings):
    """Parameters of `compress_text`."""

    summarizer: SummarizerSettings  # who summarises, and how its answers are checked
    video: Literal["embed", "reference"] = "embed"  # copy the parent's media, or point into its shard
    gates: dict[str, Bound] = Field(
        default={"sentence_cosine": Bound(min=0.5)}
    )  # score -> bound; a summary outside is rejected
    publication: dict[str, Bound] = Field(default={})  # score -> bound of its mean; outside, nothing is published

    @model_validator(mode="after")
    def _frames_are_embedded(self) -> CompressTextSettings:
        if self.frames is not None and self.video == "reference":
            raise ValueError(
                "video = 'reference' points to the parent's media, frames too where it has some; "
                "leave 'frames' out, or say video = 'embed'"
            )
        return self


class CompressText(Operation):
    """Any granularity with a long text → the same video with a short one."""

    Parameters: ClassVar[type[NodeSettings]] = CompressTextSettings
    symbol: ClassVar[str] = "Θ_t"
    needs_summaries: ClassVar[bool] = True
    passes_media_on: ClassVar[bool] = True

    @property
    def bytes_a_sample(self) -> int | None:
        """Referenced media adds nothing to the shard."""
        return 4_096 if self.settings.video == "reference" else super().bytes_a_sample

    @property
    def frames_bytes(self) -> int:
        """Neither do referenced frames."""
        return 0 if self.settings.video == "reference" else super().frames_bytes

    def make(self, group: Group, work: Workspace) -> Made:
        """Put the summary beside the parent's video, or its frames, or both.

        Raises:
            RejectedError: the summary was made from another text than the parent has now.
        """
        (member,) = group.members
        if group.new_text is None or group.source_text_digest != text_digest(member.text):
            raise RejectedError(Reason.no_answer, "the summary was made from another text", parent_id=member.id)
        referenced = self.settings.video == "reference"
        place, facts = member.media, dict(member.facts)
        frames = None
        if facts.get("media_extension") == FRAMES_EXTENSION:
            frames = place
        elif facts.get("frames_size_bytes"):
            frames = MediaPlace(place.uri, facts["frames_offset_bytes"], facts["frames_size_bytes"])
        if not referenced:
            facts |= {"frames_offset_bytes": None, "frames_size_bytes": None}
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
            **facts,
        )
        if referenced:
            return Made(record)
        return Made(record, None if frames is place else place, frames=frames)
