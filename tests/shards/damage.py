"""A published output as in tests/report/outputs.py with its source clips, and the ways to damage it for real."""

from __future__ import annotations

import io
import json
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gex_pipeline.media.sampling import sample_jpegs
from gex_pipeline.media.settings import FrameSettings
from gex_pipeline.receipts import write_table
from gex_pipeline.shards.manifest import read_manifest
from tests.report import outputs

Member = tuple[str, bytes]
ALPHA, BETA = (record for record, _ in outputs.joined_samples())


def make_whole(folder: Path) -> Path:
    """An output with nothing wrong: clips that exist, receipts, tables, ``sizes.json``."""
    output = Path(outputs.make_output(folder))
    table = output / "tables" / "clips-000000.parquet"
    rows = pq.read_table(table).to_pylist()
    for index, row in enumerate(rows):
        row |= {"media_uri": str(folder / "scratch" / f"clip{index}.mp4")}
        row |= {"media_offset_bytes": None, "media_size_bytes": None}
    schema = pa.schema([("media_offset_bytes", pa.int64()), ("media_size_bytes", pa.int64())])
    found = pa.Table.from_pylist(rows)
    for name in schema.names:
        found = found.set_column(found.column_names.index(name), name, pa.nulls(len(rows), pa.int64()))
    write_table(str(table), found, {})
    write_sizes(output)
    return output


def write_sizes(output: Path) -> None:
    manifest = read_manifest(str(output))
    assert manifest
    for name in manifest.granularity_names():
        sizes = {Path(shard.path).name: shard.num_samples for shard in manifest.shards(name)}
        (output / name / "sizes.json").write_text(json.dumps(sizes))


def copy_of(output: Path, folder: Path) -> Path:
    return Path(shutil.copytree(output, folder / "out"))


def tar(output: Path, name: str) -> Path:
    return output / name / f"{name}-000000.tar"


def read_members(path: Path) -> list[Member]:
    with tarfile.open(path) as opened:
        return [(item.name, opened.extractfile(item).read()) for item in opened]


def write_members(path: Path, members: list[Member]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as opened:
        for name, content in members:
            item = tarfile.TarInfo(name)
            item.size = len(content)
            opened.addfile(item, io.BytesIO(content))


def change_members(path: Path, change: Callable[[str, bytes], Member]) -> None:
    write_members(path, [change(name, content) for name, content in read_members(path)])


def change_json(path: Path, key: str, **values: Any) -> None:
    def change(name: str, content: bytes) -> Member:
        if name == f"{key}.json":
            content = json.dumps(json.loads(content) | values).encode()
        return name, content

    change_members(path, change)


def change_receipt(output: Path, name: str, key: str, /, **values: Any) -> None:
    path = output / name / f"{name}-000000.parquet"
    table = pq.read_table(path)
    rows = [row | (values if row["key"] == key else {}) for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)


def header_offset(path: Path, number: int) -> int:
    """Where the header of a member begins."""
    with tarfile.open(path) as opened:
        return opened.getmembers()[number].offset


def member_offset(path: Path, name: str) -> tuple[int, int]:
    with tarfile.open(path) as opened:
        item = opened.getmember(name)
        return item.offset_data, item.size


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0xFF
    path.write_bytes(content)


def framed_samples(output: Path, num: int = 5, short_side_px: int = 24) -> list[tuple[Any, tuple[bytes, ...]]]:
    """The long samples with frames in place of their videos."""
    made = []
    for record in (ALPHA, BETA):
        path = output / "video.mp4"
        path.write_bytes(media_of(output, "LVLT", record.key))
        frames, jpegs = sample_jpegs(path, FrameSettings(num=num, short_side_px=short_side_px), 60)
        path.unlink()
        made.append((replace(record, media_extension="frames", frames=frames), jpegs))
    return made


def replace_shard(output: Path, name: str, samples: list[tuple[Any, Any]]) -> None:
    """Write a shard anew, with receipt and manifest that agree with it."""
    entry = outputs.write_shard(output, name, samples)
    manifest = read_manifest(str(output))
    assert manifest
    (snapshot,) = manifest.snapshots
    node = replace(snapshot.granularities[name], shards=(entry,))
    nodes = {**snapshot.granularities, name: node}
    outputs.publish(output, replace(manifest, snapshots=(replace(snapshot, granularities=nodes),)))


def png_that_says_it_is(width_px: int, height_px: int) -> bytes:
    """A few bytes that a reader who believes them makes room for."""
    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def media_of(output: Path, name: str, key: str) -> bytes:
    return next(content for found, content in read_members(tar(output, name)) if found.startswith(f"{key}.mp4"))
