"""Metadata files as plain text: what DuckDB's readers do not say of them, and what they cannot take.

In: local files of CSV or JSON Lines, compressed or not. Out: a CSV's header, which lines of JSON are no rows and where
they stand, a copy of a CSV with one kind of line ends, or an error that names a file that is no text of the kind.
Looks at beginnings only, unless something is wrong with a file.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from gex_pipeline.errors import GexError

MAX_LINE_BYTES = 1 << 24  # DuckDB's own limit for an object
MAX_COLUMNS = 5000  # DuckDB's time grows with their square, and thirty thousand take more than its memory
MAX_DESCRIBED = 1000  # lines; a person reads the first few
_MAX_CONTENT_CHARS = 2000
_MAX_HEADER_LETTERS = 1 << 20  # a compressed file of nothing holds a line that fills the memory
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


def csv_header(path: Path, delimiter: str) -> tuple[str, ...]:
    """The names in a CSV's first line; one without a name, as of the index that pandas writes, is ``column0``.

    Raises:
        GexError: the file is no UTF-8, or its header is none, too long, or has a name twice; csv.Error likewise.
    """
    check_encoding(path)
    with _open(path) as stream:
        lines = io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8-sig", errors="replace", newline="")
        short = iter(lambda: _short_line(lines), "")
        names = tuple(
            name or unnamed(index) for index, name in enumerate(next(csv.reader(short, delimiter=delimiter), ()))
        )
    if not names:
        raise GexError(f"cannot read {path.name} as CSV: it has no header line")
    check_width(path, "CSV", len(names))
    num_called = Counter(name.lower() for name in names)
    for name in names:
        if num_called[name.lower()] > 1:
            raise GexError(f"cannot read {path.name} as CSV: its header has {name!r} twice")
    return names


def unnamed(index: int) -> str:
    """What a column without a name is called."""
    return f"column{index}"


def check_width(path: Path, kind: str, num_columns: int) -> None:
    """Refuse more columns than are read.

    Raises:
        GexError: naming the file and both numbers.
    """
    if num_columns > MAX_COLUMNS:
        raise GexError(f"cannot read {path.name} as {kind}: {num_columns} columns; at most {MAX_COLUMNS} are read")


def _short_line(lines: io.TextIOWrapper) -> str:
    line = lines.readline(_MAX_HEADER_LETTERS + 1)
    if len(line) > _MAX_HEADER_LETTERS:
        raise csv.Error(f"a line of its header is longer than {_MAX_HEADER_LETTERS} letters")
    return line


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


@dataclass(frozen=True)
class JsonColumn:
    """A column of JSON Lines: its type, and the places of its keys, which are the same but for their case."""

    kind: str
    places: tuple[int, ...]

    def value(self, kind: str) -> str:
        """SQL for the first value that is there in the list ``found``, which has one a key, as the type."""
        found = ", ".join(_json_value(f"found[{place}]", kind) for place in self.places)
        return f"coalesce({found})"


def _json_value(found: str, kind: str) -> str:
    if kind == "JSON":
        return f"nullif({found}::VARCHAR, 'null')::JSON"
    return json_text(found) if kind == "VARCHAR" else f"({found}->>'$')::{kind}"


def json_text(found: str) -> str:
    """SQL for a JSON value as text, as DuckDB's reader has it: it writes large floats in another way than ``->>``."""
    text = f"({found}->>'$')"
    is_float = f"json_type({found}) = 'DOUBLE' AND regexp_matches({text}, '[.eE]')"
    return f"CASE WHEN {is_float} THEN {text}::DOUBLE::VARCHAR ELSE {text} END"


def json_columns(types: Mapping[str, str]) -> dict[str, JsonColumn]:
    """The columns that keys make: those that differ in case only are one, called as the first, as in other formats."""
    alike: dict[str, list[int]] = {}
    names = [key or unnamed(index) for index, key in enumerate(types)]
    for index, name in enumerate(names):
        alike.setdefault(name.lower(), []).append(index)
    kinds = list(types.values())
    return {
        names[some[0]]: JsonColumn(_json_kind({kinds[index] for index in some}), tuple(index + 1 for index in some))
        for some in alike.values()
    }


def _json_kind(kinds: set[str]) -> str:
    found = kinds - {"NULL"} or {"JSON"}
    if len(found) == 1:
        return found.pop()
    if found <= {"BIGINT", "UBIGINT", "HUGEINT", "DOUBLE"}:
        return "DOUBLE" if "DOUBLE" in found else "HUGEINT"
    return "JSON"


def pointer(key: str) -> str:
    """The JSON pointer to an object's key."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


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
