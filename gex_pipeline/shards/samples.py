"""All samples of a target as one table: receipts, or what the members of foreign tars say; SQL over it.

Of an output the receipts are read and no tar; of other tars the headers, the texts and the JSON members. What
cannot be read is left out and noted, for a tool that looks at damage must not stop at it. Reads no media.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gex_pipeline import storage
from gex_pipeline.errors import GexError, RecipeError
from gex_pipeline.receipts import RECEIPT_SCHEMA, read_receipt
from gex_pipeline.shard_format import FRAMES_EXTENSION, IMAGE_EXTENSIONS, MemberSpan, text_digest
from gex_pipeline.shards.foreign import (
    frames_of,
    number_of,
    read_json,
    scores_of,
    segments_of,
    text_of,
    texts_of,
    whole_of,
)
from gex_pipeline.shards.reader import DamagedTarError, TarSample, group_samples, iter_members, read_member
from gex_pipeline.shards.target import ShardRef, Target
from gex_pipeline.tables import Database, DatabaseError

VIDEO_EXTENSIONS = ("mp4", "webm", "mkv", "mov", "avi")
TEXT_EXTENSIONS = ("txt", "caption", "text")
_SHARD_SCHEMA = pa.schema(
    [("granularity", pa.string()), ("shard", pa.int64()), ("tar", pa.string()), ("snapshot", pa.int64())]
)
_NO_CLIPS = (
    "SELECT '' AS clip_id, '' AS source_id, 0::DOUBLE AS start_s, 0::DOUBLE AS end_s, '' AS \"text\", "
    "'' AS media_uri, 0::BIGINT AS media_offset_bytes, 0::BIGINT AS media_size_bytes"
)


@dataclass
class Samples:
    """The open table: `database` has the views ``samples`` and ``clips``; `notes` say what is not in it.

    `files` are the local tables of rows, each with the shard it is of; `clip_files` those of the clips.
    """

    target: Target
    database: Database
    notes: list[str] = field(default_factory=list)
    files: list[tuple[ShardRef, Path]] = field(default_factory=list)
    clip_files: list[Path] = field(default_factory=list)

    def fetch(self, row: dict[str, Any], folder: Path) -> Path:
        """A sample's media as a local file in `folder`, under a name that nobody else chose.

        Raises:
            GexError: its tar does not hold it.
        """
        path = folder / "media"
        storage.copy_range(media_place(self.target, row), row["media_offset_bytes"], row["media_size_bytes"], path)
        return path


def media_place(target: Target, row: dict[str, Any]) -> str:
    """The tar that a sample's media lies in.

    Raises:
        GexError: the sample has none.
    """
    if row["media_uri"] is None:
        raise GexError(f"sample {row['key']} has no video or picture")
    return storage.join(target.uri, row["media_uri"]) if target.manifest else str(row["media_uri"])


@contextmanager
def open_samples(target: Target) -> Iterator[Samples]:
    """Open the table of a target's samples.

    Raises:
        GexError: storage refuses, or a receipt or table is damaged inside.
    """
    with Database() as database:
        samples = Samples(target, database)
        try:
            if target.manifest is None:
                _view_tars(samples)
            else:
                _view_receipts(samples)
            samples.clip_files = database.local_files(clip_tables(target))
            database.view_parquet("clips", list(map(str, samples.clip_files)), empty=_NO_CLIPS)
            yield samples
        except DatabaseError as error:
            found = str(error).splitlines()[0]
            raise GexError(f"a receipt or table of {target.uri!r} cannot be read: {found}") from error


def clip_tables(target: Target) -> list[str]:
    """The tables of accepted clips up to the target's snapshot."""
    return snapshot_tables(target, "clips")


def snapshot_tables(target: Target, name: str) -> list[str]:
    """Every snapshot's table of this name, up to the target's snapshot, where it is there."""
    if target.manifest is None:
        return []
    uris = [
        storage.join(target.uri, path)
        for entry in target.manifest.snapshots
        if target.snapshot is None or entry.snapshot <= target.snapshot
        for path in entry.tables
        if storage.name_of(path) == f"{name}-{entry.snapshot:06d}.parquet"
    ]
    return [uri for uri in uris if storage.exists(uri)]


def find_rows(samples: Samples, predicate: str, limit: int | None = None) -> tuple[int, list[dict[str, Any]]]:
    """How many samples fulfil an SQL condition, and the first `limit` of them, by granularity and key.

    Raises:
        RecipeError: it is not one condition over the columns of a sample.
    """
    samples.database.check_predicate(predicate)
    try:
        samples.database.execute(
            f"CREATE OR REPLACE TEMP TABLE found AS SELECT granularity, key FROM samples WHERE ({predicate}\n)"
        )
    except DatabaseError as error:
        columns = ", ".join(samples.database.columns("samples"))
        raise RecipeError(f"{predicate!r}: {str(error).splitlines()[0]}; the columns are {columns}") from error
    return samples.database.count("found"), samples.database.rows("shards_found", num=-1 if limit is None else limit)


def rows_of(samples: Samples, keys: list[str]) -> list[dict[str, Any]]:
    """The samples with these keys; several where a key stands twice."""
    return samples.database.rows("shards_by_key", keys=keys)


def one_row(samples: Samples, key: str) -> dict[str, Any]:
    """The sample with this key, or whose key alone begins so.

    Raises:
        GexError: there is none, or several begin so.
    """
    keys = [row["key"] for row in samples.database.rows("shards_by_prefix", prefix=key)]
    if not keys:
        raise GexError(f"no sample's key is or begins with {key!r}")
    if len(keys) > 1 and key not in keys:
        raise GexError(f"{key!r} is the beginning of several keys: {', '.join(keys[:5])}")
    return rows_of(samples, [key if key in keys else keys[0]])[0]


def _view_receipts(samples: Samples) -> None:
    database, shards = samples.database, samples.target.shards
    receipts = storage.for_each(lambda shard: read_receipt(shard.receipt_uri or ""), shards)
    readable = [shard for shard, receipt in zip(shards, receipts, strict=True) if receipt is not None]
    samples.notes += [
        f"{shard.name}: no receipt can be read; its samples are left out"
        for shard, receipt in zip(shards, receipts, strict=True)
        if receipt is None
    ]
    empty = _scratch_table(database, "no-receipts", RECEIPT_SCHEMA.empty_table())
    files = database.local_files(shard.receipt_uri or "" for shard in readable)
    samples.files = list(zip(readable, files, strict=True))
    database.view_parquet("receipts", [str(empty), *map(str, files)], is_alike=True)
    _view_shards(database, shards)
    database.run("shards_samples")


def _view_tars(samples: Samples) -> None:
    """A file of rows a tar in the scratch folder, so that not all texts are in memory at once."""
    database = samples.database
    for number, shard in enumerate(samples.target.shards):
        rows: list[dict[str, Any]] = []
        try:
            for row in _rows_of_tar(shard, number):
                rows.append(row)
        except DamagedTarError as error:
            samples.notes.append(f"{shard.name}: {error}")
        table = pa.Table.from_pylist(rows, RECEIPT_SCHEMA)
        samples.files.append((shard, _scratch_table(database, f"tar-{number:06d}", table)))
    database.view_parquet("receipts", [str(file) for _, file in samples.files], is_alike=True)
    numbered = [ShardRef(shard.uri, shard.name, number=number) for number, shard in enumerate(samples.target.shards)]
    _view_shards(database, numbered)
    database.run("shards_tar_samples")


def _view_shards(database: Database, shards: Any) -> None:
    rows = [
        {"granularity": shard.granularity, "shard": shard.number, "tar": shard.name, "snapshot": shard.snapshot}
        for shard in shards
    ]
    listed = _scratch_table(database, "shards", pa.Table.from_pylist(rows, _SHARD_SCHEMA))
    database.view_parquet("shard_list", [str(listed)])


def _scratch_table(database: Database, name: str, table: pa.Table) -> Path:
    path = database.scratch / f"{name}.parquet"
    pq.write_table(table, path)
    return path


def _rows_of_tar(shard: ShardRef, number: int) -> Iterator[dict[str, Any]]:
    with storage.open_read(shard.uri) as stream, storage.open_read(shard.uri) as contents:
        for sample in group_samples(iter_members(shard.uri, stream)):
            yield _tar_row(shard, sample, contents) | {"shard": number}


def _tar_row(shard: ShardRef, sample: TarSample, contents: Any) -> dict[str, Any]:
    """What a sample's members say, in the columns of a receipt; what they do not say is null."""
    facts = _facts(shard, sample, contents)
    text = _text(shard, sample, contents, facts)
    media = sample.member(*VIDEO_EXTENSIONS, *IMAGE_EXTENSIONS)
    run = sample.run
    place = MemberSpan(media.offset_bytes, media.size_bytes) if media else run
    extension = media.extension if media else FRAMES_EXTENSION if run else None
    return {
        "key": sample.key,
        "granularity": text_of(facts, "granularity"),
        "source_id": text_of(facts, "source_id", "url"),
        "parents": texts_of(facts.get("parents")),
        "segments": segments_of(facts.get("segments")),
        "text": text,
        "text_digest": text_digest(text),
        "source_text_digest": text_of(facts, "source_text_digest") or None,
        "num_words": len(text.split()),
        "duration_s": number_of(facts, "duration_s", "duration"),
        "width_px": whole_of(number_of(facts, "width_px", "width")),
        "height_px": whole_of(number_of(facts, "height_px", "height")),
        "fps": number_of(facts, "fps"),
        "codec": text_of(facts, "codec") or None,
        "made_by": text_of(facts, "made_by") or None,
        "scores": json.dumps(scores_of(facts.get("scores"))),
        "media_extension": extension,
        "media_uri": shard.uri if place else None,
        "media_offset_bytes": place.offset_bytes if place else None,
        "media_size_bytes": place.size_bytes if place else None,
        "frames": frames_of(facts.get("frames")) if run else None,
        "frames_offset_bytes": run.offset_bytes if run and media else None,
        "frames_size_bytes": run.size_bytes if run and media else None,
    }


def _facts(shard: ShardRef, sample: TarSample, contents: Any) -> dict[str, Any]:
    member = sample.member("json")
    if member is None:
        return {}
    try:
        facts = read_json(read_member(shard.uri, member, contents))
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _text(shard: ShardRef, sample: TarSample, contents: Any, facts: dict[str, Any]) -> str:
    member = sample.member(*TEXT_EXTENSIONS)
    if member is not None:
        return read_member(shard.uri, member, contents).decode(errors="replace")
    return text_of(facts, "caption", "text")
