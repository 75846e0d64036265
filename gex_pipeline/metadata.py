"""Metadata files in, the view ``input_rows`` out: all rows of all files, the columns the recipe names as text too.

Parquet, CSV and JSON Lines, one file or many, compressed or not, with differing columns. A column has one type in all
files (see `metadata_types`), so that a comparison in the recipe means the same in each of them. CSV
lines that are no rows stand in DuckDB's ``reject_errors``, those of JSON are rows of
nothing, told of in ``bad_lines``. A broken file is an error that names it. Judges no value.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gex_pipeline import metadata_text, storage
from gex_pipeline.errors import GexError, RecipeError
from gex_pipeline.metadata_types import (
    EXACT_BELOW,
    NO_VALUES,
    TEXT_OF,
    WHOLE,
    Named,
    Part,
    is_nested,
    read_parquet,
    types_of,
    united,
)
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
_WRITTEN_TYPES = ("DATE", "TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "UUID")  # strings to the file's author
_NO_DIGITS = "^ *[+-]?0[0-9]|_"  # leading zeros are part of a text, and underscores, which DuckDB leaves out
_MANY_DIGITS = "^ *[+-]?[0-9]{16,} *$"  # of a whole number; a DOUBLE may not hold them all


@dataclass(frozen=True)
class MetadataFiles:
    """Metadata files, and the columns of them that the recipe names."""

    uris: tuple[str, ...]
    named: Named

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
        RecipeError: a file's ending says no format that is read, or a column that the recipe names holds lists or
            objects; GexError: a file cannot be read.
    """
    kinds = files.by_kind(database)
    try:
        parts = {kind: _parts(database, kind, paths, files.named) for kind, paths in kinds.items()}
        everything = [part for some in parts.values() for part in some]
        database.execute(f"CREATE OR REPLACE TEMP VIEW input_rows AS {united(database, everything, files.named)}")
        num_rows = database.count("input_rows")
        _find_bad_lines(database, kinds, parts)
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
                for part in _parts(database, kind, [path], files.named):
                    database.value(f"SELECT bit_xor(hash(r)) FROM (SELECT * FROM {part.rows}) AS r")
            except (DatabaseError, OSError, csv.Error) as error:
                return GexError(f"cannot read {path.name} as {kind}: {first_line(error)}")
    return None


def first_file_with(database: Database, files: MetadataFiles, column: str, text: str) -> str | None:
    """The name of the first file with this text in a column that the recipe names; ``input_rows`` is lost."""
    condition = f"trim({identifier(column)}::VARCHAR) = $text"
    for uri in files.uris:
        ((kind, (path,)),) = MetadataFiles((uri,), files.named).by_kind(database).items()
        parts = _parts(database, kind, [path], files.named)
        if column.lower() not in {name.lower() for part in parts for name in part.types}:
            continue
        rows = united(database, parts, files.named)
        if database.query(f"SELECT 1 FROM ({rows}) WHERE {condition} LIMIT 1", {"text": text}):
            return storage.name_of(uri)
    return None


def _find_bad_lines(database: Database, kinds: Mapping[str, list[Path]], parts: Mapping[str, Sequence[Part]]) -> None:
    """Make the table ``bad_lines``: where lines of JSON stand that are no rows, and how they begin.

    Only where all rows of nothing are of JSON Lines: one of another format looks the same.
    """
    bad: list[metadata_text.BadLine] = []
    num_empty = _num_empty(database, "input_rows") if "json" in kinds else 0
    if num_empty:
        database.execute(f"CREATE OR REPLACE TEMP VIEW json_rows AS SELECT * FROM {parts['json'][0].rows}")
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


def _kind(uri: str) -> str:
    suffix = Path(_COMPRESSED.sub("", storage.name_of(uri))).suffix.lower()
    if suffix not in _KINDS:
        raise RecipeError(f"source.clips: {uri!r} is none of {', '.join(_KINDS)} (with or without .gz, .zst)")
    return _KINDS[suffix]


def _parts(database: Database, kind: str, paths: list[Path], named: Named) -> list[Part]:
    """The rows of files of one kind, apart where their columns have other types."""
    if kind == "parquet":
        parts = _parquet_parts(database, paths)
    elif kind == "json":
        parts = [_json_part(database, paths, named)]
    else:
        parts = [_csv_part(database, kind, paths, named)]
    for part in parts:
        for name, found in part.types.items():
            if is_nested(found) and named.is_text(name):
                where = f"{(part.paths or paths)[0].name}: " if kind == "parquet" else ""
                raise RecipeError(
                    f"{where}the metadata's column {name!r} holds lists or objects ({found[:200]}); one text or number "
                    "a row is expected. Name another column in source.columns or source.media, or add one that holds it"
                )
    return parts


def _parquet_parts(database: Database, paths: list[Path]) -> list[Part]:
    """One part for every schema; all footers are read at once."""
    read, _, _ = files_to_read(paths).rpartition(", ")
    schema = "name, type, type_length, num_children, converted_type, scale, precision, logical_type"
    found = database.query(
        f"SELECT file_name, sum(hash({schema})) AS digest FROM parquet_schema({read}) GROUP BY file_name"
    )
    digests = {row["file_name"]: row["digest"] for row in found}
    alike: dict[int, list[Path]] = {}
    for path in paths:
        alike.setdefault(digests[str(path)], []).append(path)
    return [
        Part(read_parquet(some), types_of(database, read_parquet(some[:1])), paths=tuple(some))
        for some in alike.values()
    ]


def _json_part(database: Database, paths: list[Path], named: Named) -> Part:
    for path in paths:
        metadata_text.check_json_lines(path)
    read = files_to_read(paths)
    options = "format = 'newline_delimited', ignore_errors = true"
    # More than 200 columns of one type would be a single one, a map.
    guessed = f"read_json({read}, {options}, union_by_name = true, sample_size = -1, map_inference_threshold = -1)"
    types = types_of(database, guessed)
    if types == {"json": "JSON"} or _is_any_renamed(types):
        # A line that is no object keeps DuckDB from finding columns, and keys that differ in case get other names.
        # Of alike objects one is enough: of a million, the aggregate would take all memory.
        structure = database.value(
            "SELECT json_group_structure(json) FROM (SELECT any_value(json) AS json "
            f"FROM read_ndjson_objects({read}, ignore_errors = true) WHERE json_type(json) = 'OBJECT' "
            "GROUP BY json_structure(json))"
        )
        kinds = json.loads(structure) if structure else dict.fromkeys(named.texts, "VARCHAR")
        nested = {key: "JSON[]" if named.is_text(key) else "JSON" for key in kinds}
        types = {key: kind if isinstance(kind, str) else nested[key] for key, kind in kinds.items()}
    metadata_text.check_width(paths[0], "json", len(types))
    columns = metadata_text.json_columns(types)
    mixed = frozenset(name for name, column in columns.items() if column.kind == "JSON" and named.is_text(name))
    taken = {name: _json_type(name, column.kind, named) for name, column in columns.items()}
    raw = taken | dict.fromkeys(mixed, "JSON")
    if list(columns) == list(types):
        read_as = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in raw.items())
        rows = f"read_json({read}, {options}, columns = {{{read_as}}})"
    else:
        values = ", ".join(f"{columns[name].value(kind)} AS {identifier(name)}" for name, kind in raw.items())
        keys = ", ".join(literal(metadata_text.pointer(key)) for key in types)
        lines = f"read_json({read}, {options}, records = false, columns = {{json: 'JSON'}})"
        objects = f"SELECT CASE WHEN json_type(json) = 'OBJECT' THEN json END AS object FROM {lines}"
        rows = f"(SELECT {values} FROM (SELECT json_extract(object, [{keys}]) AS found FROM ({objects})))"
    return Part(_with_texts(rows, mixed), taken, mixed)


def _with_texts(rows: str, mixed: Collection[str]) -> str:
    """JSON rows with these columns as text, and beside them that of single values: a list or an object has none."""
    changed, single = [], []
    for name in sorted(mixed):
        column, text = identifier(name), metadata_text.json_text(identifier(name))
        changed.append(f"{text} AS {column}")
        is_one = f"json_type({column}) NOT IN ('ARRAY', 'OBJECT') AND {text} NOT IN {NO_VALUES}"
        single.append(f"CASE WHEN {is_one} THEN {text} END AS {identifier(TEXT_OF + name)}")
    return f"(SELECT * REPLACE ({', '.join(changed)}), {', '.join(single)} FROM {rows})" if mixed else rows


def _is_any_renamed(names: Collection[str]) -> bool:
    """Whether one may be another with a number behind it, as DuckDB calls a key that is there in two cases."""
    spelled = {name.lower(): name for name in reversed(list(names))}
    bases = (name.rpartition("_")[0] for name in names if name.rpartition("_")[2].isdigit())
    return any(spelled.get(base.lower(), base) != base for base in bases)


def _json_type(name: str, kind: str, named: Named) -> str:
    """What the values of a key are read as, where DuckDB takes them for `kind`."""
    if is_nested(kind):
        return kind
    is_changed = named.is_id(name) and kind not in WHOLE
    return "VARCHAR" if is_changed or named.is_text(name) or kind in _WRITTEN_TYPES else kind


def _csv_part(database: Database, kind: str, paths: list[Path], named: Named) -> Part:
    """Read CSV into a table, as text and by each file's own header; what fits a number in all files becomes one."""
    table = f"{kind}_rows"
    try:
        _read_csv(database, table, paths, named)
    except DatabaseError:
        # One of DuckDB's reasons is that a file ends its lines in two ways; then it is read as if it did in one.
        mended = [metadata_text.with_one_line_end(path, database.scratch) for path in paths]
        if mended == paths:
            raise
        database.drop("reject_errors", "reject_scans")  # of the scan that failed
        _read_csv(database, table, mended, named)
    names = database.columns(table)
    typed = _number_types(database, table, [name for name in names if not named.is_text(name)], named)
    changed = ", ".join(f"{identifier(name)}::{kind} AS {identifier(name)}" for name, kind in typed.items())
    rows = f"(SELECT * REPLACE ({changed}) FROM {table})" if changed else table
    return Part(rows, {name: typed.get(name, "VARCHAR") for name in names})


def _read_csv(database: Database, table: str, paths: list[Path], named: Named) -> None:
    delimiter = "\t" if table == "tsv_rows" else ","
    by_header: dict[tuple[str, ...], list[Path]] = {}
    for path in paths:
        by_header.setdefault(metadata_text.csv_header(path, delimiter), []).append(path)
    _check_headers(by_header, named.texts)
    selects = []
    for header, some in by_header.items():
        columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in header)
        # Nothing is guessed: a guess would skip broken lines at the beginning without a word.
        selects.append(
            f"SELECT * FROM read_csv({files_to_read(some)}, auto_detect = false, header = true, "
            f"delim = '{delimiter}', quote = '\"', escape = '\"', columns = {{{columns}}}, "
            "store_rejects = true, rejects_limit = 0)"
        )
    # Read once into a table: the lines that could not be read are known only after the scan.
    database.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {' UNION ALL BY NAME '.join(selects)}")


def _check_headers(by_header: Mapping[tuple[str, ...], list[Path]], as_text: Collection[str]) -> None:
    """A file of many whose header is no header would lose its first row without a word."""
    wanted = {name.lower() for name in as_text}
    strange = [header for header in by_header if wanted.isdisjoint(name.lower() for name in header)]
    if 0 < len(strange) < len(by_header):
        name, found = by_header[strange[0]][0].name, ", ".join(strange[0])[:200]
        raise GexError(
            f"cannot read {name} as CSV: its first line names none of the columns {', '.join(sorted(as_text))}, "
            f"but: {found}. Is its header missing?"
        )


def _number_types(database: Database, table: str, names: list[str], named: Named) -> dict[str, str]:
    """Columns whose every value is a number, and which; what belongs together is told by whole ones only."""
    if not names:
        return {}
    checks = ", ".join(
        f"bool_and({column} IS NULL OR coalesce(try_cast({column} AS BIGINT)::VARCHAR = {column}, false)) "
        f"AND count({column}) > 0 AS b{index}, bool_and({column} IS NULL OR {_is_double(column)}) "
        f"AND count({column}) > 0 AS d{index}"
        for index, column in enumerate(map(identifier, names))
    )
    (found,) = database.query(f"SELECT {checks} FROM {table}")
    kinds = {}
    for index, name in enumerate(names):
        if found[f"b{index}"]:
            kinds[name] = "BIGINT"
        elif found[f"d{index}"] and not named.is_id(name):
            kinds[name] = "DOUBLE"
    return kinds


def _is_double(column: str) -> str:
    """SQL for whether a text is a number that a DOUBLE holds, a whole one digit for digit."""
    is_held = f"coalesce(abs(try_cast({column} AS HUGEINT)) < {EXACT_BELOW['DOUBLE']}, false)"
    return (
        f"CASE WHEN try_cast({column} AS DOUBLE) IS NULL OR regexp_matches({column}, '{_NO_DIGITS}') THEN false "
        f"WHEN regexp_matches({column}, '{_MANY_DIGITS}') THEN {is_held} ELSE true END"
    )
