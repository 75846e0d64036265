"""One WebDataset tar of source clips: which videos it holds and where, and whether it is the tar that was indexed.

In: a tar. Out: a row a video, with a stamp by which a reader knows it again: size and time of the tar, and a digest
of the member's header. Headers are read, and what lies between them where that is little. What cannot be read by byte
range (links, sparse files, members that the tar breaks off in) is a row with its reason; what is wrong with the tar
itself is a row without a key. Of a tar's members only names and places are kept in memory.
Nothing is unpacked, so names with ``..`` in them lead nowhere; the ``.json`` and ``.txt`` of a clip are not used.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from gex_pipeline import object_store, storage
from gex_pipeline.errors import FileMissingError, GexError
from gex_pipeline.shard_format import MemberSpan

# What tarfile raises over headers that are damaged or made to be: sizes that are no numbers or no size, and headers of
# headers without end.
HEADER_ERRORS = (tarfile.TarError, ValueError, OverflowError, RecursionError)
_VIDEO_ENDINGS = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v")
_BLOCK_BYTES = tarfile.BLOCKSIZE
_LEAST_AHEAD_BYTES = 8 << 10  # a clip's text and JSON with their headers, and the next video's header
_MOST_AHEAD_BYTES = 256 << 10
_NEAR_BYTES = _MOST_AHEAD_BYTES // 2  # what lies nearer to the next header is read with it, to be fewer requests
_TRAILER_BYTES = 64 * 1024  # looked through behind the end-of-archive mark; writers pad with up to 10 kB of zeros
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_KINDS = {
    tarfile.LNKTYPE: "a hard link to no video before it",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.DIRTYPE: "a directory",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}


class _Place(NamedTuple):
    offset_bytes: int
    size_bytes: int
    stamp: str


class _Headers:
    """A tar from header to header: reads little ahead over large members, more and more where members are small.

    It keeps the last block read, which after a member is its header.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._end = stream.seek(0, os.SEEK_END)
        self._at = self._ahead_bytes = 0
        self._held, self._held_at = b"", 0  # what was read, and where that begins
        self.block = b""

    def read(self, size: int) -> bytes:
        size = max(0, min(size, self._end - self._at))
        if not self._held_at <= self._at <= self._at + size <= self._held_at + len(self._held):
            self._fetch(size)
        start = self._at - self._held_at
        content = self._held[start : start + size]
        self._at += len(content)
        if size == _BLOCK_BYTES:
            self.block = content
        return content

    def _fetch(self, size: int) -> None:
        gap_bytes = self._at - self._held_at - len(self._held)
        is_near = -len(self._held) <= gap_bytes <= _NEAR_BYTES
        wanted = 2 * self._ahead_bytes if is_near else 0
        self._ahead_bytes = min(max(wanted, _LEAST_AHEAD_BYTES), _MOST_AHEAD_BYTES)
        self._stream.seek(self._at)
        self._held, self._held_at = self._stream.read(max(size, self._ahead_bytes)), self._at

    def seek(self, offset: int, _whence: int = os.SEEK_SET) -> int:
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at


def index_tar(tar: storage.FileInfo) -> Iterator[dict[str, Any]]:
    """The video members of one tar, and what is wrong with it. A tar that breaks off gives what lies before the break.

    Raises:
        GexError: the tar is compressed, so that no byte range of it is a video.
    """
    before: dict[str, _Place] = {}  # the first video of each name
    ends = (0, 0)  # of the last member: its bytes, and where the next header would be
    with storage.open_read(tar.uri, exact=True) as stream:
        headers = _Headers(stream)
        try:
            with _archive(headers) as archive:
                while (member := archive.next()) is not None:
                    archive.members = []  # it would keep them all
                    if member.size < 0:
                        break  # a damaged header, which would lead backwards
                    ends = (_end_of(member), archive.offset)
                    yield from _rows_of(tar, member, headers.block, before)
        except HEADER_ERRORS:
            pass  # where it breaks off is looked at below
        problem = _problem_of(tar, headers, ends)
    if problem is not None:
        yield {**_base(tar), "problem": "tar", "detail": f"{storage.name_of(tar.uri)} {problem}"}


def _archive(headers: Any) -> Any:
    return tarfile.open(fileobj=headers, mode="r:")


def _end_of(member: tarfile.TarInfo) -> int:
    return member.offset_data + (member.size if member.isreg() and not member.issparse() else 0)


def _base(tar: storage.FileInfo) -> dict[str, Any]:
    return {"uri": tar.uri, "tar_bytes": tar.num_bytes, "tar_modified_s": tar.modified_s}


def _rows_of(
    tar: storage.FileInfo, member: tarfile.TarInfo, header: bytes, before: dict[str, _Place]
) -> Iterator[dict[str, Any]]:
    """The row of a member that is called like a video, none of another."""
    name = member.name.removeprefix("./")
    if not name.lower().endswith(_VIDEO_ENDINGS):
        return
    # Bytes that are no UTF-8 cannot be written in a table, nor named in one.
    key = name.rpartition(".")[0].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    row = {**_base(tar), "key": key}
    # tar writes a hard link for a file that it packs a second time
    place = before.get(member.linkname.removeprefix("./")) if member.islnk() else None
    if place is not None:
        yield {**row, **place._asdict()}
        return
    what = "a sparse file" if member.issparse() else None if member.isreg() else _KINDS.get(member.type, "no file")
    if what is not None:
        yield {**row, "problem": "media_missing", "detail": f"{key} is {what} in {storage.name_of(tar.uri)}"}
    elif member.offset_data + member.size > tar.num_bytes:
        found = max(tar.num_bytes - member.offset_data, 0)
        detail = f"{storage.name_of(tar.uri)} breaks off in it: {found} of {member.size} bytes are there"
        yield {**row, "problem": "media_truncated", "detail": detail}
    else:
        place = _Place(member.offset_data, member.size, stamp_of(tar, header))
        before.setdefault(name, place)
        yield {**row, **place._asdict()}


def _problem_of(tar: storage.FileInfo, stream: _Headers, ends: tuple[int, int]) -> str | None:
    """What is wrong with the tar as a whole, judged by what stands behind its last member."""
    if tar.num_bytes == 0:
        return "is empty"
    if ends[0] > tar.num_bytes:
        return "breaks off inside a member"
    stream.seek(ends[1])
    block = stream.read(_BLOCK_BYTES)
    if ends == (0, 0) and any(block):
        for mark, name in _COMPRESSIONS.items():
            if block.startswith(mark):
                raise GexError(
                    f"{tar.uri!r} is compressed ({name}); clips in tars are read by byte range, so unpack it first"
                )
        return "is no tar"
    if not block:
        return "ends without an end-of-archive mark, so it may have been cut off"
    if any(block):
        return f"has no whole header at byte {ends[1]}, so what lies behind is not read"
    if any(stream.read(_TRAILER_BYTES)):
        return f"goes on behind its end-of-archive mark at byte {ends[1]}; what lies there is not read"
    return None


def stamp_of(tar: storage.FileInfo, header: bytes) -> str:
    """By what a member is known again: bytes and time of its tar, and a digest of its header block."""
    # Object stores tell times in parts of a second when they list and in seconds when they are asked for one file.
    modified = repr(tar.modified_s) if storage.is_local(tar.uri) else str(int(tar.modified_s))
    return f"{tar.num_bytes} {modified} {_digest(header)}"


def _digest(header: bytes) -> str:
    return hashlib.sha256(header).hexdigest()[:16]


def copy_member(uri: str, span: MemberSpan, target: Path, stamp: str, *, member_only: bool = False) -> str | None:
    """Write a member to a local file; what tells that its tar is not the one that was indexed, None when it is.

    Header and bytes are one request. A clip that takes several has its tar looked at again after the last of them.
    With `member_only`, the tar may have grown or been copied, as long as the member's header is the same: for readers
    that know what to expect.

    Raises:
        FileMissingError: there is no such tar.
        FileTooShortError: it ends before the member does.
    """
    with storage.open_read(uri, exact=True) as stream:
        pieces = storage.pieces(stream, uri, span.offset_bytes, span.size_bytes, before_bytes=_BLOCK_BYTES)
        first = next(pieces)
        storage.write_pieces(chain([first[_BLOCK_BYTES:]], pieces), target)
        opened = stream if len(first) == _BLOCK_BYTES + span.size_bytes else None
        place = (span.offset_bytes, stamp)
        return _difference(uri, first[:_BLOCK_BYTES], place, opened=opened, member_only=member_only)


def _now(uri: str, opened: BinaryIO | None) -> storage.FileInfo:
    """What a tar is: as a store said when it was `opened`, if it did, else as it is after it was read."""
    if isinstance(opened, object_store.StoredReader) and opened.modified_s is not None:
        return storage.FileInfo(uri, opened.size_bytes, opened.modified_s)
    found = storage.info(uri)
    if found is None:
        raise FileMissingError(f"{uri!r} does not exist")
    return found


def _difference(
    uri: str, header: bytes, place: tuple[int, str], *, opened: BinaryIO | None = None, member_only: bool
) -> str | None:
    offset_bytes, stamp = place
    was_bytes, was_modified, was_digest = stamp.split()
    if _digest(header) != was_digest:
        return f"{uri!r} has another member before byte {offset_bytes} than when it was indexed"
    if member_only:
        return None
    num_bytes, modified, _ = stamp_of(_now(uri, opened), header).split()
    if (num_bytes, modified) == (was_bytes, was_modified):
        return None
    what = f"{was_bytes} bytes then, {num_bytes} now" if num_bytes != was_bytes else "written since, at the same size"
    return f"{uri!r} has changed since it was indexed: {what}"
