"""URIs and atomic publishing; the only place that opens paths of data.

Local paths and object-store URIs (``s3://``, ``gs://``, ...) through Arrow's file systems. A file is
published in one step: on a disk it is written beside its place, synced and renamed; on an object
store it is one completed upload whose size is checked. Nothing here reads a whole video into memory.
What fails says where and what to do; what may pass is a `TransientError`, after the patience of `object_store`.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

from gex_pipeline import object_store, storage_patterns
from gex_pipeline.errors import FileMissingError, FileTooShortError, GexError
from gex_pipeline.storage_failures import SPACE_ERRORS, explain_disk, explained, failure, one_line

Item = TypeVar("Item")
Result = TypeVar("Result")

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*)://")


@dataclass(frozen=True)
class FileInfo:
    """One stored file: its URI, size in bytes and modification time in seconds."""

    uri: str
    num_bytes: int
    modified_s: float


def is_local(uri: str) -> bool:
    """Whether `uri` is a path of this machine."""
    return _SCHEME.match(uri) is None or uri.startswith("file://")


def local_path(uri: str) -> Path:
    """The absolute path of a local URI."""
    return Path(uri.removeprefix("file://")).absolute()


def absolute(uri: str) -> str:
    """`uri` with a local path made absolute."""
    return str(local_path(uri)) if is_local(uri) else uri


def join(uri: str, *parts: str) -> str:
    """`uri` with path parts added, each of which must stay inside it.

    Raises:
        GexError: a part is absolute or climbs out with ``..``.
    """
    for part in parts:
        pure = PurePosixPath(part)
        if pure.is_absolute() or ".." in pure.parts or "\0" in part:
            raise GexError(f"path {part!r} leads out of {uri!r}")
    return "/".join([uri.rstrip("/"), *parts])


def name_of(uri: str) -> str:
    """The last part of a URI."""
    return uri.rstrip("/").rsplit("/", 1)[-1]


def info(uri: str) -> FileInfo | None:
    """Size and time of a file, or None when there is none."""
    if is_local(uri):
        # a path through a file, or with a null byte, is no file's
        with explained(uri), suppress(FileNotFoundError, NotADirectoryError, ValueError):
            status = local_path(uri).stat()
            if stat.S_ISREG(status.st_mode):
                return FileInfo(uri, status.st_size, status.st_mtime)
        return None
    from pyarrow import fs

    found = object_store.ask(uri, lambda filesystem, path: filesystem.get_file_info(path))
    if found.type == fs.FileType.NotFound:
        object_store.check_bucket(uri)
    if found.type != fs.FileType.File:
        return None
    return FileInfo(uri, found.size, found.mtime_ns / 1e9 if found.mtime_ns else 0.0)


def exists(uri: str) -> bool:
    """Whether a file is there."""
    return info(uri) is not None


def list_files(uri_glob: str) -> list[FileInfo]:
    """The files a URI names, sorted; ``*``, ``?`` and ``[..]`` may stand in any part, ``**`` is any number of folders.

    What begins with a dot is found only by a part that does. Links to folders are followed, but not in circles.
    A local part that exists under just this name is meant literally, so that a folder may be called ``run [2]``.

    Raises:
        GexError: ``**`` is not a whole part, or a folder cannot be read.
    """
    base, pattern = _fixed_and_pattern(uri_glob)
    if not pattern:
        found = info(uri_glob)
        return [found] if found else []
    pattern = storage_patterns.checked(pattern)
    return _list_local(base, pattern) if is_local(uri_glob) else _list_remote(base, pattern)


def _fixed_and_pattern(uri_glob: str) -> tuple[str, list[str]]:
    """The folder under which to look, and the pattern of each part below it; no parts: nothing to expand."""
    fixed, *parts = uri_glob.split("/")
    if storage_patterns.is_pattern(fixed) and not (is_local(uri_glob) and Path(fixed).exists()):
        return ".", [fixed, *parts]
    while parts:
        below = f"{fixed}/{parts[0]}"
        if storage_patterns.is_pattern(parts[0]) and not (is_local(uri_glob) and local_path(below).exists()):
            break
        fixed = below
        parts.pop(0)
    return fixed, parts


def _list_local(base: str, pattern: list[str]) -> list[FileInfo]:
    uris = {base}
    for part in pattern:
        if part == storage_patterns.FOLDERS:
            uris = {below for uri in uris for below in _folders_below(uri, frozenset())}
        else:
            uris = {entry for uri in uris for entry in _entries(uri) if storage_patterns.fits(name_of(entry), part)}
    return [found for uri in sorted(uris) if (found := info(uri)) is not None]


def _entries(uri: str, *, folders_only: bool = False) -> list[str]:
    """What lies in a folder; nothing in what is none."""
    folder = local_path(uri or "/")
    if not folder.is_dir():
        return []
    with explained(uri), os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not folders_only or entry.is_dir()]
    return [name if uri == "." else f"{uri}/{name}" for name in names]


def _folders_below(uri: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """A folder and all below it, except one that is above itself by a link."""
    folder = local_path(uri or "/")
    if not folder.is_dir():
        return
    found = folder.stat()
    if (found.st_dev, found.st_ino) in above:
        return
    yield uri
    for entry in _entries(uri, folders_only=True):
        if storage_patterns.fits(name_of(entry), "*"):
            yield from _folders_below(entry, above | {(found.st_dev, found.st_ino)})


def _list_remote(base: str, pattern: list[str]) -> list[FileInfo]:
    from pyarrow import fs

    def select(filesystem: Any, path: str) -> Any:
        return filesystem.get_file_info(fs.FileSelector(path, recursive=len(pattern) > 1, allow_not_found=True))

    found = object_store.ask(base, select)
    if not found:
        object_store.check_bucket(base)
    path_text = object_store.connect(base)[1]
    files = []
    for item in found:
        relative = item.path[len(path_text.rstrip("/")) + 1 :]
        if item.type == fs.FileType.File and storage_patterns.matches(relative.split("/"), pattern):
            files.append(FileInfo(f"{base}/{relative}", item.size, (item.mtime_ns or 0) / 1e9))
    return sorted(files, key=lambda file: file.uri)


@contextmanager
def open_read(uri: str, *, exact: bool = False) -> Iterator[BinaryIO]:
    """Open a file for reading; seekable, also on an object store, where each piece is asked for until it is whole.

    With `exact`, every read of a stored file is a request, which fetches nothing more.
    """
    if not is_local(uri):
        with object_store.open_stored(uri, exact=exact) as stored:
            yield stored
        return
    with explained(uri):
        stream = local_path(uri).open("rb")
    with stream:
        try:
            yield stream
        except OSError as error:
            # Those of space belong to what the caller writes meanwhile.
            with nullcontext() if error.errno in SPACE_ERRORS else explained(uri):
                raise


def read_bytes(uri: str) -> bytes:
    """All bytes of a small file (manifests, receipts)."""
    with open_read(uri) as stream:
        return stream.read()


def copy_range(uri: str, offset_bytes: int, size_bytes: int, target: Path) -> None:
    """Write `size_bytes` of `uri` from `offset_bytes` on to a local file, in pieces.

    Raises:
        FileTooShortError: the file ends before the range does.
        GexError: it cannot be read, or the local file cannot be written.
    """
    with open_read(uri, exact=True) as stream:
        write_pieces(pieces(stream, uri, offset_bytes, size_bytes), target)


def write_pieces(content: Iterable[bytes], target: Path) -> None:
    """Write a local file, or nothing."""
    try:
        with explained(str(target)), target.open("wb") as out:
            for piece in content:
                out.write(piece)
    except BaseException:
        target.unlink(missing_ok=True)  # half of it
        raise


def read_range(uri: str, offset_bytes: int, size_bytes: int) -> bytes:
    """A byte range of a file, which has to fit into memory.

    Raises:
        FileMissingError, FileTooShortError, GexError, or TransientError when it may pass.
    """
    with open_read(uri, exact=True) as stream:
        return b"".join(pieces(stream, uri, offset_bytes, size_bytes))


def pieces(stream: BinaryIO, uri: str, offset_bytes: int, size_bytes: int, *, before_bytes: int = 0) -> Iterator[bytes]:
    """A byte range of an open file, with the bytes before it; each piece of a stored one is a request.

    Raises:
        FileTooShortError: the file ends before the range does.
        GexError: it begins before the file, or ends before it begins: reading less than nothing would read everything.
    """
    if offset_bytes < before_bytes or size_bytes < 0:
        raise GexError(f"{offset_bytes}+{size_bytes} is no range of bytes of {uri!r}")
    stream.seek(offset_bytes - before_bytes)
    left = before_bytes + size_bytes
    while left:
        piece = stream.read(min(object_store.PIECE_BYTES, left))
        if not piece:
            raise FileTooShortError(f"{uri!r} ends {left} bytes before the range {offset_bytes}+{size_bytes} does")
        left -= len(piece)
        yield piece


@contextmanager
def scratch_folder(prefix: str = "gex-", folder: Path | None = None) -> Iterator[Path]:
    """A temporary folder; a failure to write there is told as one of that folder.

    Raises:
        GexError: it is full, or cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=prefix, dir=folder) as scratch:
            yield Path(scratch)
    except OSError as error:
        if error.errno not in SPACE_ERRORS:
            raise
        place = f"{folder or tempfile.gettempdir()} (the scratch folder, see TMPDIR)"
        raise failure(place, *explain_disk(error)) from error


@contextmanager
def local_copy(uri: str, folder: Path | None = None) -> Iterator[Path]:
    """A local path with the bytes of `uri`: the file itself when it is local, else a temporary copy."""
    if is_local(uri):
        yield local_path(uri)
        return
    with scratch_folder(folder=folder) as scratch:
        target = scratch / name_of(uri)
        with open_read(uri) as stream, target.open("wb") as out:
            shutil.copyfileobj(stream, out, object_store.PIECE_BYTES)
        yield target


def publish_file(local: Path, uri: str) -> None:
    """Put a finished local file at `uri` in one step; readers see all of it or nothing.

    Raises:
        GexError: no space, no permission, wrong credentials.
        TransientError: the object store failed in a way that may pass.
    """
    if not is_local(uri):
        with explained(str(local)):
            size_bytes = local.stat().st_size
        _upload(lambda: local.open("rb"), size_bytes, uri)
        return

    def fill(beside: Path) -> None:
        try:
            os.link(local, beside)
        except OSError:
            shutil.copyfile(local, beside)

    _publish_local(fill, uri)


def publish_bytes(content: bytes, uri: str) -> None:
    """Put small content at `uri` in one step."""
    if is_local(uri):
        _publish_local(lambda beside: beside.write_bytes(content), uri)
    else:
        _upload(lambda: io.BytesIO(content), len(content), uri)


def _publish_local(fill: Callable[[Path], object], uri: str) -> None:
    target = local_path(uri)
    # The hidden name ends in .part, so no glob for tars or tables can take a torn file for a shard.
    beside = target.parent / f".{target.name}.{secrets.token_hex(4)}.part"
    with explained(uri):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            fill(beside)
            with beside.open("rb") as handle:
                os.fsync(handle.fileno())
            beside.replace(target)
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        finally:
            beside.unlink(missing_ok=True)


def _upload(open_source: Callable[[], BinaryIO], size_bytes: int, uri: str) -> None:
    def send(filesystem: Any, path: str) -> None:
        _send(open_source, filesystem, path, uri)
        stored = filesystem.get_file_info(path).size
        if stored != size_bytes:
            raise OSError(f"{stored} bytes are there after uploading {size_bytes}")

    # In a thread of its own, since an interrupt that ends the block early would complete a torn upload.
    with ThreadPoolExecutor(max_workers=1) as pool:
        object_store.ask(uri, lambda filesystem, path: pool.submit(send, filesystem, path).result())


def _send(open_source: Callable[[], BinaryIO], filesystem: Any, path: str, uri: str) -> None:
    """One upload. Arrow's stream cannot be given up: closing it publishes what it was given until then."""
    torn: OSError | None = None
    with open_source() as source, filesystem.open_output_stream(path) as out:
        while torn is None:
            try:
                piece = source.read(object_store.PIECE_BYTES)
            except OSError as error:
                torn = error
            else:
                if not piece:
                    break
                out.write(piece)
    if torn is not None:
        filesystem.delete_file(path)
        raise GexError(f"the local file for {uri!r} cannot be read: {one_line(torn)}") from torn


def remove(uri: str) -> None:
    """Remove a file; nothing happens when there is none."""
    if is_local(uri):
        with explained(uri), suppress(NotADirectoryError):
            local_path(uri).unlink(missing_ok=True)
        return
    with suppress(FileMissingError):
        object_store.ask(uri, lambda filesystem, path: filesystem.delete_file(path))


def for_each(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Call a function that waits on storage for every item, several at a time; results in the order of the items."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(function, items))


def check_writable(uri: str) -> None:
    """Write and remove a small file, so that a wrong place is known before work starts.

    Raises:
        GexError: one sentence saying what is wrong with the place.
    """
    probe = join(uri, f".gex-write-test-{secrets.token_hex(4)}")
    try:
        publish_bytes(b"gex", probe)
        remove(probe)
    except GexError as error:
        why = str(error).removeprefix(f"storage failed for {probe!r}: ")
        raise type(error)(f"cannot write to {uri!r}: {why}") from error
