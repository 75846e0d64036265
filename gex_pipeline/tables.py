"""Runs ``sql/*.sql`` by name in DuckDB; the only importer of duckdb.

One statement a file, values bound by name. Identifiers that come from a recipe (column names) are
quoted here and nowhere else. DuckDB reads local files; tables on an object store are copied first. A table or receipt
that cannot be read is looked for only after DuckDB failed, so that it costs a sound output nothing.
"""

from __future__ import annotations

import copy
import json
import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from gex_pipeline import storage
from gex_pipeline.errors import FileMissingError, GexError, RecipeError

_HERE = Path(__file__).parent
_LEAST_GB = 0.1
_GLOB_SIGN, _LITERAL_SIGN = re.compile(r"[*?\[]"), re.compile(r"\[([*?\[])\]")
_INTERRUPTED = "Query interrupted"  # DuckDB's words for any signal whose handler raised
_OTHER_CLAUSES = ("modifiers", "group_expressions", "group_sets", "having", "qualify", "sample")
_REFUSED_CLASSES = frozenset({"SUBQUERY", "WINDOW", "PARAMETER"})


@cache
def sql_text(name: str) -> str:
    """The statement in ``sql/{name}.sql``."""
    for folder in (_HERE / "_sql", _HERE.parent / "sql"):
        file = folder / f"{name}.sql"
        if file.is_file():
            return file.read_text(encoding="utf-8")
    raise GexError(f"sql/{name}.sql is not part of this installation")


def identifier(name: str) -> str:
    """A column name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string as a quoted SQL literal, for the places where DuckDB takes no parameter."""
    return "'" + text.replace("'", "''") + "'"


def files_to_read(paths: Sequence[Path]) -> str:
    """The first arguments of DuckDB's readers of files: these local files and no others, with their own columns only.

    Left to itself DuckDB takes letters of a name for a pattern, and a folder called ``column=value`` for a column.
    """
    files = ", ".join(literal(_GLOB_SIGN.sub(r"[\g<0>]", str(path))) for path in paths)
    return f"[{files}], hive_partitioning = false"


def _memory_bytes() -> int:
    given = os.environ.get("GEX_DATABASE_GB", "2.5")
    try:
        gigabytes = float(given)
    except ValueError:
        gigabytes = 0.0
    if not _LEAST_GB <= gigabytes < math.inf:
        raise GexError(f"GEX_DATABASE_GB is {given!r}; expected gigabytes of memory, {_LEAST_GB} or more")
    return int(gigabytes * 1e9)


class Database:
    """An in-memory DuckDB with a memory limit that spills to disk. Use as a context manager."""

    def __init__(self, threads: int | None = None) -> None:
        """Up to 2.5 GB, or ``GEX_DATABASE_GB``; `threads` is one a core by default.

        Raises:
            GexError: the variable holds no amount of memory.
        """
        self._stack = ExitStack()
        self.scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="gex-db-")))
        self._connection = duckdb.connect(":memory:")
        self._uris: dict[str, str] = {}  # of the local files, where they came from
        self._viewed: dict[str, str] = {}  # the same of those that views stand on: they are ours
        settings: dict[str, Any] = {
            "memory_limit": f"{_memory_bytes()}B",
            "temp_directory": str(self.scratch / "spill"),
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "TimeZone": "UTC",
        }
        if threads is not None:
            settings["threads"] = threads
        for key, value in settings.items():
            self._connection.execute(f"SET {key} = {literal(value) if isinstance(value, str) else value}")

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        del self._connection  # an error that is shown at the end would keep it beyond DuckDB's own end
        self._stack.close()

    def cursor(self) -> Database:
        """The same database for another thread, to be closed by it; temporary tables and views are not in it."""
        other = copy.copy(self)
        other._connection, other._stack = self._connection.cursor(), ExitStack()
        return other

    def run(self, name: str, **values: Any) -> None:
        """Execute ``sql/{name}.sql`` with bound values."""
        self.execute(sql_text(name), values)

    def rows(self, name: str, **values: Any) -> list[dict[str, Any]]:
        """The result of ``sql/{name}.sql`` as dictionaries."""
        return self.query(sql_text(name), values)

    def execute(self, statement: str, values: Mapping[str, Any] | None = None) -> None:
        """Execute a statement composed here (only quoted identifiers and own paths in it)."""
        with self._explained():
            self._connection.execute(statement, dict(values or {}))

    def query(self, statement: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The result of a statement as dictionaries."""
        with self._explained():
            cursor = self._connection.execute(statement, dict(values or {}))
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def value(self, statement: str) -> Any:
        """The one value a statement returns."""
        with self._explained():
            row = self._connection.execute(statement).fetchone()
        return row[0] if row else None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Around a statement and the reading of its rows: what a person can mend, as one sentence."""
        try:
            yield
        except duckdb.Error as error:
            if _is_out_of_room(error):
                first = str(error).strip().splitlines()[0]
                raise GexError(f"DuckDB could not go on ({first}); it spills to {self.scratch}, see TMPDIR") from error
            if (found := self._lost_file(error)) is not None:
                raise found from error
            raise  # about a statement, or a file that the caller knows more of
        except RuntimeError as error:
            if str(error) == _INTERRUPTED:
                raise KeyboardInterrupt from error
            raise

    def _lost_file(self, error: duckdb.Error) -> GexError | None:
        """After a failure: the first table or receipt under a view that cannot be read by itself either."""
        words = _LITERAL_SIGN.sub(r"\1", str(error))
        named = [path for path in self._viewed if path in words]
        # Of some damage DuckDB says neither the kind nor the file: then every file is read.
        for path in named or (self._viewed if type(error) is duckdb.Error else ()):
            uri = self._viewed[path]
            what = "missing" if not storage.exists(uri) else "damaged" if self._is_damaged(path) else ""
            if what and (sentence := _lost(uri, what)):
                return GexError(sentence)
        return None

    def _is_damaged(self, path: str) -> bool:
        try:
            files = files_to_read([Path(path)])
            self._connection.execute(f"SELECT bit_xor(hash(r)) FROM read_parquet({files}) AS r").fetchall()
        except (duckdb.IOException, duckdb.OutOfMemoryException):
            return False  # this machine's disk, rights or memory
        except duckdb.Error:
            return True
        return False

    def count(self, table: str) -> int:
        """Rows of a table or view."""
        return int(self.value(f"SELECT count(*) FROM {identifier(table)}"))

    def columns(self, table: str) -> list[str]:
        """Column names of a table or view."""
        return [row["column_name"] for row in self.query(f"DESCRIBE {identifier(table)}")]

    def drop(self, *names: str) -> None:
        """Forget these tables or views, where they exist."""
        kinds = self.query(
            "SELECT table_name AS name, 'TABLE' AS kind FROM duckdb_tables() WHERE temporary "
            "UNION ALL SELECT view_name, 'VIEW' FROM duckdb_views() WHERE temporary"
        )
        for row in kinds:
            if row["name"] in names:
                self._connection.execute(f"DROP {row['kind']} {identifier(row['name'])}")

    def local_files(self, uris: Iterable[str]) -> list[Path]:
        """Local paths of these files, copied from the object store where they are not local; kept until close."""
        asked = list(uris)
        files = [storage.local_copy(uri, self.scratch) for uri in asked]
        paths = storage.for_each(lambda file: file.__enter__(), files)
        for file in files:
            self._stack.push(file)
        for path, uri in zip(paths, asked, strict=True):
            self._uris.setdefault(str(path), uri)  # a copy may be asked for again, by its own path
        return paths

    def view_parquet(
        self,
        view: str,
        uris: Sequence[str],
        empty: str | pa.Schema | None = None,
        *,
        numbered: bool = False,
        is_alike: bool = False,
    ) -> None:
        """Make `view` the union of Parquet files; with none of them, of `empty` (its schema, or a SELECT).

        With `numbered`, the column ``snapshot`` is the number in the name of a row's file. `is_alike` says that all
        files have the columns of the first: of 10,000 others DuckDB keeps the footers, 0.8 GB beyond its memory limit.

        Raises:
            GexError: there is no file and no `empty`; or a table or receipt is missing or damaged.
        """
        if not uris and isinstance(empty, pa.Schema):
            uris = [str(self.scratch / f"{view}-none-000000.parquet")]
            pq.write_table(empty.empty_table(), uris[0])
        number = ", regexp_extract(filename, '-([0-9]+)[.]parquet$', 1)::INTEGER AS snapshot" if numbered else ""
        if uris:
            files = files_to_read(self._files_to_view(uris))
            columns = f"* EXCLUDE (filename){number}" if numbered else "*"
            options = f"union_by_name = {not is_alike}, filename = {numbered}"
            source = f"SELECT {columns} FROM read_parquet({files}, {options})"
        elif empty is not None:
            source = f"SELECT * FROM ({empty}) WHERE false"
        else:
            raise GexError(f"no file for the table {view!r}")
        self.execute(f"CREATE OR REPLACE TEMP VIEW {identifier(view)} AS {source}")

    def _files_to_view(self, uris: Sequence[str]) -> list[Path]:
        try:
            paths = self.local_files(uris)
        except FileMissingError as error:
            for uri in uris:
                if (sentence := _lost(uri, "missing")) and not storage.exists(uri):
                    raise GexError(sentence) from error
            raise
        self._viewed |= {str(path): self._uris[str(path)] for path in paths}
        return paths

    def publish_table(self, table: str, uri: str, order_by: str = "") -> None:
        """Write a table or view as Parquet and publish it in one step."""
        local = self.scratch / "publish.parquet"
        order = f" ORDER BY {order_by}" if order_by else ""
        self.execute(
            f"COPY (SELECT * FROM {identifier(table)}{order}) TO {literal(str(local))} "
            "(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE 20480)"
        )
        storage.publish_file(local, uri)
        local.unlink()

    def check_predicate(self, predicate: str) -> None:
        """Refuse a recipe's predicate that is more than one condition over the columns of a row.

        Raises:
            RecipeError: it does not parse as the condition of one SELECT, or it asks for anything besides.
        """
        statement = f"SELECT 1 FROM clips WHERE {predicate}\n"
        answer = json.loads(self.value(f"SELECT json_serialize_sql({literal(statement)})"))
        if answer.get("error") or len(answer.get("statements", ())) != 1:
            raise RecipeError(f"where = {predicate!r} is not one SQL condition: {answer.get('error_message', '')}")
        node = answer["statements"][0]["node"]
        if node["type"] != "SELECT_NODE" or any(node.get(clause) for clause in _OTHER_CLAUSES):
            raise RecipeError(f"where = {predicate!r} is more than one SQL condition")
        if not _REFUSED_CLASSES.isdisjoint(_classes(node["where_clause"])):
            raise RecipeError(
                f"where = {predicate!r} asks for more than the columns of one row: "
                "no subqueries, window functions or parameters"
            )


def _is_out_of_room(error: duckdb.Error) -> bool:
    if isinstance(error, duckdb.IOException):
        return "space" in str(error).lower()
    return isinstance(error, duckdb.OutOfMemoryException)


def _lost(uri: str, what: str) -> str | None:
    """What a person has to know of a file that is missing or damaged; None where it is no table and no receipt."""
    above, _, name = uri.rpartition("/")
    output, _, folder = above.rpartition("/")
    stem, _, number = name.removesuffix(".parquet").rpartition("-")
    if not number.isdigit():
        return None
    if folder == "tables":
        return f"tables/{name} of {output} is {what}; tables are not built again: put it back from a copy"
    if folder == stem:
        return f"{folder}/{name} of {output} is {what} and cannot be read; mend it: gex run {output} --check-bytes"
    return None


def _classes(expression: Any) -> Iterator[str]:
    """The kinds of all parts of a parsed expression."""
    if isinstance(expression, dict):
        yield expression.get("class", "")
        expression = list(expression.values())
    if isinstance(expression, list):
        for part in expression:
            yield from _classes(part)


DatabaseError = duckdb.Error
