"""Writes samples out as files: rows of the table in, the files of their members in a local folder out.

A file is named as its member; a video that lies in another shard comes along. Names that would lead out of the
folder are refused, and nothing that is there already is written over.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gex_pipeline import storage
from gex_pipeline.errors import GexError
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
        name = f"{row['key']}.{row['media_extension']}"
        if row["media_uri"] is not None and name.lower() not in {member.name.lower() for member in members}:
            span = (row["media_offset_bytes"], row["media_size_bytes"])
            written.append(_write(folder, name, media_place(samples.target, row), span))
    return written


def _write(folder: Path, name: str, uri: str, span: tuple[int, int]) -> str:
    path = storage.local_path(storage.join(str(folder), name))
    if path.exists():
        raise GexError(f"{path} is there already; choose another folder with --to")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        storage.copy_range(uri, *span, path)
    except GexError:
        path.unlink(missing_ok=True)
        raise
    return str(path)
