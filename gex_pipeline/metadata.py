"""Metadata files in, the view ``input_rows`` out: all rows of all files, the columns the recipe names as text.

Parquet, CSV and JSON Lines, one file or many, compressed or not, with differing columns. Types of other
columns are found over all files, so that a comparison in the recipe means the same in each of them. CSV
lines that are no rows stand in DuckDB's ``reject_errors``, those of JSON are rows of
nothing, told of in ``bad_lines``. A broken file is an error that names it. Judges no value.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from gex_pipeline import metadata_text, storage
from gex_pipeline.errors import GexError, RecipeError
from gex_pipeline.tables import Database, DatabaseError, files_to_read, identifier, literal

_COMPRESSED = re.compile(r"\.(gz|zst)$")
_KINDS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
}
_MAX_HEADER_LETTERS = 1 << 20  # a compressed file of nothing holds a line that fills the memory
_MAX_COLUMNS = 5000  # DuckDB's time grows with their square, and thirty thousand take more than its memory
_WRITTEN_TYPES = ("DATE", "TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "UUID")  # strings to the file's author


@dataclass(frozen=True)
class MetadataFiles:
    """Metadata files, and the columns that are read as text whatever their type."""

    uris: tuple[str, ...]
    as_text: frozenset[str]

    def by_kind(self, database: Database) -> dict[str, list[Path]]:
        """The files as local paths, by format.

        Raises:
            RecipeError: a file's ending says no format that is read.
        """
        kinds: dict[str, list[Path]] = {}
        for uri, path in zip(self.uris, database.local_files(self.uris), strict=True):
            kinds.setdefault(_kind(uri), []).append(path)
        return kinds


def read_metadata(database: Database, files: MetadataFiles) -> tuple[int, int]:
    """Make the view ``input_rows`` and the table ``bad_lines``; returns rows, and lines of CSV that are none.

    Raises:
        RecipeError: a file's ending says no format that is read; GexError: a file cannot be read.
    """
    kinds = files.by_kind(database)
    selects: dict[str, list[str]] = {}
    try:
        for kind, paths in kinds.items():
            selects[kind] = _readers(database, kind, paths, files.as_text)
            everything = [select for some in selects.values() for select in some]
            database.execute(f"CREATE OR REPLACE TEMP VIEW input_rows AS {_union(everything)}")
        num_rows = database.count("input_rows")
        _find_bad_lines(database, kinds, selects)
    except (DatabaseError, OSError, csv.Error) as error:
        raise broken_file(database, files) or GexError(f"cannot read the metadata: {first_line(error)}") from error
    num_bad_lines = 0
    if kinds.keys() & {"csv", "tsv"}:
        num_bad_lines = int(database.value("SELECT count(DISTINCT (scan_id, file_id, line)) FROM reject_errors"))
    return num_rows, num_bad_lines


def broken_file(database: Database, files: MetadataFiles) -> GexError | None:
    """After a failure: the first file that cannot be read by itself either, as an error that names it."""
    for kind, paths in files.by_kind(database).items():
        for path in paths:
            try:
                for select in _readers(database, kind, [path], files.as_text):
                    database.value(f"SELECT bit_xor(hash(r)) FROM ({select}) AS r")
            except (DatabaseError, OSError, csv.Error) as error:
                return GexError(f"cannot read {path.name} as {kind}: {first_line(error)}")
    return None


def _find_bad_lines(database: Database, kinds: Mapping[str, list[Path]], selects: Mapping[str, Sequence[str]]) -> None:
    """Make the table ``bad_lines``: where lines of JSON stand that are no rows, and how they begin.

    Only where all rows of nothing are of JSON Lines: one of another format looks the same.
    """
    bad: list[metadata_text.BadLine] = []
    num_empty = _num_empty(database, "input_rows") if "json" in kinds else 0
    if num_empty:
        database.execute(f"CREATE OR REPLACE TEMP VIEW json_rows AS {_union(selects['json'])}")
        are_json = kinds.keys() == {"json"} or _num_empty(database, "json_rows") == num_empty
        bad = metadata_text.bad_json_lines(kinds["json"]) if are_json else []
        if len(bad) != min(num_empty, metadata_text.MAX_DESCRIBED):
            bad = []  # DuckDB takes some lines for JSON that are not quite: better nothing than the wrong lines
    database.execute("CREATE OR REPLACE TEMP TABLE bad_lines (number BIGINT, detail VARCHAR, content VARCHAR)")
    for number, line in enumerate(bad, 1):
        values = {"number": number, "detail": line.detail, "content": line.content}
        database.execute("INSERT INTO bad_lines VALUES ($number, $detail, $content)", values)


def _num_empty(database: Database, view: str) -> int:
    empty = " AND ".join(f"{identifier(name)} IS NULL" for name in database.columns(view))
    return int(database.value(f"SELECT count(*) FROM {view} WHERE {empty}"))


def first_line(error: Exception) -> str:
    """The beginning of an error's message, for a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:400]


def _union(selects: Sequence[str]) -> str:
    return " UNION ALL BY NAME ".join(selects)


def _kind(uri: str) -> str:
    suffix = Path(_COMPRESSED.sub("", storage.name_of(uri))).suffix.lower()
    if suffix not in _KINDS:
        raise RecipeError(f"source.clips: {uri!r} is none of {', '.join(_KINDS)} (with or without .gz, .zst)")
    return _KINDS[suffix]


def _readers(database: Database, kind: str, paths: list[Path], as_text: Set[str]) -> list[str]:
    """SELECTs over files of one kind."""
    if kind == "parquet":
        return [_parquet_reader(database, paths, as_text)]
    if kind == "json":
        return [_json_reader(database, paths, as_text)]
    return [_csv_reader(database, kind, paths, as_text)]


def _parquet_reader(database: Database, paths: list[Path], as_text: Set[str]) -> str:
    rows = f"SELECT * FROM read_parquet({files_to_read(paths)}, union_by_name = true)"
    found = database.query(f"DESCRIBE {rows}")
    # Some writers do not say that their bytes are text; as they are, DuckDB would spell out what is no ASCII.
    changed = ", ".join(
        f"TRY(decode({identifier(row['column_name'])})) AS {identifier(row['column_name'])}"
        for row in found
        if row["column_type"] == "BLOB" and row["column_name"] in as_text
    )
    return rows.replace("*", f"* REPLACE ({changed})", 1) if changed else rows


def _json_reader(database: Database, paths: list[Path], as_text: Set[str]) -> str:
    for path in paths:
        metadata_text.check_json_lines(path)
    files = files_to_read(paths)
    options = "format = 'newline_delimited', ignore_errors = true"
    # More than 200 columns of one type would be a single one, a map.
    guessed = f"read_json({files}, {options}, union_by_name = true, sample_size = -1, map_inference_threshold = -1)"
    found = database.query(f"DESCRIBE SELECT * FROM {guessed}")
    types = {row["column_name"]: row["column_type"] for row in found}
    if types == {"json": "JSON"}:  # a line that is no object keeps DuckDB from finding columns
        structure = database.value(
            f"SELECT json_group_structure(json) FROM read_ndjson_objects({files}, ignore_errors = true) "
            "WHERE json_type(json) = 'OBJECT'"
        )
        fields = json.loads(structure) if structure else dict.fromkeys(as_text, "VARCHAR")
        types = {name: kind if isinstance(kind, str) else "JSON" for name, kind in fields.items()}
    if len(types) > _MAX_COLUMNS:
        raise GexError(f"cannot read {paths[0].name} as json: {len(types)} columns; at most {_MAX_COLUMNS} are read")
    columns = ", ".join(
        f"{literal(name)}: {literal('VARCHAR' if name in as_text or kind in _WRITTEN_TYPES else kind)}"
        for name, kind in types.items()
    )
    return f"SELECT * FROM read_json({files}, {options}, columns = {{{columns}}})"


def _csv_reader(database: Database, kind: str, paths: list[Path], as_text: Set[str]) -> str:
    """Read CSV into a table, as text and by each file's own header; what fits a number in all files becomes one."""
    table = f"{kind}_rows"
    try:
        _read_csv(database, table, paths, as_text)
    except DatabaseError:
        # One of DuckDB's reasons is that a file ends its lines in two ways; then it is read as if it did in one.
        mended = [metadata_text.with_one_line_end(path, database.scratch) for path in paths]
        if mended == paths:
            raise
        database.drop("reject_errors", "reject_scans")  # of the scan that failed
        _read_csv(database, table, mended, as_text)
    others = [name for name in database.columns(table) if name not in as_text]
    typed = _number_types(database, table, others)
    changed = ", ".join(f"{identifier(name)}::{kind} AS {identifier(name)}" for name, kind in typed.items())
    return f"SELECT * REPLACE ({changed}) FROM {table}" if changed else f"SELECT * FROM {table}"


def _read_csv(database: Database, table: str, paths: list[Path], as_text: Set[str]) -> None:
    delimiter = "\t" if table == "tsv_rows" else ","
    by_header: dict[tuple[str, ...], list[Path]] = {}
    for path in paths:
        by_header.setdefault(_header(path, delimiter), []).append(path)
    _check_headers(by_header, as_text)
    selects = []
    for header, files in by_header.items():
        columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in header)
        # Nothing is guessed: a guess would skip broken lines at the beginning without a word.
        selects.append(
            f"SELECT * FROM read_csv({files_to_read(files)}, auto_detect = false, header = true, "
            f"delim = '{delimiter}', quote = '\"', escape = '\"', columns = {{{columns}}}, "
            "store_rejects = true, rejects_limit = 0)"
        )
    # Read once into a table: the lines that could not be read are known only after the scan.
    database.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {_union(selects)}")


def _check_headers(by_header: Mapping[tuple[str, ...], list[Path]], as_text: Set[str]) -> None:
    """A file of many whose header is no header would lose its first row without a word."""
    wanted = {name.lower() for name in as_text}
    strange = [header for header in by_header if wanted.isdisjoint(name.lower() for name in header)]
    if 0 < len(strange) < len(by_header):
        name, found = by_header[strange[0]][0].name, ", ".join(strange[0])[:200]
        raise GexError(
            f"cannot read {name} as CSV: its first line names none of the columns {', '.join(sorted(as_text))}, "
            f"but: {found}. Is its header missing?"
        )


def _header(path: Path, delimiter: str) -> tuple[str, ...]:
    metadata_text.check_encoding(path)
    with pa.input_stream(str(path), compression="detect") as stream:
        lines = io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8-sig", errors="replace", newline="")
        short = iter(lambda: _short_line(lines), "")
        names = tuple(next(csv.reader(short, delimiter=delimiter), ()))
    if not names:
        raise GexError(f"cannot read {path.name} as CSV: it has no header line")
    if len(names) > _MAX_COLUMNS:
        raise GexError(f"cannot read {path.name} as CSV: {len(names)} columns; at most {_MAX_COLUMNS} are read")
    num_called = Counter(name.lower() for name in names)
    for name in names:
        if not name or num_called[name.lower()] > 1:
            raise GexError(f"cannot read {path.name} as CSV: its header has {name!r} twice, or a column without a name")
    return names


def _short_line(lines: io.TextIOWrapper) -> str:
    line = lines.readline(_MAX_HEADER_LETTERS + 1)
    if len(line) > _MAX_HEADER_LETTERS:
        raise csv.Error(f"a line of its header is longer than {_MAX_HEADER_LETTERS} letters")
    return line


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
