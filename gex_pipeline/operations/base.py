"""What an operation is: how it groups parents, and how it makes one sample out of a group.

A new operation subclasses `Operation` in one file and names itself in the entry point group
``gex.operations``. `group` runs in DuckDB before any byte is read; `make` runs in a worker, knows no
Ray, no Prefect and no environment, and deals with one sample at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gex_pipeline import storage
from gex_pipeline.errors import FileMissingError, FileTooShortError, Reason, RejectedError, State
from gex_pipeline.layout import Layout
from gex_pipeline.recipe import NodeSettings, Recipe
from gex_pipeline.shard_format import MemberSpan, SampleRecord, Segment
from gex_pipeline.source_tars import copy_member

if TYPE_CHECKING:
    from gex_pipeline.media.join import Piece
    from gex_pipeline.tables import Database


@dataclass(frozen=True)
class MediaPlace:
    """Where a parent's media lies: a file, a byte range of a tar, or a cut of a longer video."""

    uri: str
    offset_bytes: int | None = None
    size_bytes: int | None = None
    cut_s: tuple[float, float] | None = None  # half-open, in the file
    stamp: str | None = None  # of a source tar: by what its member is known again


@dataclass(frozen=True)
class Member:
    """One parent inside a planned sample: a clip, or a sample of another granularity."""

    id: str
    source_id: str
    start_s: float
    end_s: float
    text: str
    media: MediaPlace
    segments: tuple[Segment, ...] = ()  # of a parent that is a sample itself
    facts: dict[str, Any] = field(default_factory=dict)  # of a parent sample: fields of its record that media decide


@dataclass(frozen=True)
class Group:
    """One planned sample: its key and its parents in order."""

    key: str
    group_value: str
    members: tuple[Member, ...]
    new_text: str | None = None  # a text made before the shards are built (a summary)
    source_text_digest: str | None = None
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Lost:
    """A member that does not get into the sample."""

    member: Member
    state: State
    reason: Reason
    detail: str = ""


@dataclass(frozen=True)
class Made:
    """What became of a group: a sample with its media, or nothing; and the members lost on the way."""

    record: SampleRecord | None
    media: Path | bytes | MediaPlace | None = None  # None with a record: referenced, not embedded; or frames only
    lost: tuple[Lost, ...] = ()
    frames: tuple[bytes, ...] | MediaPlace | None = None  # JPEG files, or the run of them that a parent has


@dataclass
class _Held:
    """A whole file, how many members use it, and what ends with the last of them."""

    path: Path
    until_unused: ExitStack
    num_users: int = 0


@dataclass(frozen=True)
class Workspace:
    """What a worker has: the recipe, its granularity, the output, and a scratch folder emptied for every sample."""

    recipe: Recipe
    granularity: str
    layout: Layout
    folder: Path
    rebuilds: bool = False  # whether the digest of what is made is known, so that a source tar may have grown
    fetched: list[int] = field(default_factory=list)  # bytes of every fetched file
    held: dict[str, _Held] = field(default_factory=dict)  # whole files that members are using now, by URI

    def relative(self, uri: str) -> str:
        """A shard's path relative to the output."""
        return uri.removeprefix(self.layout.output_uri.rstrip("/") + "/")

    @contextmanager
    def fetch(self, member: Member, index: int) -> Iterator[Path]:
        """A local file with the member's media; a local source file is used where it lies.

        Members whose clips are cut out of one file share it while one of them has it.

        Raises:
            RejectedError: ``media_missing`` when there is no file, ``media_changed`` when a source tar is not the one
            that was indexed.
            GexError: a shard of ours is damaged.
        """
        place = member.media
        try:
            if place.offset_bytes is not None and place.size_bytes is not None:
                target = self.folder / f"member-{index:06d}{Path(storage.name_of(place.uri)).suffix}"
                try:
                    self._copy(member, MemberSpan(place.offset_bytes, place.size_bytes), target)
                    self.fetched.append(place.size_bytes)
                    yield target
                finally:
                    target.unlink(missing_ok=True)
                return
            with self._whole(place.uri) as path:
                yield path
        except FileMissingError as error:
            raise RejectedError(Reason.media_missing, str(error), parent_id=member.id) from error
        except FileTooShortError as error:
            if member.segments:
                raise
            raise RejectedError(Reason.media_changed, str(error), parent_id=member.id) from error

    @contextmanager
    def _whole(self, uri: str) -> Iterator[Path]:
        held = self.held.get(uri)
        if held is None:
            with ExitStack() as stack:
                path = stack.enter_context(storage.local_copy(uri, self.folder))
                self.fetched.append(path.stat().st_size if path.is_file() else 0)
                held = self.held[uri] = _Held(path, stack.pop_all())
        held.num_users += 1
        try:
            yield held.path
        finally:
            held.num_users -= 1
            if not held.num_users:
                del self.held[uri]
                held.until_unused.close()

    def _copy(self, member: Member, span: MemberSpan, target: Path) -> None:
        place = member.media
        if place.stamp is None:
            storage.copy_range(place.uri, span.offset_bytes, span.size_bytes, target)
            return
        found = copy_member(place.uri, span, target, place.stamp, member_only=self.rebuilds)
        if found is not None:
            raise RejectedError(Reason.media_changed, found, parent_id=member.id)


class Operation(ABC):
    """Base of every edge: by default one sample out of each parent."""

    Parameters: ClassVar[type[NodeSettings]] = NodeSettings
    symbol: ClassVar[str] = ""
    needs_summaries: ClassVar[bool] = False  # whether a text is made for every parent before the shards are planned
    passes_media_on: ClassVar[bool] = False  # whether samples have their parent's media, so that no video is needed
    media_extension: ClassVar[str] = "mp4"

    def __init__(self, recipe: Recipe, granularity: str) -> None:
        self.recipe = recipe
        self.granularity = granularity
        self.settings: Any = recipe.granularity[granularity]

    @property
    def builds_shards(self) -> bool:
        """Whether the granularity is written as shards."""
        return True

    @property
    def group_by(self) -> str | None:
        """Column of the parents that says which belong together; None where it does not matter."""
        return None

    @property
    def planned_source(self) -> str:
        """SQL for the source id that the sample of a planned group, rows of ``plan AS m``, will have."""
        return "any_value(m.source_id)"

    @property
    def bytes_a_sample(self) -> int | None:
        """Estimated bytes of a sample whose size does not follow from its duration."""
        return self.frames_bytes if self.recipe.holds_frames_only(self.granularity) else None

    @property
    def frames_bytes(self) -> int:
        """Estimated bytes of the frames of a sample."""
        frames = self.recipe.frames_of(self.granularity)
        return frames.estimated_bytes if frames else 0

    def group(self, database: Database) -> None:
        """Make the tables ``parts`` and ``groups`` out of ``parents`` (see sql/plan_*.sql)."""
        database.run("plan_each")
        database.run("plan_groups", granularity=self.granularity, min_clips=1)

    @abstractmethod
    def make(self, group: Group, work: Workspace) -> Made:
        """Make one sample.

        Raises:
            RejectedError: the sample cannot be made; every member is recorded with that reason.
        """


def as_piece(member: Member, path: Path) -> Piece:
    """A fetched member as the media room takes it."""
    from gex_pipeline.media.join import Piece

    # Of a sample the duration is known from its own frames; only a clip's metadata can claim too much.
    claimed_s = None if member.segments else member.end_s - member.start_s
    return Piece(path=path, cut_s=member.media.cut_s, claimed_duration_s=claimed_s)


def segments_of(member: Member, offset_s: float, duration_s: float) -> tuple[Segment, ...]:
    """The source clips a member brings whole into a video, placed at `offset_s` of it.

    Of a parent that is a sample, durations are those in its video. Who cuts a member sets `end_s` and `start_s` anew.
    """
    if not member.segments:
        return (
            Segment(
                clip_id=member.id,
                source_id=member.source_id,
                offset_s=offset_s,
                duration_s=duration_s,
                start_s=member.start_s,
                end_s=member.end_s,
                text=member.text,
            ),
        )
    return tuple(
        Segment(**{**vars(segment), "offset_s": round(offset_s + segment.offset_s, 6)}) for segment in member.segments
    )
