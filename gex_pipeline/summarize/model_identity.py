"""Which weights a model setting names, as a short text for the digest of a request.

A directory is known by its content and not by its path: moved weights keep their cached answers,
retrained ones in the same place lose them. A hub id stands for itself.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

_SAMPLE_BYTES = 1 << 18


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
        digest.update(_sample(path, size))
    return f"sha256:{digest.hexdigest()}"


def _sample(path: Path, size_bytes: int) -> bytes:
    # Reading 26 GB of weights for a name would cost a minute; training changes every part of them.
    with path.open("rb") as stream:
        if size_bytes <= 4 * _SAMPLE_BYTES:
            return stream.read()
        pieces = []
        for offset in (0, size_bytes // 2, size_bytes - _SAMPLE_BYTES):
            stream.seek(offset)
            pieces.append(stream.read(_SAMPLE_BYTES))
        return b"".join(pieces)
