"""Reads the members of a WebDataset tar, ours or anyone's: a URI in; names, places and single members out.

Headers are read and media is skipped, so a shard on an object store costs a few small requests. Members of a
sample stand next to each other; a key that comes back later is another `TarSample` here, as it is for WebDataset.
A tar that breaks off raises after everything before the break has been given. Changes nothing; decodes nothing.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.shard_format import MemberSpan, frame_number
from gex_pipeline.shards.foreign import encodable
from gex_pipeline.source_tars import HEADER_ERRORS

_NAME = re.compile(r"((?:.*/|)[^.]+)\.([^/]*)", re.DOTALL)  # WebDataset's: a key ends at the first dot of the name
_BLOCK_BYTES = 512
_MOST_BYTES = 1 << 62  # of a member: more is no place in a file, nor in a table
_BUFFER_BYTES = 1 << 16  # of remote tars: a sample's text, JSON and the next header in one request


class DamagedTarError(GexError):
    """A tar that cannot be read to its end."""


@dataclass(frozen=True)
class Member:
    """One file of a tar and where its bytes lie; what is not UTF-8 in its name stands there as escapes."""

    name: str
    key: str
    extension: str
    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class TarSample:
    """Members with one key, next to each other."""

    key: str
    members: tuple[Member, ...]

    @property
    def frames(self) -> tuple[Member, ...]:
        """The members that are frames, in the order of the tar."""
        return tuple(member for member in self.members if frame_number(member.extension) is not None)

    @property
    def run(self) -> MemberSpan | None:
        """The range that holds its frames and nothing else; None where they are not side by side in their order."""
        spans = [MemberSpan(member.offset_bytes, member.size_bytes).whole for member in self.frames]
        if [frame_number(member.extension) for member in self.frames] != list(range(len(spans))):
            return None
        ends = [span.offset_bytes + span.size_bytes for span in spans]
        if not spans or any(end != span.offset_bytes for end, span in zip(ends, spans[1:], strict=False)):
            return None
        return MemberSpan(spans[0].offset_bytes, ends[-1] - spans[0].offset_bytes)

    def member(self, *extensions: str) -> Member | None:
        """The first member with one of these extensions."""
        return next((member for member in self.members if member.extension in extensions), None)


def split_name(name: str) -> tuple[str, str] | None:
    """(key, extension) as WebDataset sees them; None for a name it passes over."""
    match = _NAME.fullmatch(name)
    return (match[1], match[2].lower()) if match else None


def iter_members(uri: str, stream: BinaryIO | None = None) -> Iterator[Member]:
    """The members of a tar in their order, by its headers; `stream` is the tar where it is open already.

    Raises:
        DamagedTarError: it is no tar, a header is damaged, or it breaks off.
        GexError: it cannot be opened.
    """
    if stream is None:
        with storage.open_read(uri, exact=True) as opened:
            yield from iter_members(uri, opened if storage.is_local(uri) else _buffered(opened))
        return
    stream.seek(0)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for item in tar:
                if not 0 <= item.size <= _MOST_BYTES:
                    raise DamagedTarError(f"{uri!r} has a damaged header at byte {item.offset}: {item.size} bytes")
                name = encodable(item.name)
                parts = split_name(name)
                if item.isreg() and parts:
                    yield Member(name, *parts, item.offset_data, item.size)
            end_bytes = tar.offset
    except HEADER_ERRORS as error:
        raise DamagedTarError(f"{uri!r} is not a whole tar: {error}") from error
    # tarfile takes a damaged or missing header for the end; only zeros are one.
    stream.seek(end_bytes)
    block = stream.read(_BLOCK_BYTES)
    if block != bytes(_BLOCK_BYTES):
        what = "breaks off" if len(block) < _BLOCK_BYTES else "has a damaged header"
        raise DamagedTarError(f"{uri!r} {what} at byte {end_bytes}, without the blocks that end a tar")


def _buffered(stream: Any) -> BinaryIO:
    return io.BufferedReader(stream, _BUFFER_BYTES)


def group_samples(members: Iterator[Member]) -> Iterator[TarSample]:
    """Neighbouring members with one key as samples."""
    batch: list[Member] = []
    for member in members:
        if batch and member.key != batch[0].key:
            yield TarSample(batch[0].key, tuple(batch))
            batch = []
        batch.append(member)
    if batch:
        yield TarSample(batch[0].key, tuple(batch))


def iter_samples(uri: str) -> Iterator[TarSample]:
    """The samples of a tar in their order.

    Raises:
        DamagedTarError: as `iter_members`; the samples before the damage have been given then.
    """
    return group_samples(iter_members(uri))


def read_member(uri: str, member: Member, stream: BinaryIO | None = None) -> bytes:
    """The bytes of one member, by one range read.

    Raises:
        DamagedTarError: the tar ends before the member does.
    """
    if stream is None:
        with storage.open_read(uri, exact=True) as opened:
            return read_member(uri, member, opened)
    stream.seek(member.offset_bytes)
    content = stream.read(member.size_bytes)
    if len(content) != member.size_bytes:
        raise DamagedTarError(f"{uri!r} ends {member.size_bytes - len(content)} bytes before {member.name!r} does")
    return content
