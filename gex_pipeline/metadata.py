"""Metadata files in, the view ``input_rows`` out: all rows of all files, the columns the recipe names as text.

Parquet, CSV and JSON Lines, one file or many, compressed or not, with differing columns. Types of other
columns are found over all files, so that a comparison in the recipe means the same in each of them. CSV
lines that are no rows stand in DuckDB's ``reject_errors``. Judges no value.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Set
from pathlib import Path

import pyarrow as pa

from gex_pipeline import storage
from gex_pipeline.errors import GexError, RecipeError
from gex_pipeline.tables import Database, DatabaseError, file_list, identifier, literal

_COMPRESSED = re.compile(r"\.(gz|zst)$")
_KINDS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
}
_WRITTEN_TYPES = ("DATE", "TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "UUID")  # strings to the file's author


def read_metadata(database: Database, uris: list[str], as_text: Set[str]) -> tuple[int, int]:
    """Make the view ``input_rows``; returns its rows and the number of lines that are no rows.

    Raises:
        RecipeError: a file's ending says no format that is read; GexError: a file cannot be read.
    """
    kinds: dict[str, list[Path]] = {}
    for uri, path in zip(uris, database.local_files(uris), strict=True):
        kinds.setdefault(_kind(uri), []).append(path)
    selects = []
    for kind, paths in kinds.items():
        try:
            selects += _readers(database, kind, paths, as_text)
            database.execute(f"CREATE OR REPLACE TEMP VIEW input_rows AS {_union(selects)}")
        except (DatabaseError, OSError, csv.Error) as error:
            names = ", ".join(path.name for path in paths[:3])
            raise GexError(f"cannot read {names} as {kind}: {first_line(error)}") from error
    num_bad_lines = 0
    if kinds.keys() & {"csv", "tsv"}:
        num_bad_lines = int(database.value("SELECT count(DISTINCT (scan_id, file_id, line)) FROM reject_errors"))
    return database.count("input_rows"), num_bad_lines


def first_line(error: Exception) -> str:
    """The beginning of an error's message, for a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:400]


def _union(selects: list[str]) -> str:
    return " UNION ALL BY NAME ".join(selects)


def _kind(uri: str) -> str:
    suffix = Path(_COMPRESSED.sub("", storage.name_of(uri))).suffix.lower()
    if suffix not in _KINDS:
        raise RecipeError(f"source.clips: {uri!r} is none of {', '.join(_KINDS)} (with or without .gz, .zst)")
    return _KINDS[suffix]


def _readers(database: Database, kind: str, paths: list[Path], as_text: Set[str]) -> list[str]:
    """SELECTs over files of one kind."""
    if kind == "parquet":
        return [f"SELECT * FROM read_parquet({file_list(paths)}, union_by_name = true)"]
    if kind == "json":
        return [_json_reader(database, paths, as_text)]
    return [_csv_reader(database, kind, paths, as_text)]


def _json_reader(database: Database, paths: list[Path], as_text: Set[str]) -> str:
    files = file_list(paths)
    options = "format = 'newline_delimited', ignore_errors = true"
    guessed = f"read_json({files}, {options}, union_by_name = true, sample_size = -1)"
    found = database.query(f"DESCRIBE SELECT * FROM {guessed}")
    types = {row["column_name"]: row["column_type"] for row in found}
    if types == {"json": "JSON"}:  # a line that is no object keeps DuckDB from finding columns
        structure = database.value(
            f"SELECT json_group_structure(json) FROM read_ndjson_objects({files}, ignore_errors = true) "
            "WHERE json_type(json) = 'OBJECT'"
        )
        fields = json.loads(structure) if structure else dict.fromkeys(as_text, "VARCHAR")
        types = {name: kind if isinstance(kind, str) else "JSON" for name, kind in fields.items()}
    columns = ", ".join(
        f"{literal(name)}: {literal('VARCHAR' if name in as_text or kind in _WRITTEN_TYPES else kind)}"
        for name, kind in types.items()
    )
    return f"SELECT * FROM read_json({files}, {options}, columns = {{{columns}}})"


def _csv_reader(database: Database, kind: str, paths: list[Path], as_text: Set[str]) -> str:
    """Read CSV into a table, as text and by each file's own header; what fits a number in all files becomes one."""
    delimiter = "\t" if kind == "tsv" else ","
    by_header: dict[tuple[str, ...], list[Path]] = {}
    for path in paths:
        by_header.setdefault(_header(path, delimiter), []).append(path)
    selects = []
    for header, files in by_header.items():
        columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in header)
        # Nothing is guessed: a guess would skip broken lines at the beginning without a word.
        selects.append(
            f"SELECT * FROM read_csv({file_list(files)}, auto_detect = false, header = true, delim = '{delimiter}', "
            f"quote = '\"', escape = '\"', columns = {{{columns}}}, store_rejects = true, rejects_limit = 0)"
        )
    table = f"{kind}_rows"
    # Read once into a table: the lines that could not be read are known only after the scan.
    database.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {_union(selects)}")
    others = [name for name in database.columns(table) if name not in as_text]
    typed = _number_types(database, table, others)
    changed = ", ".join(f"{identifier(name)}::{kind} AS {identifier(name)}" for name, kind in typed.items())
    return f"SELECT * REPLACE ({changed}) FROM {table}" if changed else f"SELECT * FROM {table}"


def _header(path: Path, delimiter: str) -> tuple[str, ...]:
    with pa.input_stream(str(path), compression="detect") as stream:
        lines = io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8-sig", errors="replace", newline="")
        names = tuple(next(csv.reader(lines, delimiter=delimiter), ()))
    if not names:
        raise GexError(f"cannot read {path.name} as CSV: it has no header line")
    lowered = [name.lower() for name in names]
    for name in names:
        if not name or lowered.count(name.lower()) > 1:
            raise GexError(f"cannot read {path.name} as CSV: its header has {name!r} twice, or a column without a name")
    return names


def _number_types(database: Database, table: str, names: list[str]) -> dict[str, str]:
    """Columns whose every value is a number, and which; digits with leading zeros are text."""
    if not names:
        return {}
    checks = ", ".join(
        f"bool_and({column} IS NULL OR coalesce(try_cast({column} AS BIGINT)::VARCHAR = {column}, false)) "
        f"AND count({column}) > 0 AS b{index}, "
        f"bool_and({column} IS NULL OR (try_cast({column} AS DOUBLE) IS NOT NULL "
        f"AND NOT regexp_matches({column}, '^[+-]?0[0-9]'))) AND count({column}) > 0 AS d{index}"
        for index, column in enumerate(map(identifier, names))
    )
    (found,) = database.query(f"SELECT {checks} FROM {table}")
    kinds = {}
    for index, name in enumerate(names):
        if found[f"b{index}"]:
            kinds[name] = "BIGINT"
        elif found[f"d{index}"]:
            kinds[name] = "DOUBLE"
    return kinds
