"""⊕: parents that belong together, in time order, joined into one longer sample.

Videos are concatenated (⊕_v) and texts are concatenated (⊕_t); duration and words add up.
Paper: GEXIA §3.1, integration; §4.1 (videos with fewer than four clips are left out);
appendix A (random concatenation). Nothing here touches text beyond joining it.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from gex_pipeline.errors import Reason, RejectedError, State
from gex_pipeline.operations.base import Group, Lost, Made, Member, Operation, Workspace, as_piece, segments_of
from gex_pipeline.recipe import NodeSettings, VideoNodeSettings
from gex_pipeline.shard_format import SampleRecord
from gex_pipeline.summarize.writing import CLOSING, SPACED_ENDS, UNSPACED_ENDS

if TYPE_CHECKING:
    from gex_pipeline.media.join import Joined, Probed
    from gex_pipeline.tables import Database

_FINAL_PUNCTUATION = tuple(SPACED_ENDS + UNSPACED_ENDS)
_NO_LIMIT = 10**12
_LEAVE = "leave it out, or group by a column"


def join_texts(texts: list[str]) -> str:
    """⊕_t: texts in order with one space between, a full stop added where one lacks final punctuation."""
    return " ".join(
        text if text.rstrip(CLOSING).endswith(_FINAL_PUNCTUATION) else f"{text}." for text in map(str.strip, texts)
    )


class IntegrateSettings(VideoNodeSettings):
    """Parameters of `integrate`."""

    by: str = "source_id"  # column that says which clips belong together; "random" needs no metadata
    min_clips: int = Field(default=4, ge=1)  # fewer make no sample
    max_clips: int | None = Field(default=None, ge=1)  # more are split into several samples
    max_duration_s: float | None = Field(default=None, gt=0)  # longer is split into several samples
    max_gap_s: float | None = Field(default=None, ge=0)  # a longer gap between two clips of a source splits it
    overlap: Literal["keep", "reject"] = "keep"  # a clip that begins before the one before it ends

    @model_validator(mode="after")
    def _sizes_agree(self) -> IntegrateSettings:
        if self.max_clips is not None and self.max_clips < self.min_clips:
            raise ValueError(f"max_clips = {self.max_clips} is less than min_clips = {self.min_clips}")
        return self

    @model_validator(mode="after")
    def _random_has_no_time(self) -> IntegrateSettings:
        # By value: the recipe that an output stores has every default written out.
        if self.by == "random" and self.max_gap_s is not None:
            raise ValueError(f"by = 'random' has no gaps between clips, found max_gap_s = {self.max_gap_s:g}; {_LEAVE}")
        if self.by == "random" and self.overlap != "keep":
            raise ValueError(f"by = 'random' looks at no overlaps, found overlap = {self.overlap!r}; {_LEAVE}")
        return self


class Integrate(Operation):
    """SVST → LVLT, LVLT → a still longer granularity."""

    Parameters: ClassVar[type[NodeSettings]] = IntegrateSettings
    symbol: ClassVar[str] = "⊕"

    @property
    def group_by(self) -> str | None:
        """The column the recipe groups by; none in random mode."""
        return None if self.settings.by == "random" else str(self.settings.by)

    @property
    def planned_source(self) -> str:
        """What the group has in common, as in `make`."""
        return "m.key" if self.settings.by == "random" else "any_value(m.group_value)"

    def group(self, database: Database) -> None:
        """Order, split and count; what stays under `min_clips` makes no group."""
        settings: IntegrateSettings = self.settings
        self._order(database)
        if settings.max_gap_s is not None:
            database.run("plan_sessions", max_gap_s=settings.max_gap_s)
        else:
            database.run("plan_sessions_none")
        if settings.max_clips is not None or settings.max_duration_s is not None:
            database.run(
                "plan_parts",
                max_clips=settings.max_clips or _NO_LIMIT,
                max_duration_s=settings.max_duration_s or float(_NO_LIMIT),
            )
        else:
            database.run("plan_parts_none")
        database.run("plan_groups", granularity=self.granularity, min_clips=settings.min_clips)

    def _order(self, database: Database) -> None:
        settings: IntegrateSettings = self.settings
        if settings.by == "random":
            size = settings.max_clips or settings.min_clips
            database.run("plan_order_random", seed=self.recipe.seed, group_size=size)
            return
        database.run("plan_order", min_clips=settings.min_clips)
        if settings.overlap == "reject":
            database.run("plan_overlaps")
            if database.count("overlapping"):
                database.run("plan_order_apart", min_clips=settings.min_clips)

    def make(self, group: Group, work: Workspace) -> Made:
        """Fetch, probe and join; members that cannot be used are left out while enough remain."""
        with ExitStack() as stack:
            usable, lost = _usable_members(group, work, stack)
            joined: Joined | None = None
            while joined is None:
                if len(usable) < self.settings.min_clips:
                    detail = f"{len(usable)} of {len(group.members)} clips usable, {self.settings.min_clips} needed"
                    rest = [Lost(member, State.excluded, Reason.too_few_clips, detail) for member, _ in usable]
                    return Made(None, lost=(*lost, *rest))
                try:
                    joined = _join(usable, lost, work)
                except RejectedError as error:  # those lost before keep their own reasons
                    rest = [Lost(member, State.rejected, error.reason, error.detail) for member, _ in usable]
                    return Made(None, lost=(*lost, *rest))
        members = [member for member, _ in usable]
        segments = [
            segment
            for member, placed in zip(members, joined.segments, strict=True)
            for segment in segments_of(member, round(placed.offset_s, 6), round(placed.duration_s, 6))
        ]
        record = SampleRecord(
            key=group.key,
            granularity=self.granularity,
            # Random groups mix sources; the key keeps them apart where readers go by source.
            source_id=group.key if self.settings.by == "random" else group.group_value,
            parents=tuple(member.id for member in members),
            segments=tuple(segments),
            text=join_texts([member.text for member in members]),
            duration_s=round(joined.duration_s, 6),
            width_px=joined.width_px,
            height_px=joined.height_px,
            fps=round(joined.fps, 6),
            codec=joined.codec,
            made_by=joined.way,
        )
        return Made(record, joined.path, tuple(lost))


def _join(usable: list[tuple[Member, Probed]], lost: list[Lost], work: Workspace) -> Joined | None:
    """The joined video; none when it turns out that some members cannot be used, which are lost then."""
    from gex_pipeline.media.join import UnusablePiecesError, join_pieces

    try:
        return join_pieces([probed for _, probed in usable], work.folder / "joined.mp4", work.recipe.video)
    except UnusablePiecesError as error:
        for index in sorted(error.rejected, reverse=True):
            member, _ = usable.pop(index)
            lost.append(Lost(member, State.rejected, error.rejected[index].reason, error.rejected[index].detail))
        return None


def _usable_members(group: Group, work: Workspace, stack: ExitStack) -> tuple[list[tuple[Member, Probed]], list[Lost]]:
    """The members whose media is there and sound, with what the probe found; the rest with their reasons."""
    from gex_pipeline.media.join import probe_pieces

    fetched, lost = [], []
    for index, member in enumerate(group.members):
        try:
            fetched.append((member, as_piece(member, stack.enter_context(work.fetch(member, index)))))
        except RejectedError as error:
            lost.append(Lost(member, State.rejected, error.reason, error.detail))
    usable = []
    answers = probe_pieces([piece for _, piece in fetched], work.recipe.video)
    for (member, _), answer in zip(fetched, answers, strict=True):
        if isinstance(answer, RejectedError):
            lost.append(Lost(member, State.rejected, answer.reason, answer.detail))
        else:
            usable.append((member, answer))
    return usable, lost
