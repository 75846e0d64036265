"""URIs and atomic publishing; the only place that opens paths of data.

Local paths and object-store URIs (``s3://``, ``gs://``, ...) through Arrow's file systems. A file is
published in one step: on a disk it is written beside its place, synced and renamed; on an object
store it is one completed upload whose size is checked. Nothing here reads a whole video into memory.
"""

from __future__ import annotations

import fnmatch
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

from gex_pipeline.errors import FileMissingError, FileTooShortError, GexError, TransientError

Item = TypeVar("Item")
Result = TypeVar("Result")

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*)://")
_GLOB = re.compile(r"[*?\[]")
_CHUNK_BYTES = 1 << 20
# Words by which object stores say that a person has to act; anything else may pass.
_TERMINAL_WORDS = (
    "access denied",
    "accessdenied",
    "403",
    "forbidden",
    "invalidaccesskeyid",
    "signaturedoesnotmatch",
    "credential",
    "does not exist",
    "no such file",
    "permission denied",
    "no space left",
)


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


def _remote(uri: str) -> tuple[Any, str]:
    from pyarrow import fs

    try:
        return fs.FileSystem.from_uri(uri)  # type: ignore[no-any-return]
    except (OSError, ValueError) as error:
        raise GexError(f"cannot reach {uri!r}: {_one_line(error)}") from error


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn a storage failure into a terminal or a transient error naming the URI."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileMissingError(f"{uri!r} does not exist") from error
    except OSError as error:
        text = _one_line(error)
        terminal = is_local(uri) or any(word in text.lower().replace("_", "") for word in _TERMINAL_WORDS)
        raise (GexError if terminal else TransientError)(f"storage failed for {uri!r}: {text}") from error


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:400]
    return "the bucket does not exist" if "NO_SUCH_BUCKET" in text else text


def info(uri: str) -> FileInfo | None:
    """Size and time of a file, or None when there is none."""
    if is_local(uri):
        path = local_path(uri)
        if not path.is_file():
            return None
        stat = path.stat()
        return FileInfo(uri, stat.st_size, stat.st_mtime)
    from pyarrow import fs

    filesystem, path_text = _remote(uri)
    with _explained(uri):
        found = filesystem.get_file_info(path_text)
    if found.type != fs.FileType.File:
        return None
    return FileInfo(uri, found.size, found.mtime_ns / 1e9 if found.mtime_ns else 0.0)


def exists(uri: str) -> bool:
    """Whether a file is there."""
    return info(uri) is not None


def list_files(uri_glob: str) -> list[FileInfo]:
    """The files a URI names, sorted; ``*``, ``?`` and ``[..]`` may stand in any part.

    A local part that exists under just this name is meant literally, so that a folder may be called ``run [2]``.
    """
    base, pattern = _fixed_and_pattern(uri_glob)
    if not pattern:
        found = info(uri_glob)
        return [found] if found else []
    return _list_local(base, pattern) if is_local(uri_glob) else _list_remote(base, pattern)


def _fixed_and_pattern(uri_glob: str) -> tuple[str, list[str]]:
    """The folder under which to look, and the pattern of each part below it; no parts: nothing to expand."""
    fixed, *parts = uri_glob.split("/")
    if _GLOB.search(fixed) and not (is_local(uri_glob) and Path(fixed).exists()):
        return ".", [fixed, *parts]
    while parts:
        below = f"{fixed}/{parts[0]}"
        if _GLOB.search(parts[0]) and not (is_local(uri_glob) and local_path(below).exists()):
            break
        fixed = below
        parts.pop(0)
    return fixed, parts


def _list_local(base: str, pattern: list[str]) -> list[FileInfo]:
    uris = [base]
    for part in pattern:
        folders = [(uri, local_path(uri or "/")) for uri in uris]
        uris = [
            name if uri == "." else f"{uri}/{name}"
            for uri, folder in folders
            if folder.is_dir()
            for name in (path.name for path in folder.iterdir())
            if fnmatch.fnmatchcase(name, part)
        ]
    return [found for uri in sorted(uris) if (found := info(uri)) is not None]


def _list_remote(base: str, pattern: list[str]) -> list[FileInfo]:
    from pyarrow import fs

    filesystem, path_text = _remote(base)
    selector = fs.FileSelector(path_text, recursive=len(pattern) > 1, allow_not_found=True)
    with _explained(base):
        found = filesystem.get_file_info(selector)
    files = []
    for item in found:
        relative = item.path[len(path_text.rstrip("/")) + 1 :]
        if item.type == fs.FileType.File and _matches(relative.split("/"), pattern):
            files.append(FileInfo(f"{base}/{relative}", item.size, (item.mtime_ns or 0) / 1e9))
    return sorted(files, key=lambda file: file.uri)


def _matches(names: list[str], pattern: list[str]) -> bool:
    return len(names) == len(pattern) and all(map(fnmatch.fnmatchcase, names, pattern))


@contextmanager
def open_read(uri: str) -> Iterator[BinaryIO]:
    """Open a file for reading; seekable, also on an object store."""
    if is_local(uri):
        with _explained(uri):
            stream: Any = local_path(uri).open("rb")
    else:
        filesystem, path_text = _remote(uri)
        with _explained(uri):
            stream = filesystem.open_input_file(path_text)
    try:
        with _explained(uri):
            yield stream
    finally:
        stream.close()


def read_bytes(uri: str) -> bytes:
    """All bytes of a small file (manifests, receipts)."""
    with open_read(uri) as stream:
        return stream.read()


def copy_range(uri: str, offset_bytes: int, size_bytes: int, target: Path) -> None:
    """Write `size_bytes` of `uri` from `offset_bytes` on to a local file, in pieces.

    Raises:
        FileTooShortError: the file ends before the range does.
    """
    with open_read(uri) as stream, target.open("wb") as out:
        stream.seek(offset_bytes)
        left = size_bytes
        while left:
            piece = stream.read(min(_CHUNK_BYTES, left))
            if not piece:
                raise FileTooShortError(f"{uri!r} ends {left} bytes before the range {offset_bytes}+{size_bytes} does")
            out.write(piece)
            left -= len(piece)


@contextmanager
def local_copy(uri: str, folder: Path | None = None) -> Iterator[Path]:
    """A local path with the bytes of `uri`: the file itself when it is local, else a temporary copy."""
    if is_local(uri):
        yield local_path(uri)
        return
    with tempfile.TemporaryDirectory(prefix="gex-", dir=folder) as scratch:
        target = Path(scratch) / name_of(uri)
        with open_read(uri) as stream, target.open("wb") as out:
            shutil.copyfileobj(stream, out, _CHUNK_BYTES)
        yield target


def publish_file(local: Path, uri: str) -> None:
    """Put a finished local file at `uri` in one step; readers see all of it or nothing.

    Raises:
        GexError: no space, no permission, wrong credentials.
        TransientError: the object store failed in a way that may pass.
    """
    if is_local(uri):
        with _explained(uri):
            _publish_local(local, local_path(uri))
        return
    # In a thread of its own, since an interrupt that ends the block early would complete a torn upload.
    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(_upload, local, uri).result()


def _upload(local: Path, uri: str) -> None:
    filesystem, path_text = _remote(uri)
    size = local.stat().st_size
    with _explained(uri), local.open("rb") as source:
        try:
            with filesystem.open_output_stream(path_text) as out:
                shutil.copyfileobj(source, out, _CHUNK_BYTES)
        finally:
            # Arrow's stream cannot be given up: closing it after an error publishes what it holds.
            stored = filesystem.get_file_info(path_text).size
            if stored is not None and stored != size:
                filesystem.delete_file(path_text)
    if stored != size:
        raise TransientError(f"{uri!r} holds {stored} bytes after uploading {size}")


def _publish_local(local: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # The hidden name ends in .part, so no glob for tars or tables can take a torn file for a shard.
    beside = target.parent / f".{target.name}.{secrets.token_hex(4)}.part"
    try:
        try:
            os.link(local, beside)
        except OSError:
            shutil.copyfile(local, beside)
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


def publish_bytes(content: bytes, uri: str) -> None:
    """Put small content at `uri` in one step."""
    with tempfile.TemporaryDirectory(prefix="gex-") as folder:
        local = Path(folder) / "content"
        local.write_bytes(content)
        publish_file(local, uri)


def create_bytes(content: bytes, uri: str) -> bool:
    """Put small content where there is nothing yet; False when something is there.

    On a disk one caller only is told True. An object store is asked first and written then, which is not atomic.
    """
    if not is_local(uri):
        if exists(uri):
            return False
        publish_bytes(content, uri)
        return True
    target = local_path(uri)
    with _explained(uri):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with target.open("xb") as handle:
                handle.write(content)
        except FileExistsError:
            return False
    return True


def remove_if_holds(content: bytes, uri: str) -> bool:
    """Remove a file if it still has this content; False, and nothing is changed, when it has another or is gone.

    On a disk it is moved aside and looked at there, so that of several callers one only is told True.
    """
    if not is_local(uri):
        same = exists(uri) and read_bytes(uri) == content
        if same:
            remove(uri)
        return same
    target = local_path(uri)
    aside = target.parent / f".{target.name}.{secrets.token_hex(4)}.part"
    with _explained(uri):
        try:
            target.rename(aside)
        except FileNotFoundError:
            return False
        try:
            same = aside.read_bytes() == content
            if not same:
                create_bytes(aside.read_bytes(), uri)
        finally:
            aside.unlink()
    return same


def remove(uri: str) -> None:
    """Remove a file; nothing happens when there is none."""
    if is_local(uri):
        local_path(uri).unlink(missing_ok=True)
        return
    filesystem, path_text = _remote(uri)
    if exists(uri):
        with _explained(uri):
            filesystem.delete_file(path_text)


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
    except TransientError:
        raise
    except GexError as error:
        raise GexError(f"cannot write to {uri!r}: {_one_line(error.__cause__ or error)}") from error
