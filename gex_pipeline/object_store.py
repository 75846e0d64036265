"""The connection to object stores: one client a bucket, bounded patience, files that are read in pieces.

Every request is bounded in time; one that fails in a way that may pass is repeated, for longer where the store answers
that it is busy than where it does not answer. A piece that comes short, breaks off or comes too slowly is asked for
again, so a reader gets a whole file or an error. Nothing here writes but what `ask` is given to do.
"""

from __future__ import annotations

import io
import os
import random
import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

from gex_pipeline.errors import FileMissingError, GexError
from gex_pipeline.storage_failures import Kind, explain_store, failure, is_unsaid, one_line

Result = TypeVar("Result")

PIECE_BYTES = 4 << 20
_BUFFER_BYTES = 256 << 10  # of small reads, such as out of a file in blocks
_CONNECT_S = 3.0
_ANSWER_S = 5.0  # a connection over which nothing comes for so long is given up
_TRIES = 3  # of one request, inside Arrow's client, with up to 3 s between them
_PIECE_S = 120.0  # what comes slower than a piece in this time is asked for again
_PATIENCE_S = {Kind.busy: 60.0, Kind.down: 15.0}  # no further try after so long
_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0


def connect(uri: str) -> tuple[Any, str]:
    """The file system of a URI, and the path in it, which is taken as it is: ids of clips are part of it.

    Raises:
        GexError: nobody knows the scheme, or the URI carries credentials.
    """
    from pyarrow import fs

    scheme, _, rest = uri.partition("://")
    authority, _, path = rest.partition("/")
    user = authority.partition("@")[0] if "@" in authority else ""
    if ":" in user or (scheme == "s3" and (user or (":" in authority and "@" in rest))):  # a secret may hold a slash
        safe = f"{scheme}://{rest.rpartition('@')[2]}"
        raise GexError(f"{safe!r} is given with credentials, which would be published; put them in the environment")
    if "?" in authority or "#" in authority:
        raise GexError(f"cannot reach {uri!r}: settings of a store belong into the environment, not behind its name")
    try:
        if scheme == "s3":
            return _s3(authority, *_circumstances()), rest.rstrip("/")
        # of the path nothing is told: what Arrow takes for settings in it would send credentials elsewhere
        filesystem, root = fs.FileSystem.from_uri(f"{scheme}://{authority}/")
        return filesystem, f"{root}{'' if not root or root.endswith('/') else '/'}{path}".rstrip("/") or root
    except ValueError as error:
        raise GexError(f"cannot reach {uri!r}: {one_line(error)}") from error
    except OSError as error:
        raise failure(uri, *explain_store(error)) from error


def _circumstances() -> tuple[int, int]:
    """What a client depends on: the environment it was made in, and the process, since it does not survive a fork."""
    return hash(tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))), os.getpid()


@lru_cache(maxsize=32)
def _s3(bucket: str, _environment: int, _pid: int) -> Any:
    """A client of a bucket; kept, since its connections are."""
    from pyarrow import fs

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return fs.S3FileSystem(
        endpoint_override=endpoint,
        region=None if endpoint else fs.resolve_s3_region(bucket),
        connect_timeout=_CONNECT_S,
        request_timeout=_ANSWER_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_TRIES),
        allow_delayed_open=True,  # a small file is one request instead of three
    )


@lru_cache(maxsize=32)
def _check_bucket(uri: str, _environment: int, _pid: int) -> None:
    """Fail when the bucket is missing; where the store does not tell, it is taken to be there."""
    from pyarrow import fs

    filesystem, path = connect(uri)
    try:
        if filesystem.get_file_info(path).type != fs.FileType.NotFound:
            return
    except OSError:
        return
    raise FileNotFoundError(uri)  # which the cache does not keep: the bucket may be made


def check_bucket(uri: str) -> None:
    """Tell a missing bucket from a missing file, which stores answer alike. Asked once where it is there.

    Raises:
        GexError: the bucket does not exist.
    """
    if uri.startswith("s3://"):
        try:
            _check_bucket("/".join(uri.split("/")[:3]), *_circumstances())
        except FileNotFoundError as error:
            why = "the bucket does not exist; create it, or correct its name"
            raise failure(uri, why, Kind.terminal) from error


def ask(uri: str, work: Callable[[Any, str], Result]) -> Result:
    """Do one thing with a file system and a path; again, after a pause, while the failure may pass.

    Raises:
        FileMissingError: the file is not there.
        GexError: it cannot be done; TransientError when the patience is at its end.
    """
    filesystem, path = connect(uri)
    started, num_tries = time.monotonic(), 0
    while True:
        try:
            return work(filesystem, path)
        except FileNotFoundError as error:
            check_bucket(uri)
            raise FileMissingError(f"{uri!r} does not exist") from error
        except (OSError, ValueError) as error:
            why, kind = explain_store(_with_reason(filesystem, path, error))
            num_tries += 1
            pause_s = min(_PAUSE_S * 2**num_tries, _LONGEST_PAUSE_S) * random.uniform(0.5, 1)  # noqa: S311  no secret
            waited_s = time.monotonic() - started
            if kind is Kind.terminal:
                raise failure(uri, why, kind) from error
            if waited_s + pause_s > _PATIENCE_S[kind]:
                raise failure(uri, f"{why}; given up at try {num_tries}, after {waited_s:.0f} s", kind) from error
        time.sleep(pause_s)


def _with_reason(filesystem: Any, path: str, error: OSError | ValueError) -> OSError | ValueError:
    """The same refusal with its reason, by asking for a list, whose answer has a body, where this one had none."""
    from pyarrow import fs

    if is_unsaid(str(error)):
        try:
            filesystem.get_file_info(fs.FileSelector(f"{path.partition('/')[0]}/.gex-none", allow_not_found=True))
        except OSError as said:
            return said
    return error


def open_stored(uri: str, *, exact: bool = False) -> StoredReader:
    """A stored file, open for reading; seekable. Small reads are buffered, large ones are a request a piece.

    With `exact`, small reads are requests of their own, too, and nothing comes but what was asked for.
    """
    return StoredReader(_StoredFile(uri), 1 if exact else _BUFFER_BYTES)


class _StoredFile(io.RawIOBase):
    """Reads by ranges, each asked for until it has come whole."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._file, self.size_bytes, self.modified_s = ask(uri, _open)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        content = self.read_at(self._at, len(buffer))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def read_at(self, at: int, num_bytes: int) -> bytes:
        """These bytes, or those there are until the end."""
        end = min(at + num_bytes, self.size_bytes) if num_bytes >= 0 else self.size_bytes
        starts = range(at, end, PIECE_BYTES)
        return b"".join([self._read_piece(start, min(PIECE_BYTES, end - start)) for start in starts])

    def _read_piece(self, at: int, wanted: int) -> bytes:
        def read(_filesystem: Any, _path: str) -> bytes:
            content: bytes = _in_time(lambda: self._file.read_at(wanted, at))
            if len(content) != wanted:
                raise OSError(f"{len(content)} of {wanted} bytes came from byte {at} on")
            return content

        return ask(self._uri, read)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class StoredReader(io.BufferedReader):
    """What `open_stored` gives, with size and time of the file as the store said them on opening."""

    def __init__(self, stored: _StoredFile, buffer_bytes: int) -> None:
        super().__init__(stored, buffer_bytes)
        self._stored, self._buffer_bytes = stored, buffer_bytes
        self.size_bytes, self.modified_s = stored.size_bytes, stored.modified_s

    def read(self, size: int | None = -1, /) -> bytes:
        """As many bytes, or those there are; a piece of what is larger than the buffer is one request."""
        if size is not None and 0 <= size < self._buffer_bytes:
            return super().read(size)
        at = self.tell()
        content = self._stored.read_at(at, -1 if size is None else size)
        self.seek(at + len(content))
        return content


def _open(filesystem: Any, path: str) -> tuple[Any, int, float | None]:
    """A file, its size in bytes, and when it was written in whole seconds, where the store says so; one request."""
    file = filesystem.open_input_file(path)
    written: bytes | None = file.metadata().get("Last-Modified")
    return file, file.size(), datetime.fromisoformat(written.decode()).timestamp() if written else None


def _in_time(work: Callable[[], Result]) -> Result:
    """What `work` returns, unless it takes too long; then it is left to itself, as Arrow's client cannot be stopped.

    A client's own limits end a connection that is silent, not one that sends a few bytes a second for ever.
    """
    from pyarrow import ArrowException

    answers: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(work())
        except (OSError, ValueError, MemoryError, ArrowException) as error:  # all that Arrow raises
            errors.append(error)

    thread = threading.Thread(target=run, name="gex-read", daemon=True)
    thread.start()
    thread.join(_PIECE_S)
    if errors:
        raise errors[0]
    if not answers:
        raise OSError(f"a piece did not come within {_PIECE_S:g} s")
    return answers[0]
