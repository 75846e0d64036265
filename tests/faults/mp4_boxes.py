"""Changes single boxes of an MP4, as damage and malice do: bytes in, bytes out, the sizes around made right again.

Works on files whose index is behind their media (no faststart), so that no offset has to be moved.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

_CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts"}
STBL = ("moov", "trak", "mdia", "minf", "stbl")


def box(kind: str, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload) + 8) + kind.encode() + payload


def children(content: bytes) -> list[tuple[str, bytes]]:
    """The boxes in a payload or file, in order."""
    found, start = [], 0
    while start + 8 <= len(content):
        size = struct.unpack(">I", content[start : start + 4])[0] or len(content) - start
        found.append((content[start + 4 : start + 8].decode("latin-1"), content[start + 8 : start + size]))
        start += size
    return found


def find(content: bytes, *path: str) -> bytes:
    """The payload of the first box under a path of kinds."""
    for kind in path:
        content = next(payload for found, payload in children(content) if found == kind)
    return content


def change(content: bytes, path: tuple[str, ...], edit: Callable[[bytes], bytes]) -> bytes:
    """The file with the payload of the first box under `path` edited."""
    done = False
    parts = []
    for kind, payload in children(content):
        if kind == path[0] and not done:
            done = True
            parts.append(box(kind, edit(payload) if len(path) == 1 else change(payload, path[1:], edit)))
        else:
            parts.append(box(kind, payload))
    assert done, path
    return b"".join(parts)


def full(*numbers: int) -> bytes:
    """The payload of a box with version and flags 0 and 32-bit numbers."""
    return struct.pack(f">I{len(numbers)}I", 0, *numbers)


def with_samples(content: bytes, count: int, size_bytes: int, ticks: int, chunks: int = 1) -> bytes:
    """The first track with an index that promises `count` samples of one size, in chunks that start at one place.

    The index takes no more bytes for a thousand million samples than for one; the chunk table four a chunk.
    """
    first = struct.unpack(">I", find(content, *STBL, "stco")[8:12])[0]
    tables = {
        "stts": full(1, count, ticks),
        "stsz": full(size_bytes, count),
        "stsc": full(1, 1, count // chunks, 1),
        "stco": full(chunks, *[first] * chunks),
    }

    def edit(stbl: bytes) -> bytes:
        return b"".join(
            box(kind, tables.get(kind, payload)) for kind, payload in children(stbl) if kind not in _DROPPED
        )

    return change(content, STBL, edit)


_DROPPED = {"ctts", "stss", "sgpd", "sbgp", "sdtp"}
