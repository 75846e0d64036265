"""Metadata tables with every kind of damage, and what a reader of the documents says of each row.

`judge` is written from docs/recipe.md and DESIGN's table of bad input and shares no code with the pipeline.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

COLUMNS = ("YoutubeID", "Start_timestamp", "End_timestamp", "Caption", "n")
Row = dict[str, Any]

# fmt: off
GOOD_IDS = ("abc", "Abc", "ABC", "-dash", "a.b", "a..b", "%2e%2e", "ü漢字", "id'q", "x" * 200, "é" * 100, " abc ")
BAD_IDS = (None, "", "   ", ".", "..", ".hidden", "../x", "a/b", "/etc", "a\\b", "a\0b", "a b", "a\tb", "a\nb", "\x7f")
LONG_IDS = ("x" * 201, "x" * 500, "é" * 101)
BAD_TIMES = (
    *(None, "", " ", "abc", "-1", "-00:00:01", "nan", "NaN", "inf", "Infinity", "1e9", "9" * 64, "00:60:00"),
    *("1:2:3:4", "::", "1:", "0x10", "\uff11", "1 2", "00:00:01\n", "12:34:56 PM", "\t1", "1,5", "00:00:01.5.5"),
    *("00:00:1.", "NULL", "\0", "1\u200b", "1/2", "00:00:60"),
)
BAD_CAPTIONS = (None, "", " ", "\t\n", "\u200b\ufeff", "\x00\x07", "\u200d\u200c", " \u00a0\u3000", "\u202e", "\ufe0f")
GOOD_CAPTIONS = (
    *("a dog runs", "  a  dog ", "a\tb\nc\r\nd", "<b>x</b> &amp; <|im_end|>[/INST]", 'a "quoted", red', "日本 語"),
    *("👩\u200d👩\u200d👧 🎉", "كلب يركض", "a\u0000b", "cafe\u0301", "zero\u200bwidth", "w " * 50_000),
    *("-", "0", "null", "{}", "\ufeffx", "a\u2028b", "soft\u00adhyphen", "\u202eabc\u202c", "\\", "\\N", "%s {0}"),
)
# fmt: on
HIDDEN = re.compile("[\u200b\u2060\ufeff\u00ad\u200e\u200f\u202a-\u202e\u2066-\u2069]")
BAD_LINES = {  # lines that are no rows, as bytes, by format
    "jsonl": (b"not json", b'{"YoutubeID": "torn", "Sta', b"[1, 2]", b'"text"', b"5", b"null", b'{"YoutubeID":"\xe9"}',
              b'{"YoutubeID": "s", "Caption": "\\ud800"}', b"{}}", b'{"a": 1'),
    "csv": (b"short", b"a,0,1", b"a,0,1,x,5,too,many", b"a,0,1,caf\xe9,5", b'a,0,1,"x" y,5'),
    "parquet": (),
}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """A row's reason, or its clip."""

    reason: str | None
    clip: tuple[str, int, int] = ("", 0, 0)  # source, start and end in milliseconds
    text: str = ""


@dataclass(frozen=True)
class Table:
    """Rows and lines that are none, as a file of one kind."""

    kind: str
    rows: tuple[Row, ...]
    bad_lines: tuple[bytes, ...] = ()
    layout: str = "\n"  # line ends
    mark: bool = False  # a byte order mark in front
    rows_a_file: int = field(default=10**6)

    def only(self, rows: tuple[Row, ...]) -> Table:
        return Table(self.kind, rows, (), self.layout, self.mark, self.rows_a_file)


def judge(row: Row, kind: str) -> Verdict:
    """What the documents say of one row."""
    source, start, end, caption = (_as_text(row[name], kind) for name in COLUMNS[:4])
    text = clean(caption)
    if source is None and start is None and end is None and caption is None:
        return Verdict("unreadable_row")
    source = (source or "").strip(" ")
    if not source:
        return Verdict("missing_source_id")
    is_unsafe = any(c in " /\\" or unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in source)
    if source[0] == "." or len(source.encode()) > 200 or is_unsafe:
        return Verdict("unsafe_source_id")
    start_ms, end_ms = milliseconds(start), milliseconds(end)
    if start_ms is None or end_ms is None:
        return Verdict("unreadable_timestamp")
    if end_ms <= start_ms:
        return Verdict("end_not_after_start")
    if not any(unicodedata.category(c)[0] not in "CZM" for c in text):
        return Verdict("missing_caption")
    return Verdict(None, (source, start_ms, end_ms), text)


def _as_text(value: Any, kind: str) -> str | None:
    if value is None or (kind == "csv" and value == ""):
        return None
    return value if isinstance(value, str) else json.dumps(value)


def clean(caption: str | None) -> str:
    text = HIDDEN.sub("", unicodedata.normalize("NFC", caption or ""))
    return re.sub(" +", " ", "".join(_spaced(c) for c in text)).strip(" ")


def _spaced(character: str) -> str:
    return " " if unicodedata.category(character) in ("Cc", "Zs", "Zl", "Zp") else character


def milliseconds(text: str | None) -> int | None:
    """HH:MM:SS(.mmm), MM:SS(.mmm) or seconds."""
    text = (text or "").strip(" ")
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]*)?|\.[0-9]+", text):
        return _rounded(Decimal(text))
    found = re.fullmatch(r"(?:([0-9]{1,6}):)?([0-9]{1,6}):([0-5]?[0-9](?:[.,][0-9]+)?)", text)
    if found is None or (found[1] is not None and not re.fullmatch("[0-5]?[0-9]", found[2])):
        return None
    seconds = Decimal(found[3].replace(",", "."))
    return _rounded(int(found[1] or 0) * 3600 + int(found[2]) * 60 + seconds)


def _rounded(seconds: Decimal) -> int:
    return int((seconds * 1000).quantize(Decimal(1), ROUND_HALF_UP))


# --- strategies ------------------------------------------------------------------------------------------------------


def written(ms: int, form: str) -> Any:
    """A time in one of the forms that are read."""
    seconds = ms / 1000
    minutes, rest = divmod(seconds, 60)
    return {
        "hms": f"{int(minutes // 60):02d}:{int(minutes % 60):02d}:{rest:06.3f}",
        "comma": f"{int(minutes // 60):02d}:{int(minutes % 60):02d}:{rest:06.3f}".replace(".", ","),
        "ms": f"{int(minutes)}:{rest:06.3f}",
        "text": f"{seconds:.3f}",
        "spaces": f"  {seconds:.3f} ",
        "number": seconds,
        "whole": int(seconds),
    }[form]


FORMS = st.sampled_from(["hms", "comma", "ms", "text", "spaces", "number", "whole"])


@st.composite
def row_of(draw: Any) -> Row:
    """A row that is good, or damaged in one or several places."""
    start_ms = draw(st.integers(0, 40)) * 500
    row: Row = {
        "YoutubeID": draw(st.sampled_from(GOOD_IDS)),
        "Start_timestamp": written(start_ms, draw(FORMS)),
        "End_timestamp": written(start_ms + draw(st.sampled_from([1000, 1500, 2500])), draw(FORMS)),
        "Caption": draw(st.sampled_from(GOOD_CAPTIONS)),
    }
    for damage in draw(st.lists(st.sampled_from(DAMAGE), max_size=2)):
        name, values = damage
        row[name] = draw(values)
    return row


DAMAGE = (
    ("YoutubeID", st.sampled_from(BAD_IDS + LONG_IDS)),
    ("Start_timestamp", st.sampled_from(BAD_TIMES)),
    ("End_timestamp", st.sampled_from(BAD_TIMES)),
    ("End_timestamp", st.sampled_from(["0", "00:00:00.000", 0, "0.0004", "999999:59:59", "999999999"])),
    ("Start_timestamp", st.text(st.characters(codec="utf-8", exclude_characters="/\\"), max_size=8)),
    ("Caption", st.sampled_from(BAD_CAPTIONS)),
    ("Caption", st.text(st.characters(codec="utf-8", max_codepoint=0x2FFF, exclude_categories=["Cn", "Cs"]))),
    ("YoutubeID", st.text(st.characters(codec="utf-8", exclude_categories=["Cn", "Cs"]), max_size=12)),
)


@st.composite
def tables(draw: Any) -> Table:
    """A file of some kind with up to 60 rows, with repeated ones and with lines that are none."""
    kind = draw(st.sampled_from(["jsonl", "csv", "parquet"]))
    rows = draw(st.lists(row_of(), min_size=1, max_size=40))
    for again in draw(st.lists(st.integers(0, len(rows) - 1), max_size=5)):
        other = draw(st.sampled_from([rows[again]["Caption"], "other words"]))
        rows.append({**rows[again], "Caption": other})
    numbered = tuple({**row, "n": f"n{number}"} for number, row in enumerate(rows))
    bad = draw(st.lists(st.sampled_from(BAD_LINES[kind]), max_size=6)) if BAD_LINES[kind] else []
    layout = "\r\n" if kind == "csv" else draw(st.sampled_from(["\n", "\r\n"]))
    return Table(kind, numbered, tuple(bad), layout, draw(st.booleans()), draw(st.sampled_from([7, 10**6])))


# --- files -----------------------------------------------------------------------------------------------------------


def write(folder: Path, table: Table) -> None:
    """The table as `clips-*.{kind}` in a folder; lines that are no rows go between the rows of the first file."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [table.rows[place : place + table.rows_a_file] for place in range(0, len(table.rows), table.rows_a_file)]
    for number, part in enumerate(parts or [()]):
        path = folder / f"clips-{number:03d}.{table.kind}"
        if table.kind == "parquet":
            columns = {name: [_parquet_text(row[name]) for row in part] for name in COLUMNS}
            pq.write_table(pa.table(columns, pa.schema([(name, pa.string()) for name in COLUMNS])), path)
            continue
        lines = [_line(row, table.kind).encode() for row in part]
        for place, line in enumerate(table.bad_lines if number == 0 else ()):
            lines.insert(1 + place * 3, line)
        head = [",".join(COLUMNS).encode()] if table.kind == "csv" else []
        end = table.layout.encode()
        path.write_bytes((b"\xef\xbb\xbf" if table.mark else b"") + b"".join(line + end for line in [*head, *lines]))


def _parquet_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _line(row: Row, kind: str) -> str:
    if kind == "jsonl":
        return json.dumps(row, ensure_ascii=len(row["n"]) % 2 == 0)
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow([row[name] for name in COLUMNS])
    return out.getvalue().removesuffix("\r\n")
