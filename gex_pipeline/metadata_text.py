"""Metadata files as plain text: what DuckDB's readers do not say of them, and what they cannot take.

In: local files of CSV or JSON Lines, compressed or not. Out: which lines of JSON are no rows and where they
stand, a copy of a CSV with one kind of line ends, or an error that names a file that is no text of the kind.
Looks at beginnings only, unless something is wrong with a file.
"""

from __future__ import annotations

import codecs
import io
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from gex_pipeline.errors import GexError

MAX_LINE_BYTES = 1 << 24  # DuckDB's own limit for an object
MAX_DESCRIBED = 1000  # lines; a person reads the first few
_MAX_CONTENT_CHARS = 2000
_CHUNK_BYTES = 1 << 20
_OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


@dataclass(frozen=True)
class BadLine:
    """A line that is no row: where it stands and what is wrong with it, and how it begins."""

    detail: str
    content: str


def check_encoding(path: Path) -> None:
    """Refuse a file that says of itself that it is not UTF-8.

    Raises:
        GexError: naming file and encoding.
    """
    with _open(path) as stream:
        start = stream.read(4)
    for mark, encoding in _OTHER_ENCODINGS.items():
        if start.startswith(mark):
            raise GexError(f"cannot read {path.name}: it is {encoding}, and metadata have to be UTF-8")


def check_json_lines(path: Path) -> None:
    """Refuse a file that has lines, none of which is a JSON object.

    Raises:
        GexError: naming the file and what its first line is.
    """
    check_encoding(path)
    first = None
    for number, line in _lines(path):
        problem = _problem(line)
        if problem is None:
            return
        first = first or f"line {number} is {problem}"
    if first is not None:
        raise GexError(
            f"cannot read {path.name} as JSON Lines: none of its lines is a JSON object ({first}). "
            "JSON Lines have one object a line and no brackets around them"
        )


def bad_json_lines(paths: list[Path]) -> list[BadLine]:
    """The first lines that are no JSON objects, or objects without a value, in the order of the files."""
    found: list[BadLine] = []
    for path in paths:
        for number, line in _lines(path):
            problem = _problem(line) or _emptiness(line)
            if problem is not None:
                content = line.decode("utf-8", errors="replace").replace("\0", "\ufffd")
                found.append(BadLine(f"{path.name} line {number}: {problem}", content[:_MAX_CONTENT_CHARS]))
                if len(found) == MAX_DESCRIBED:
                    return found
    return found


def _problem(line: bytes) -> str | None:
    """Why a line is no row, None when it is one."""
    try:
        value = json.loads(line.decode("utf-8"))
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except UnicodeDecodeError:
        return "not UTF-8"
    except UnicodeEncodeError:
        return "not JSON (half of a surrogate pair)"
    except json.JSONDecodeError as error:
        return f"not JSON (character {error.pos + 1}: {error.msg})"
    except ValueError:
        return "not JSON (a number too long)"
    except RecursionError:
        return "not JSON (nested too deeply)"
    return None if isinstance(value, dict) else f"not an object but {_KINDS[type(value)]}"


_KINDS: dict[type[Any], str] = {
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _emptiness(line: bytes) -> str | None:
    return "an object without a value" if all(value is None for value in json.loads(line).values()) else None


def with_one_line_end(path: Path, folder: Path) -> Path:
    """The file itself, or where it ends lines in two ways a copy in `folder` that ends them by one newline.

    A carriage return that ends no line becomes a space.
    """
    with _open(path) as stream:
        chunks = list(_line_end_kinds(stream))
    if len(set().union(*chunks)) < 2:
        return path
    target = Path(tempfile.mkdtemp(dir=folder)) / path.name.removesuffix(".gz").removesuffix(".zst")
    with _open(path) as stream, target.open("wb") as out:
        for chunk in _whole_ends(stream):
            out.write(chunk.replace(b"\r\n", b"\n").replace(b"\r", b" "))
    return target


def _line_end_kinds(stream: BinaryIO) -> Iterator[set[str]]:
    for chunk in _whole_ends(stream):
        crlf, returns, newlines = chunk.count(b"\r\n"), chunk.count(b"\r"), chunk.count(b"\n")
        kinds = {"crlf": crlf, "cr": returns - crlf, "lf": newlines - crlf}
        yield {kind for kind, count in kinds.items() if count}


def _whole_ends(stream: BinaryIO) -> Iterator[bytes]:
    """A stream in pieces, none of which ends between a carriage return and what follows it."""
    held = b""
    while chunk := held + stream.read(_CHUNK_BYTES):
        is_last = chunk == held
        held = b"\r" if chunk.endswith(b"\r") and not is_last else b""
        yield chunk.removesuffix(held)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers from 1.

    Raises:
        GexError: a line is longer than DuckDB reads; a compressed file of nothing holds one that fills the memory.
    """
    with _open(path) as stream:
        lines = io.BufferedReader(stream)
        for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_BYTES + 1), b""), 1):
            if len(line) > MAX_LINE_BYTES:
                raise GexError(f"cannot read {path.name}: line {number} is longer than {MAX_LINE_BYTES} bytes")
            text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if text.strip():
                yield number, text.strip()


def _open(path: Path) -> Any:
    return pa.input_stream(str(path), compression="detect")
