"""Verifies one shard: a `ShardCheck` in, findings out. A plain function of one shard; knows no Ray and no pool.

Of an output's shard: manifest, receipt, digest, members, texts, JSON and media must all say the same. Of any other
tar: what WebDataset and a decoder need of it. One function is one check; what concerns several shards is in `across`.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from gex_pipeline import storage
from gex_pipeline.errors import GexError, TransientError
from gex_pipeline.receipts import read_receipt
from gex_pipeline.shard_format import FRAMES_EXTENSION, IMAGE_EXTENSIONS, Receipt, frame_number, is_key, text_digest
from gex_pipeline.shards.findings import Finding, Report, ShardCheck
from gex_pipeline.shards.foreign import read_json
from gex_pipeline.shards.reader import DamagedTarError, Member, TarSample, group_samples, iter_members, read_member
from gex_pipeline.shards.samples import TEXT_EXTENSIONS, VIDEO_EXTENSIONS

_CHUNK_BYTES = 1 << 20
_JSON_FIELDS = (
    *("key", "granularity", "source_id", "parents", "segments", "duration_s", "width_px", "height_px", "fps"),
    *("codec", "made_by", "num_words", "text_digest", "source_text_digest"),
)


@dataclass(frozen=True)
class OpenShard:
    """A shard as its checks see it: the local tar, its samples, and its receipt's rows (None for foreign tars)."""

    check: ShardCheck
    path: Path
    stream: BinaryIO
    samples: tuple[TarSample, ...]
    rows: dict[str, dict[str, Any]] | None
    is_suspect: bool  # no digest vouches for the bytes: every frame is decoded
    clips: dict[str, dict[str, Any]] | None  # source clips by id, to look deep

    def read(self, member: Member) -> bytes:
        """A member's bytes."""
        return read_member(str(self.path), member, self.stream)


def verify_shard(check: ShardCheck) -> list[Finding]:
    """Everything that is wrong with one shard.

    Raises:
        TransientError: storage failed in a way that may pass.
    """
    report = Report(check.shard.name)
    receipt, rows = _read_receipt(check, report) if check.output_uri else (None, None)
    if not storage.exists(check.shard.uri):
        report.add("tar", "missing", "the tar")
        return report.findings
    try:
        with (
            tempfile.TemporaryDirectory(prefix="gex-verify-") as folder,
            storage.local_copy(check.shard.uri, Path(folder)) as path,
            path.open("rb") as stream,
        ):
            is_sound = check_bytes(check, receipt, stream, report)
            samples = read_samples(stream, report)
            is_suspect = not (is_sound and check.output_uri)
            clips = _source_clips(check, report) if rows is not None else None
            shard = OpenShard(check, path, stream, samples, rows, is_suspect, clips)
            _check_samples(shard, report, Path(folder))
    except TransientError:
        raise
    except (GexError, OSError) as error:
        report.add("tar", str(error), "a readable tar")
    return report.findings


def _check_samples(shard: OpenShard, report: Report, folder: Path) -> None:
    from gex_pipeline.shards.media_checks import check_media

    check_keys(shard, report)
    check_neighbours(shard, report)
    check_against_receipt(shard, report)
    for sample in shard.samples:
        facts = check_json(shard, sample, report)
        check_text(shard, sample, facts, report)
        check_media(shard, sample, facts, report, folder)


def _source_clips(check: ShardCheck, report: Report) -> dict[str, dict[str, Any]] | None:
    """The clips to compare with; none, and a note, where what is made of them need not look like them."""
    if check.clips is None:
        return None
    if check.clips.are_shown:
        return check.clips.by_id()
    found = "pictures are not compared with source clips: an operation that is not built in had a hand in them"
    # told once: it is the same for every shard
    note = Finding(check.shard.granularity, "", "joint", found, "pictures of source clips", is_note=True)
    report.findings.append(note)
    return None


def _read_receipt(check: ShardCheck, report: Report) -> tuple[Receipt | None, dict[str, dict[str, Any]] | None]:
    """The receipt and its rows by key; no rows, and a finding, where it cannot be read."""
    uri, entry = check.shard.receipt_uri or "", check.shard.entry
    if not storage.exists(uri):
        report.add("receipt", "missing", storage.name_of(uri))
        return None, None
    receipt, content = read_receipt(uri), storage.read_bytes(uri)
    try:
        rows = pq.read_table(pa.BufferReader(content)).to_pylist() if receipt else []
    except (pa.ArrowException, OSError) as error:
        receipt, rows = None, []
        report.add("receipt", f"unreadable: {str(error).splitlines()[0]}", "a Parquet file with the receipt's rows")
    else:
        if receipt is None:
            report.add("receipt", "unreadable", "a Parquet file with the receipt's metadata")
    if receipt is None or entry is None:
        return None, None
    report.same("receipt", len(rows), receipt.num_samples, what="number of rows")
    for name in ("num_samples", "num_bytes", "sha256"):
        report.same("manifest", getattr(entry, name), getattr(receipt, name), what=name)
    for key, count in Counter(row["key"] for row in rows).items():
        if count > 1:
            report.add("duplicate", f"{count} rows of the receipt", "1", key)
    return receipt, {row["key"]: row for row in rows}


def check_bytes(check: ShardCheck, receipt: Receipt | None, stream: BinaryIO, report: Report) -> bool:
    """Size and SHA-256 of the tar against the manifest (or its receipt); True when both are right."""
    expected = check.shard.entry or receipt
    if expected is None:
        return True
    digest, num_bytes = hashlib.sha256(), 0
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
        num_bytes += len(chunk)
    is_size = report.same("size", num_bytes, expected.num_bytes, what="bytes")
    return report.same("sha256", digest.hexdigest(), expected.sha256) and is_size


def read_samples(stream: BinaryIO, report: Report) -> tuple[TarSample, ...]:
    """The tar's samples as far as it can be read; a finding where it breaks off."""
    found: list[Member] = []
    try:
        for member in iter_members(report.shard, stream):
            found.append(member)
    except DamagedTarError as error:
        report.add("tar", str(error), "a whole tar")
    if not found:
        report.add("tar", "no member", "samples")
    return tuple(group_samples(iter(found)))


def check_keys(shard: OpenShard, report: Report) -> None:
    """Key grammar: ours are 32 hex digits; anywhere, a dot in a key makes WebDataset merge samples."""
    seen: set[str] = set()
    for sample in shard.samples:
        if sample.key in seen:
            continue
        seen.add(sample.key)
        merged = merged_names(sample)
        names = ", ".join(merged or [member.name for member in sample.members[:3]])
        if merged:
            report.add("key", f"{len(merged)} samples read as one: {names}", "no dot in a key", sample.key)
        elif shard.rows is not None and not is_key(sample.key):
            report.add("key", names, "32 hex digits and an extension", sample.key)


def merged_names(sample: TarSample) -> list[str]:
    """The full names that one key swallowed: they share two kinds of members and differ behind the first dot."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for member in sample.members:
        stem, _, kind = member.name.rpartition(".")
        kinds[stem].add(kind)
    counts = Counter(kind for found in kinds.values() for kind in found)
    shared = {kind for kind, count in counts.items() if count > 1}
    names = [stem for stem, found in kinds.items() if len(found & shared) > 1]
    return names if len(names) > 1 else []


def check_neighbours(shard: OpenShard, report: Report) -> None:
    """Members of a sample stand next to each other, each extension once."""
    extensions: dict[str, set[str]] = {}
    for sample in shard.samples:
        before = extensions.get(sample.key)
        found = [member.extension for member in sample.members]
        twice = {extension for extension in found if found.count(extension) > 1 or extension in (before or ())}
        if twice:
            report.add("duplicate", f"{', '.join(sorted(twice))} twice", "each member once", sample.key)
        elif before is not None:
            report.add("adjacency", f"{', '.join(found)} apart from the others", "members side by side", sample.key)
        extensions.setdefault(sample.key, set()).update(found)


def check_against_receipt(shard: OpenShard, report: Report) -> None:
    """The same samples in tar and receipt, with all members, the media where the receipt says."""
    if shard.rows is None:
        return
    found = {sample.key for sample in shard.samples}
    for key in shard.rows.keys() - found:
        report.add("sample", "not in the tar", "a sample of the receipt", key)
    for key in found - shard.rows.keys():
        report.add("sample", "not in the receipt", "a sample of the receipt", key)
    for sample in shard.samples:
        row = shard.rows.get(sample.key)
        if row is not None:
            _check_members(shard, sample, row, report)


def _check_members(shard: OpenShard, sample: TarSample, row: dict[str, Any], report: Report) -> None:
    is_inside = row["media_uri"] == shard.check.shard.name
    has_file = is_inside and row["media_extension"] != FRAMES_EXTENSION
    expected = {"txt", "json"} | ({row["media_extension"]} if has_file else set())
    found = {member.extension for member in sample.members}
    if not expected <= found:
        report.add("members", f"no {', '.join(sorted(expected - found))}", ", ".join(sorted(expected)), sample.key)
    media = sample.member(row["media_extension"]) if is_inside else None
    if media is not None:
        place = (row["media_offset_bytes"], row["media_size_bytes"])
        report.same("place", (media.offset_bytes, media.size_bytes), place, sample.key, "offset and size")
    if is_inside and row.get("frames") is not None and sample.frames:
        start = "frames" if has_file else "media"
        place = (row[f"{start}_offset_bytes"], row[f"{start}_size_bytes"])
        found_place = (sample.run.offset_bytes, sample.run.size_bytes) if sample.run else "not side by side in order"
        report.same("place", found_place, place, sample.key, "offset and size of the frames")


def check_json(shard: OpenShard, sample: TarSample, report: Report) -> dict[str, Any]:
    """``{key}.json`` is an object and says what the receipt says; returns it, empty where there is none."""
    member = sample.member("json")
    if member is None:
        return {}
    try:
        facts = read_json(shard.read(member))
    except ValueError as error:
        report.add("json", f"not JSON: {error}", "a JSON object", sample.key)
        return {}
    if not isinstance(facts, dict):
        report.add("json", type(facts).__name__, "a JSON object", sample.key)
        return {}
    row = (shard.rows or {}).get(sample.key)
    if row is not None:
        for name in _JSON_FIELDS:
            report.same("json", facts.get(name), row[name], sample.key, name)
        report.same("json", facts.get("frames"), row.get("frames"), sample.key, "frames")  # older receipts lack it
        report.same("json", facts.get("scores"), json.loads(row["scores"] or "{}"), sample.key, "scores")
    return facts


def check_text(shard: OpenShard, sample: TarSample, facts: dict[str, Any], report: Report) -> None:
    """The text is UTF-8, not empty, and the one of the receipt and of the digests."""
    member = sample.member(*TEXT_EXTENSIONS)
    if member is None:
        return
    try:
        text = shard.read(member).decode()
    except UnicodeDecodeError as error:
        report.add("text", f"not UTF-8: {error.reason} at byte {error.start}", "UTF-8", sample.key)
        return
    if not text.strip():
        report.add("text", "empty", "a text", sample.key)
    row = (shard.rows or {}).get(sample.key)
    if row is not None:
        report.same("text", text, row["text"], sample.key)
        report.same("text", row["text_digest"], text_digest(row["text"]), sample.key, "digest in the receipt")
    elif "text_digest" in facts:
        report.same("text", text_digest(text), facts["text_digest"], sample.key, "digest")


def media_members(sample: TarSample) -> Iterator[Member]:
    """The videos and pictures of a sample but its frames; also those under a key that swallowed another."""
    for member in sample.members:
        is_media = member.extension.rpartition(".")[2] in (*VIDEO_EXTENSIONS, *IMAGE_EXTENSIONS)
        if is_media and frame_number(member.extension) is None:
            yield member
