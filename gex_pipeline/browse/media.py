"""A sample's media straight out of its tar: a row of a receipt in, a range of bytes out. Never a whole video at once.

Only tars that the manifest (or the command line, for other tars) names are read, whatever a receipt says.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

from gex_pipeline import storage
from gex_pipeline.browse.index import Index
from gex_pipeline.errors import FileMissingError, FileTooShortError, GexError
from gex_pipeline.shard_format import FRAMES_EXTENSION, iter_run

PIECE_BYTES = 1 << 18
_BUFFER_BYTES = 1 << 18  # of a decoder, which would ask an object store for every few bytes
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
CONTENT_TYPES = {
    "mp4": "video/mp4", "webm": "video/webm", "mkv": "video/x-matroska", "mov": "video/quicktime",
    "avi": "video/x-msvideo", "jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp",
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where the bytes of one sample's media lie."""

    uri: str
    offset_bytes: int
    size_bytes: int
    extension: str


def place_of(index: Index, row: dict[str, Any]) -> Place:
    """The place of a sample's media; for a referenced video in its parent's tar.

    Raises:
        FileMissingError: it has none, or the tar is gone or not one of the data set's.
        FileTooShortError: the tar ends before the media does.
    """
    if row["media_extension"] not in CONTENT_TYPES:
        raise FileMissingError(f"sample {row['key']} has no video or picture that a page could show")
    return _place(index, row, "media", row["media_extension"])


def frame_places(index: Index, row: dict[str, Any]) -> tuple[Place, ...]:
    """The places of all of a sample's frames, in the video's place or beside it.

    Raises:
        FileMissingError, FileTooShortError: as `place_of`.
        DamagedRunError: what lies there are no frames.
    """
    start = "media" if row["media_extension"] == FRAMES_EXTENSION else "frames"
    return _frame_places(_place(index, row, start, FRAMES_EXTENSION))


def frame_place(index: Index, row: dict[str, Any], number: int) -> Place:
    """The place of one of a sample's frames.

    Raises:
        FileMissingError: it has no such frame.
        GexError: as `frame_places`.
    """
    places = frame_places(index, row)
    if not 0 <= number < len(places):
        raise FileMissingError(f"sample {row['key']} has {len(places)} frames; there is none with number {number}")
    return places[number]


@lru_cache(maxsize=256)
def _frame_places(run: Place) -> tuple[Place, ...]:
    """The frames of a run, found by its headers."""
    with opened(run) as stream:
        spans = list(iter_run(stream, run.size_bytes))
    return tuple(Place(run.uri, run.offset_bytes + span.offset_bytes, span.size_bytes, "jpg") for span in spans)


def _place(index: Index, row: dict[str, Any], start: str, extension: str) -> Place:
    name, offset, size = row["media_uri"], row.get(f"{start}_offset_bytes"), row.get(f"{start}_size_bytes")
    if name is None or offset is None or size is None:
        raise FileMissingError(f"sample {row['key']} has no {'frames' if start == 'frames' else 'video or picture'}")
    if name not in index.tars:
        raise FileMissingError(f"its media would lie in {name!r}, which is no shard of this data set")
    found = storage.info(index.tars[name])
    if found is None:
        raise FileMissingError(f"its shard {name} is missing")
    if not 0 <= offset <= offset + size <= found.num_bytes:
        raise FileTooShortError(
            f"its shard {name} ends at byte {found.num_bytes}; the media would end at {offset + size}"
        )
    return Place(index.tars[name], offset, size, extension)


def parse_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """The half-open range that a ``Range`` header asks for; None where it asks for no single range of bytes.

    Raises:
        GexError: the range begins after the last byte.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        start, end = max(0, size_bytes - int(match[2])), size_bytes
    else:
        start, end = int(match[1]), min(int(match[2]) + 1 if match[2] else size_bytes, size_bytes)
        if match[2] and int(match[2]) < start:
            return None  # not a range at all
    if start >= end:
        raise GexError(f"no byte of {header!r} is in a file of {size_bytes} bytes")
    return start, end


def iter_pieces(place: Place, start: int, end: int) -> Iterator[bytes]:
    """The bytes of a half-open range within the media, in pieces.

    Raises:
        FileTooShortError: the tar has become shorter since.
    """
    with storage.open_read(place.uri) as stream:
        stream.seek(place.offset_bytes + start)
        left = end - start
        while left:
            piece = stream.read(min(PIECE_BYTES, left))
            if not piece:
                raise FileTooShortError(f"{place.uri!r} ends {left} bytes too early")
            yield piece
            left -= len(piece)


@contextmanager
def opened(place: Place) -> Iterator[BinaryIO]:
    """The media as a file of its own, for a decoder: seekable, and nothing beside it in the tar can be read."""
    with storage.open_read(place.uri) as stream:
        window: Any = _Window(stream, place)
        yield io.BufferedReader(window, _BUFFER_BYTES)


class _Window(io.RawIOBase):
    """A part of an open file."""

    def __init__(self, stream: BinaryIO, place: Place) -> None:
        self._stream = stream
        self._place = place
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._place.size_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        num = max(0, min(len(buffer), self._place.size_bytes - self._at))
        self._stream.seek(self._place.offset_bytes + self._at)
        content = self._stream.read(num)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)
