"""One WebDataset tar of source clips: which videos it holds and where, and whether it is the tar that was indexed.

In: a tar. Out: a row a video, with a stamp by which a reader knows it again: size and time of the tar, and a digest
of the member's header. Only headers are read. What cannot be read by byte range (links, sparse files, members that the
tar breaks off in) is a row with its reason; what is wrong with the tar itself is a row without a key.
Nothing is unpacked, so names with ``..`` in them lead nowhere; the ``.json`` and ``.txt`` of a clip are not read.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from gex_pipeline import storage
from gex_pipeline.errors import FileMissingError, GexError

_VIDEO_ENDINGS = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v")
_BLOCK_BYTES = tarfile.BLOCKSIZE
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


class _LastBlock:
    """A stream that keeps the last block read, which after a member is its header."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.block = b""

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size)
        if size == _BLOCK_BYTES:
            self.block = content
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def index_tar(tar: storage.FileInfo) -> list[dict[str, Any]]:
    """The video members of one tar, and what is wrong with it. A tar that breaks off gives what lies before the break.

    Raises:
        GexError: the tar is compressed, so that no byte range of it is a video.
    """
    rows: list[dict[str, Any]] = []
    ends = (0, 0)  # of the last member: its bytes, and where the next header would be
    with storage.open_read(tar.uri) as stream:
        last: Any = _LastBlock(stream)
        try:
            with tarfile.open(fileobj=last, mode="r:") as archive:
                for member in archive:
                    if member.size < 0:
                        break  # a damaged header, which would lead backwards
                    ends = (_end_of(member), archive.offset)
                    rows += _rows_of(tar, member, last.block, rows)
        except tarfile.ReadError:
            pass  # where it breaks off is looked at below
        problem = _problem_of(tar, stream, ends)
    if problem is not None:
        rows.append({**_base(tar), "problem": "tar", "detail": f"{storage.name_of(tar.uri)} {problem}"})
    return rows


def _end_of(member: tarfile.TarInfo) -> int:
    return member.offset_data + (member.size if member.isreg() and not member.issparse() else 0)


def _base(tar: storage.FileInfo) -> dict[str, Any]:
    return {"uri": tar.uri, "tar_bytes": tar.num_bytes, "tar_modified_s": tar.modified_s}


def _rows_of(
    tar: storage.FileInfo, member: tarfile.TarInfo, header: bytes, before: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """The row of a member that is called like a video, none of another."""
    name = member.name.removeprefix("./")
    if not name.lower().endswith(_VIDEO_ENDINGS):
        return
    # Bytes that are no UTF-8 cannot be written in a table, nor named in one.
    key = name.rpartition(".")[0].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    row = {**_base(tar), "key": key}
    linked = _linked(member, before)
    if linked is not None:
        yield {**linked, "key": key}
        return
    what = "a sparse file" if member.issparse() else None if member.isreg() else _KINDS.get(member.type, "no file")
    if what is not None:
        yield {**row, "problem": "media_missing", "detail": f"{key} is {what} in {storage.name_of(tar.uri)}"}
    elif member.offset_data + member.size > tar.num_bytes:
        found = max(tar.num_bytes - member.offset_data, 0)
        detail = f"{storage.name_of(tar.uri)} breaks off in it: {found} of {member.size} bytes are there"
        yield {**row, "problem": "media_truncated", "detail": detail}
    else:
        yield {
            **row,
            "offset_bytes": member.offset_data,
            "size_bytes": member.size,
            "stamp": stamp_of(tar, header),
            "name": name,
        }


def _linked(member: tarfile.TarInfo, before: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The row of the video that a hard link names: tar writes one for a file that it packs a second time."""
    if not member.islnk():
        return None
    target = member.linkname.removeprefix("./")
    return next((row for row in before if row.get("name") == target), None)


def _problem_of(tar: storage.FileInfo, stream: BinaryIO, ends: tuple[int, int]) -> str | None:
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
    return f"{tar.num_bytes} {modified} {hashlib.sha256(header).hexdigest()[:16]}"


def what_changed(uri: str, offset_bytes: int, stamp: str, *, member_only: bool = False) -> str | None:
    """What tells that a tar is not the one that was indexed, None when it is.

    With `member_only`, the tar may have grown or been copied, as long as the member's header is the same: for readers
    that know the digest of what they make.

    Raises:
        FileMissingError: there is no such tar.
    """
    with storage.open_read(uri) as stream:
        stream.seek(offset_bytes - _BLOCK_BYTES)
        header = stream.read(_BLOCK_BYTES)
    found = storage.info(uri)
    if found is None:
        raise FileMissingError(f"{uri!r} does not exist")
    num_bytes, modified, digest = stamp_of(found, header).split()
    was_bytes, was_modified, was_digest = stamp.split()
    if digest != was_digest:
        return f"{uri!r} has another member before byte {offset_bytes} than when it was indexed"
    if member_only or (num_bytes, modified) == (was_bytes, was_modified):
        return None
    what = f"{was_bytes} bytes then, {num_bytes} now" if num_bytes != was_bytes else "written since, at the same size"
    return f"{uri!r} has changed since it was indexed: {what}"
