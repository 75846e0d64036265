"""Writes samples out as files: rows of the table in, the files of their members in a local folder out.

A file is named as its member; a video or frames that lie in another shard come along. Names that would lead out of the
folder are refused, and nothing that is there already is written over.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.shard_format import FRAMES_EXTENSION, frame_extension, iter_run
from gex_pipeline.shards.looking import members_of
from gex_pipeline.shards.samples import Samples, media_place


def pick(samples: Samples, num: int, seed: int) -> list[dict[str, Any]]:
    """`num` samples by chance; the same seed picks the same."""
    return samples.database.rows("shards_picked", num=num, seed=seed)


def export(samples: Samples, rows: list[dict[str, Any]], folder: Path) -> list[str]:
    """Write the members of these samples; returns the paths of the files.

    Raises:
        GexError: a name leads out of the folder, or a file is there already.
    """
    uris = {shard.name: shard.uri for shard in samples.target.shards}
    written: list[str] = []
    for row in rows:
        members = members_of(uris[row["tar"]], row["key"])
        for member in members:
            span = (member.offset_bytes, member.size_bytes)
            written.append(_write(folder, member.name, uris[row["tar"]], span))
        names = {member.name.lower() for member in members}
        if row["media_uri"] is not None:
            uri = media_place(samples.target, row)
            written += [_write(folder, name, uri, span) for name, span in _media(row, uri) if name.lower() not in names]
    return written


def _media(row: dict[str, Any], uri: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """The files of a sample's video and frames, and where they lie in their tar."""
    place = (row["media_offset_bytes"], row["media_size_bytes"])
    if row["media_extension"] != FRAMES_EXTENSION:
        yield f"{row['key']}.{row['media_extension']}", place
        place = (row["frames_offset_bytes"], row["frames_size_bytes"])
    if place[1] is None:
        return
    begin_bytes, size_bytes = place
    with storage.open_read(uri) as stream:
        stream.seek(begin_bytes)
        for number, span in enumerate(iter_run(stream, size_bytes)):
            name = f"{row['key']}.{frame_extension(number)}"
            yield name, (begin_bytes + span.offset_bytes, span.size_bytes)


def _write(folder: Path, name: str, uri: str, span: tuple[int, int]) -> str:
    path = storage.local_path(storage.join(str(folder), name))
    if path.exists():
        raise GexError(f"{path} is there already; choose another folder with --to")
    path.parent.mkdir(parents=True, exist_ok=True)
    storage.copy_range(uri, *span, path)
    return str(path)
