"""Annotation files as text, tables or JSON, with errors that name file and line. Knows no data set."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.annotations.rows import Span


class AnnotationError(ValueError):
    """An annotation file or media folder is not what the reader reads; one sentence with file and line."""


def wrong(path: Path, place: int | str, found: str, expected: str) -> AnnotationError:
    """The sentence: file, line number or JSON key, what was found, what was expected."""
    where = f"line {place}" if isinstance(place, int) else place
    return AnnotationError(f"{path}, {where}: found {found}, expected {expected}")


def read_text(path: Path) -> str:
    """A whole file as UTF-8, with or without a byte order mark.

    Raises:
        AnnotationError: the file cannot be read or is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise wrong(path, line, f"byte 0x{content[error.start]:02x}", "UTF-8 text") from error


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers. Only a line feed ends a line: captions hold other breaks."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Records of comma-separated values, with the number of the line that each ends on.

    Raises:
        AnnotationError: quotes that do not close.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        for record in reader:
            if record:
                yield reader.line_num, record
    except csv.Error as error:
        raise wrong(path, reader.line_num, f"broken quotes ({error})", "comma-separated values") from error


def csv_table(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Records under a header that holds at least `columns`.

    Raises:
        AnnotationError: a column is not there, or a record has more or fewer fields than the header.
    """
    header: list[str] = []
    for line, record in csv_rows(path):
        if not header:
            header = [name.strip() for name in record]
            if not set(columns) <= set(header):
                raise wrong(path, line, f"the header {','.join(header)[:200]}", f"columns {', '.join(columns)}")
        elif len(record) != len(header):
            raise wrong(path, line, f"{len(record)} fields", f"{len(header)}, as in the header")
        else:
            yield line, dict(zip(header, record, strict=True))
    if not header:
        raise wrong(path, 1, "an empty file", f"a header with {', '.join(columns)}")


def read_json(path: Path) -> Any:
    """A JSON document.

    Raises:
        AnnotationError: it is none.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise wrong(path, error.lineno, f"no JSON ({error.msg})", "one JSON document") from error


def mapping(path: Path, place: str, value: Any, keys: tuple[str, ...] = ()) -> dict[str, Any]:
    """`value` as a JSON object with at least `keys`.

    Raises:
        AnnotationError: it is none, or a key is not there.
    """
    if not isinstance(value, dict):
        raise wrong(path, place, type(value).__name__, "a JSON object")
    missing = [key for key in keys if key not in value]
    if missing:
        raise wrong(path, place, f"no {', '.join(missing)}", f"an object with {', '.join(keys)}")
    return value


def strings(path: Path, place: str, value: Any) -> list[str]:
    """`value` as a JSON list of strings.

    Raises:
        AnnotationError: it is none.
    """
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise wrong(path, place, str(value)[:80], "a list of strings")
    return value


def number(path: Path, place: int | str, value: Any) -> float:
    """`value` as a number.

    Raises:
        AnnotationError: it is none.
    """
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise wrong(path, place, repr(value)[:80], "a number") from error


def whole(path: Path, place: int | str, value: Any) -> int:
    """`value` as a whole number from 0.

    Raises:
        AnnotationError: it is none.
    """
    text = str(value).strip()
    if not (text.isascii() and text.isdigit()):
        raise wrong(path, place, repr(value)[:80], "a whole number from 0")
    return int(text)


def span_of(path: Path, place: int | str, start_s: Any, end_s: Any) -> Span:
    """Two numbers as a span.

    Raises:
        AnnotationError: they are none.
    """
    try:
        return Span(number(path, place, start_s), number(path, place, end_s))
    except AnnotationError:
        raise
    except ValueError as error:
        raise wrong(path, place, f"{start_s} to {end_s} s", "0 <= start <= end") from error


def kept_texts(texts: list[str]) -> tuple[str, ...]:
    """Captions without space around them, blank ones left out."""
    return tuple(text.strip() for text in texts if text.strip())
