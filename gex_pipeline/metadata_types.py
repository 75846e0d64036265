"""Rows of metadata whose types differ in, one SELECT out: a type a column, and what the recipe names as text.

What one file says does not depend on another. A column whose types differ gets the type that DuckDB widens them to
where that holds every value as it is, else text. Where the recipe uses its text, a second column (`TEXT_OF`) has each
value as its own file says it. Ids are text, unless all are whole numbers. A value that is no number (NaN) is none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gex_pipeline.tables import Database, DatabaseError, files_to_read, identifier

TEXT_OF = "as text: "  # begins the name of a column that has another one's values as text
WHOLE = frozenset(
    f"{sign}{size}" for sign in ("", "U") for size in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
)
EXACT_BELOW = {"FLOAT": 1 << 24, "DOUBLE": 1 << 53}  # whole numbers from there on may not be those that were meant
NO_VALUES = "('nan', 'NaN')"  # how programs write a number that is not there, where text is read
_NOTHING = '"NULL"'  # the type of a column without values


@dataclass(frozen=True)
class Named:
    """Columns that the recipe names, in any case: whose text is used, and which say what belongs together."""

    texts: frozenset[str]
    ids: frozenset[str] = frozenset()

    def is_text(self, name: str) -> bool:
        """Whether the column's values are used as text."""
        return name.lower() in {one.lower() for one in self.texts}

    def is_id(self, name: str) -> bool:
        """Whether the column says what belongs together."""
        return name.lower() in {one.lower() for one in self.ids}


@dataclass(frozen=True)
class Part:
    """Rows whose columns have the same types: what stands behind FROM, and the types."""

    rows: str
    types: Mapping[str, str]
    mixed: frozenset[str] = frozenset()  # columns with lists or objects in some rows, whose `TEXT_OF` is there
    paths: tuple[Path, ...] = ()  # of Parquet, so that it can be read together with others


@dataclass(frozen=True)
class _Fit:
    """What one column becomes, whether its types are read apart for that, and whether its text is needed besides."""

    wanted: str | None = None  # none: what it is, or the widest of its whole numbers
    is_apart: bool = False
    has_text: bool = False


def types_of(database: Database, rows: str) -> dict[str, str]:
    """The columns of what stands behind FROM, with their types."""
    found = database.query(f"DESCRIBE SELECT * FROM {rows}")
    return {row["column_name"]: row["column_type"] for row in found}


def is_nested(kind: str) -> bool:
    """Whether a value of the type is a list, an object or a map."""
    return kind.endswith("]") or kind.startswith(("STRUCT(", "MAP(", "UNION("))


def read_parquet(paths: Sequence[Path]) -> str:
    """What stands behind FROM for Parquet files; DuckDB widens types that differ."""
    return f"read_parquet({files_to_read(paths)}, union_by_name = true)"


def united(database: Database, parts: Sequence[Part], named: Named) -> str:
    """All parts as one SELECT, in which every column has one type."""
    found: dict[str, dict[str, list[Part]]] = {}
    for part in parts:
        for name, kind in part.types.items():
            found.setdefault(name.lower(), {}).setdefault(kind, []).append(part)
    fits = {name: _fit(database, name, kinds, named) for name, kinds in found.items()}
    fits |= {name.lower(): replace(fits[name.lower()], has_text=True) for part in parts for name in part.mixed}
    apart = {name for name, fit in fits.items() if fit.is_apart}
    return " UNION ALL BY NAME ".join(_select(part, fits, named) for part in _merged(parts, apart))


def _merged(parts: Sequence[Part], apart: Collection[str]) -> list[Part]:
    """The parts in their order, those of Parquet as few as have one type in every column that is read apart."""
    groups: dict[tuple[object, ...], list[Part]] = {}
    for part in parts:
        kinds = sorted((name.lower(), kind) for name, kind in part.types.items() if name.lower() in apart)
        groups.setdefault(tuple(kinds) if part.paths else (part.rows,), []).append(part)
    return [_together(some) for some in groups.values()]


def _together(parts: Sequence[Part]) -> Part:
    if len(parts) == 1:
        return parts[0]
    paths = tuple(path for part in parts for path in part.paths)
    types: dict[str, tuple[str, str]] = {}
    for name, kind in (column for part in parts for column in part.types.items()):
        if types.get(name.lower(), ("", _NOTHING))[1] == _NOTHING:
            types[name.lower()] = (name, kind)
    return Part(read_parquet(paths), dict(types.values()), paths=paths)


def _fit(database: Database, name: str, found: Mapping[str, Sequence[Part]], named: Named) -> _Fit:
    kinds = sorted(found.keys() - {_NOTHING})
    is_one = len(kinds) < 2 or WHOLE.issuperset(kinds)
    is_lossy_id = named.is_id(name) and not (is_one and EXACT_BELOW.keys().isdisjoint(kinds))
    if is_lossy_id or ("BLOB" in kinds and (named.is_id(name) or named.is_text(name))):
        return _Fit("VARCHAR", is_apart=len(kinds) > 1)
    if is_one:
        return _Fit()
    wanted = _common(database, kinds)
    others = [part for kind in kinds if kind != wanted for part in found[kind]]
    if wanted != "VARCHAR" and not all(_holds(database, wanted, name, part) for part in _merged(others, {name})):
        wanted = "VARCHAR"
    has_text = named.is_text(name) and wanted != "VARCHAR"
    is_ours = wanted == "VARCHAR" or (wanted == "DOUBLE" and wanted not in kinds)  # not what DuckDB would widen to
    return _Fit(wanted, is_apart=has_text or is_ours, has_text=has_text)


def _common(database: Database, kinds: Sequence[str]) -> str:
    """The type that DuckDB widens these to; text where one is text, DOUBLE where FLOAT would lose whole numbers."""
    if "VARCHAR" in kinds:
        return "VARCHAR"
    wanted = kinds[0]
    for kind in kinds[1:]:
        wanted = types_of(database, f"(SELECT NULL::{wanted} AS x UNION ALL SELECT NULL::{kind})")["x"]
    return "DOUBLE" if wanted == "FLOAT" else wanted


def _holds(database: Database, wanted: str, name: str, part: Part) -> bool:
    """Whether a type holds every value of a part as it is: there and back again it is the same."""
    column, kind = next((identifier(one), kind) for one, kind in part.types.items() if one.lower() == name)
    back = f"TRY_CAST(TRY_CAST({column} AS {wanted}) AS {kind})"
    try:
        return not database.query(f"SELECT 1 FROM {part.rows} WHERE {back} IS DISTINCT FROM {column} LIMIT 1")
    except DatabaseError:
        return False  # no cast leads there


def _select(part: Part, fits: Mapping[str, _Fit], named: Named) -> str:
    changed, texts = [], []
    for name, kind in part.types.items():
        fit, column, is_id = fits[name.lower()], identifier(name), named.is_id(name)
        is_named = is_id or named.is_text(name)
        value = _without_nan(column, kind, fit.wanted, is_named=is_named)
        text = _text(value, kind, is_id=is_id, is_named=is_named)
        if fit.wanted == "VARCHAR" and kind != "VARCHAR":
            value = text
        elif fit.wanted not in (None, kind):
            value = f"{value}::{fit.wanted}"
        if value != column:
            changed.append(f"{value} AS {column}")
        if fit.has_text and name not in part.mixed:
            texts.append(f"{text} AS {identifier(TEXT_OF + name)}")
    replaced = f"* REPLACE ({', '.join(changed)})" if changed else "*"
    return f"SELECT {', '.join([replaced, *texts])} FROM {part.rows}"


def if_number(column: str) -> str:
    """SQL for a floating number, NULL where it is NaN.

    A comparison with NaN, and of several files ``isnan``, is answered by the largest values that Parquet notes of its
    columns, among which NaN is not.
    """
    return f"CASE WHEN isfinite({column}::DOUBLE) OR isinf({column}::DOUBLE) THEN {column} END"


def _without_nan(column: str, kind: str, wanted: str | None, *, is_named: bool) -> str:
    """SQL for a value, NULL where it is how programs say that there is no number; DuckDB takes NaN for the largest."""
    if kind in EXACT_BELOW or wanted in EXACT_BELOW:
        return if_number(column)
    if kind == "VARCHAR" and is_named:
        return f"CASE WHEN {column} NOT IN {NO_VALUES} THEN {column} END"
    return column


def _text(value: str, kind: str, *, is_id: bool, is_named: bool) -> str:
    """SQL for a value as text; an id that a program made a float, as it does where one is missing, is whole again."""
    if kind in EXACT_BELOW and is_id:
        return (
            f"CASE WHEN NOT isfinite({value}) THEN NULL WHEN {value} <> trunc({value}) THEN {value}::VARCHAR "
            f"WHEN abs({value}) < {EXACT_BELOW[kind]} THEN {value}::BIGINT::VARCHAR "
            f"ELSE format('{{:.16e}}', {value}::DOUBLE) END"
        )
    if kind == "BLOB":
        # Some writers do not say that their bytes are text; as they are, DuckDB would spell out what is no ASCII.
        return f"TRY(decode({value}))" if is_named else f"coalesce(TRY(decode({value})), {value}::VARCHAR)"
    if kind == "JSON":
        return f"({value}->>'$')"
    return f"to_json({value})::VARCHAR" if is_nested(kind) else f"{value}::VARCHAR"
