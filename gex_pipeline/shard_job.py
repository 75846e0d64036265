"""Builds one shard: plan rows in; tar, losses and receipt out, in that order. A plain function.

Knows no Ray and no Prefect. Kill it anywhere: without a receipt there is no shard, and the next run
builds it again to the same bytes. One bad sample costs itself; it becomes rows of losses.
"""

from __future__ import annotations

import json
import platform
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gex_pipeline import registry, storage
from gex_pipeline.errors import GexError, RejectedError, State
from gex_pipeline.layout import Layout
from gex_pipeline.operations.base import Group, Lost, Made, MediaPlace, Member, Operation, Workspace
from gex_pipeline.operations.sampling import with_frames
from gex_pipeline.receipts import write_losses, write_receipt
from gex_pipeline.recipe import Recipe, VideoNodeSettings
from gex_pipeline.run_state import read_state
from gex_pipeline.shard_format import (
    DamagedRunError,
    Frames,
    Loss,
    MemberSpan,
    Receipt,
    SampleRecord,
    Segment,
    ShardWriter,
    split_run,
)


@dataclass(frozen=True)
class PublishedShard:
    """What is known of a shard that was published and is built again."""

    sha256: str
    lost: frozenset[str]  # parents it was built without, though their media may have been repaired since


@dataclass(frozen=True)
class ShardJob:
    """What every shard of one granularity in one run has in common. Pickles small."""

    recipe: Recipe
    granularity: str
    plan_uri: str
    plan_digest: str
    published: Mapping[int, PublishedShard] = field(default_factory=dict)  # shards that are built again
    run_id: str | None = None  # run.json has to name this run when a shard is published; none: any run

    @property
    def layout(self) -> Layout:
        """Where the output lies."""
        return Layout(self.recipe.output_uri)


@dataclass(frozen=True)
class ShardResult:
    """What a finished shard reports: small figures, never bytes of media."""

    shard: int
    num_samples: int
    num_lost: int
    num_bytes: int
    bytes_read: int  # of media
    lost: str  # JSON: parents it could not use, by reason
    host: str
    started_s: float  # Unix time
    seconds: float
    cpu_s: float  # of this process and of those it started


Maker = Callable[[Operation, Group, Workspace], Made]


def build_shard(job: ShardJob, shard: int, maker: Maker | None = None) -> ShardResult:
    """Build and publish one shard; `maker` makes its samples (none: `make_sample`).

    Raises:
        GexError: storage refuses; TransientError when it may pass.
    """
    started_s, clock_s, cpu_s = time.time(), time.monotonic(), _cpu_s()
    bytes_read = 0
    operation: Operation = registry.load_operation(job.recipe.granularity[job.granularity].operation)(
        job.recipe, job.granularity
    )
    records: list[SampleRecord] = []
    losses: list[Loss] = []
    with storage.scratch_folder(f"gex-{job.granularity}-{shard:06d}-") as folder:
        tar_file, scratch = folder / "shard.tar", folder / "sample"
        scratch.mkdir()
        with ShardWriter(tar_file) as writer:
            for group in read_groups(job, shard):
                work = Workspace(job.recipe, job.granularity, job.layout, scratch, shard in job.published)
                try:
                    made = (maker or make_sample)(operation, group, work)
                except Exception as error:
                    error.add_note(f"sample {group.key}")
                    raise
                losses += [_as_loss(job.granularity, lost, group) for lost in made.lost]
                if made.record is not None:
                    records.append(_add_sample(writer, made.record, made, job, shard))
                bytes_read += sum(work.fetched) + _bytes_copied(made)
                _empty(scratch)
        receipt = Receipt(
            job.granularity, shard, job.plan_digest, job.recipe.hash, len(records), writer.num_bytes, writer.sha256
        )
        if shard in job.published and job.published[shard].sha256 != writer.sha256:
            raise GexError(
                f"built again, {job.layout.tar_path(job.granularity, shard)} is not what was published: "
                + (f"{losses[0].id} {losses[0].reason}" if losses else "its media or the software have changed")
                + ". Nothing was replaced; put back the media, or the shard from a copy"
            )
        tar_uri = job.layout.tar(job.granularity, shard)
        _check_current(job)
        if records:
            storage.publish_file(tar_file, tar_uri)
        else:
            storage.remove(tar_uri)  # of an abandoned run
    _check_current(job)
    _write_receipt(job, receipt, records, losses)
    return ShardResult(
        shard=shard,
        num_samples=len(records),
        num_lost=len(losses),
        num_bytes=receipt.num_bytes if records else 0,
        bytes_read=bytes_read,
        lost=json.dumps(Counter(loss.reason for loss in losses), sort_keys=True),
        host=platform.node(),
        started_s=started_s,
        seconds=time.monotonic() - clock_s,
        cpu_s=_cpu_s() - cpu_s,
    )


def _check_current(job: ShardJob) -> None:
    """Refuse to publish for a run that is over: its worker outlived it, and the next run planned other shards.

    Over the same inputs the next run has the same id and the same bytes, so there is nothing to refuse.
    """
    state = read_state(job.layout) if job.run_id else None
    if state is not None and state.get("run_id") != job.run_id:
        raise GexError(
            f"run {job.run_id} is over, {job.layout.output_uri} is run {state.get('run_id')}'s now; nothing is written"
        )


def _write_receipt(job: ShardJob, receipt: Receipt, records: list[SampleRecord], losses: list[Loss]) -> None:
    shard = receipt.shard
    try:
        losses_uri = job.layout.losses(job.granularity, shard)
        if losses:
            write_losses(losses_uri, losses)
        else:
            storage.remove(losses_uri)
        write_receipt(job.layout.receipt(job.granularity, shard), receipt, records)
    except GexError:
        # The disk took the tar and not the receipt: no shard, though a glob would take it for one.
        if shard not in job.published:
            with suppress(GexError):
                storage.remove(job.layout.tar(job.granularity, shard))
        raise


def make_sample(operation: Operation, group: Group, work: Workspace) -> Made:
    """Let the operation make one sample; what is raised for the whole group becomes the loss of every member."""
    made = Made(None)
    settings = operation.settings
    try:
        made = operation.make(group, work)
        if made.record is not None and isinstance(settings, VideoNodeSettings) and settings.frames is not None:
            return with_frames(made, settings.frames, work)
        return made
    except RejectedError as error:
        detail = error.detail
        if error.parent_id is not None and len(group.members) > 1:
            detail = f"{detail} (parent {error.parent_id})"
        before = {lost.member.id for lost in made.lost}  # these keep their own reasons
        rest = [Lost(one, State.rejected, error.reason, detail) for one in group.members if one.id not in before]
        return Made(None, lost=(*made.lost, *rest))


def _add_sample(writer: ShardWriter, record: SampleRecord, made: Made, job: ShardJob, shard: int) -> SampleRecord:
    """Write the members of one sample next to each other; the record with the places of media and frames filled in."""
    video = _add_media(writer, f"{record.key}.{record.media_extension}", made.media)
    run = None if made.frames is None else writer.add_run(record.key, _pictures(made.frames))
    writer.add_bytes(f"{record.key}.txt", record.text.encode())
    writer.add_bytes(f"{record.key}.json", record.to_json(job.recipe.hash))
    media = video or run
    if media is None:
        return record
    uri = job.layout.tar_path(job.granularity, shard)
    record = replace(record, media_uri=uri, media_offset_bytes=media.offset_bytes, media_size_bytes=media.size_bytes)
    if video is None or run is None:
        return record
    return replace(record, frames_offset_bytes=run.offset_bytes, frames_size_bytes=run.size_bytes)


def _add_media(writer: ShardWriter, name: str, media: Path | bytes | MediaPlace | None) -> MemberSpan | None:
    if isinstance(media, bytes):
        return writer.add_bytes(name, media)
    if isinstance(media, Path):
        return writer.add_file(name, media)
    if isinstance(media, MediaPlace):
        with storage.open_read(media.uri) as stream:
            stream.seek(media.offset_bytes or 0)
            return writer.add_stream(name, stream, media.size_bytes or 0)
    return None


def _bytes_copied(made: Made) -> int:
    """Bytes that a sample takes over out of its parent's shard."""
    return sum(part.size_bytes or 0 for part in (made.media, made.frames) if isinstance(part, MediaPlace))


def _pictures(frames: tuple[bytes, ...] | MediaPlace) -> Sequence[bytes]:
    """JPEG files; out of a parent's run of them, whose members bear the parent's key.

    Raises:
        GexError: the run is damaged.
    """
    if not isinstance(frames, MediaPlace):
        return frames
    content = storage.read_range(frames.uri, frames.offset_bytes or 0, frames.size_bytes or 0)
    try:
        return split_run(content)
    except DamagedRunError as error:
        raise GexError(f"{frames.uri!r}: {error}") from error


def read_groups(job: ShardJob, shard: int) -> Iterator[Group]:
    """The planned samples of a shard, by key, members in order."""
    rows = _read_plan(job.plan_uri, shard)
    rows = rows.sort_by([("key", "ascending"), ("position", "ascending")])
    lost = job.published[shard].lost if shard in job.published else ()
    for batch in _by_key([row for row in rows.to_pylist() if row["id"] not in lost]):
        first = batch[0]
        yield Group(
            key=first["key"],
            group_value=first["group_value"],
            members=tuple(_member(row) for row in batch),
            new_text=first["new_text"],
            source_text_digest=first["source_text_digest"],
            scores=json.loads(first["scores"]) if first["scores"] else {},
        )


def _read_plan(plan_uri: str, shard: int) -> pa.Table:
    """A shard's rows of the plan; of a plan in an object store, only the row groups that may hold some are fetched."""
    with storage.open_read(plan_uri) as stream, pq.ParquetFile(stream, pre_buffer=True) as plan:
        meta = plan.metadata
        column = meta.schema.names.index("shard")
        spans = [meta.row_group(number).column(column).statistics for number in range(meta.num_row_groups)]
        wanted = [
            number
            for number, span in enumerate(spans)
            if span is None or not span.has_min_max or span.min <= shard <= span.max
        ]
        rows = plan.read_row_groups(wanted, use_threads=False)
    return rows.filter(pc.field("shard") == shard)


def _by_key(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        if batch and row["key"] != batch[0]["key"]:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _member(row: dict[str, Any]) -> Member:
    cut_s = (row["start_s"], row["end_s"]) if row["media_cut"] else None
    return Member(
        id=row["id"],
        source_id=row["source_id"],
        start_s=row["start_s"],
        end_s=row["end_s"],
        text=row["text"],
        media=MediaPlace(
            row["media_uri"], row["media_offset_bytes"], row["media_size_bytes"], cut_s, row.get("media_stamp")
        ),
        segments=tuple(Segment(**segment) for segment in row["segments"] or ()),
        facts=_facts(row["facts"]),
    )


def _facts(text: str | None) -> dict[str, Any]:
    facts = json.loads(text) if text else {}
    if facts.get("frames") is not None:
        facts["frames"] = Frames(**facts["frames"])
    return facts


def _as_loss(granularity: str, lost: Lost, group: Group) -> Loss:
    row = {
        "id": lost.member.id,
        "key": group.key,
        "start_s": lost.member.start_s,
        "end_s": lost.member.end_s,
        "text": lost.member.text,
        "media": lost.member.media.uri,
    }
    return Loss(
        granularity=granularity,
        stage="build",
        state=str(lost.state),
        reason=str(lost.reason),
        detail=lost.detail,
        id=lost.member.id,
        source_id=lost.member.source_id,
        row=json.dumps(row, ensure_ascii=False, sort_keys=True),
    )


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _cpu_s() -> float:
    """Processor seconds of this process and of the children it has waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
