"""Which weights a model setting names, as a short text for the digest of a request.

A directory is known by its content and not by its path: moved weights keep their cached answers,
retrained ones in the same place lose them. A hub id stands for itself.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

_WHOLE_BYTES = 1 << 28  # a file up to here is read whole
_STEP_BYTES = 1 << 22  # of a larger one a piece in every step: few tensors of a large model are smaller
_PIECE_BYTES = 1 << 12


@functools.lru_cache(maxsize=16)
def model_identity(model: str | None, revision: str | None) -> str:
    """`sha256:...` of a local directory's files, else the id and its revision."""
    folder = Path(model).expanduser() if model else None
    if folder is None or not folder.is_dir():
        return f"{model}@{revision}" if revision else str(model)
    digest = hashlib.sha256()
    for path in sorted(item for item in folder.rglob("*") if item.is_file() and not item.name.startswith(".")):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        for piece in _pieces(path, size):
            digest.update(piece)
    return f"sha256:{digest.hexdigest()}"


def _pieces(path: Path, size_bytes: int) -> Iterator[bytes]:
    # Reading 26 GB of weights for a name would cost a minute; but adapters that are merged change some tensors only.
    length = _PIECE_BYTES if size_bytes > _WHOLE_BYTES else _STEP_BYTES
    with path.open("rb") as stream:
        for offset in range(0, size_bytes, _STEP_BYTES):
            stream.seek(offset)
            yield stream.read(length)
