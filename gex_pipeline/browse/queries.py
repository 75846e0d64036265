"""What a page asks of the index: the parameters of a request in, rows as JSON has them out.

Pages follow each other by place, not by number: a request names the last sample it has, so that the ten-thousandth
page costs what the first one does. Values are bound; expressions come out of this file only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gex_pipeline.browse.index import EXCERPT_LETTERS, Index, media_kind
from gex_pipeline.errors import RecipeError
from gex_pipeline.tables import Database, sql_text

MAX_PAGE = 200
_PAGE = 60
_NUM_BINS = 32
_MAX_TERMS = 32  # each is looked for in every text
_TERM = re.compile(r'"([^"]*)"|(\S+)')
_OPEN_FILTERS = {"granularity": "granularity = $granularity", "source": "source_id = $source"}


class BadRequestError(RecipeError):
    """A parameter of a request says nothing that can be done."""


@dataclass(frozen=True)
class Matching:
    """The samples that fulfil a request's filters, as a common table expression with its values."""

    statement: str
    values: dict[str, Any]

    def ask(self, database: Database, name: str, **values: Any) -> list[dict[str, Any]]:
        """The rows of ``sql/{name}.sql``, which reads ``matching``."""
        return database.query(f"{self.statement}\n{sql_text(name)}", self.values | values)


def matching(index: Index, parameters: Mapping[str, str]) -> Matching:
    """The filters and the order of a request.

    Raises:
        BadRequestError: a filter names what is not there, or its value is no number.
    """
    conditions, values = _conditions(index, parameters)
    sort = parameters.get("sort") or "key"
    place = "rank::DOUBLE" if sort.lstrip("-") == "key" else expression(index, sort.removeprefix("-"))
    if sort.startswith("-"):
        place = f"-({place})"
    where = " AND ".join(f"({condition})" for condition in conditions) or "true"
    statement = f"WITH matching AS (SELECT rowid AS row, rank, ({place})::DOUBLE AS place FROM entries WHERE {where})"
    return Matching(statement, values)


def expression(index: Index, quantity: str) -> str:
    """The SQL of ``words``, ``duration`` or ``score.NAME``.

    Raises:
        BadRequestError: there is no such quantity.
    """
    if quantity == "words":
        return "num_words"
    if quantity == "duration":
        return "duration_s"
    name = quantity.removeprefix("score.")
    if name == quantity or name not in index.scores:
        raise BadRequestError(f"{quantity!r} is neither words nor duration nor score.NAME of {list(index.scores)}")
    return f"scores[{index.scores.index(name) + 1}]"


def _conditions(index: Index, parameters: Mapping[str, str]) -> tuple[list[str], dict[str, Any]]:
    conditions: list[str] = []
    values: dict[str, Any] = {}
    if index.only is not None:
        conditions.append("granularity = $only")
        values["only"] = index.only
    for name, value in parameters.items():
        if name in _OPEN_FILTERS and value:
            conditions.append(_OPEN_FILTERS[name])
            values[name] = value
        elif name == "snapshot" and value:
            conditions.append("snapshot = $snapshot")
            values[name] = whole(name, value)
        elif name == "parent" and value:
            conditions.append("id IN (SELECT child FROM edges WHERE parent = hash($parent))")
            values[name] = value
        elif name.startswith(("min.", "max.")) and value:
            bound = f"bound{len(values)}"
            sign = ">=" if name.startswith("min.") else "<="
            conditions.append(f"{expression(index, name[4:])} {sign} ${bound}")
            values[bound] = _number(name, value)
        elif name == "q":
            _add_terms(value, conditions, values)
    return conditions, values


def _add_terms(text: str, conditions: list[str], values: dict[str, Any]) -> None:
    """Every word, or phrase in quotation marks, stands in the text in any case; one alone may begin the key too."""
    terms = [phrase or word for phrase, word in _TERM.findall(text) if (phrase or word).strip()]
    if len(terms) > _MAX_TERMS:
        raise BadRequestError(f"a search of {len(terms)} words; at most {_MAX_TERMS}, or a phrase in quotation marks")
    for number, term in enumerate(terms):
        condition = f"contains(lowered, lower($term{number}))"
        if len(terms) == 1:
            condition += f" OR starts_with(key, $term{number})"
        conditions.append(condition)
        values[f"term{number}"] = term


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadRequestError(f"{name} = {text!r} is not a number")
    return value


def whole(name: str, text: str) -> int:
    """The whole number that a parameter is.

    Raises:
        BadRequestError: it is none.
    """
    if not re.fullmatch(r"\d{1,16}", text):
        raise BadRequestError(f"{name} = {text!r} is not a whole number")
    return int(text)


def page(index: Index, database: Database, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Samples after `after`, and the `after` of the next page; none where this is the last one."""
    num = page_size(parameters)
    place, rank = _after(parameters.get("after", ""))
    found = matching(index, parameters)
    rows = found.ask(database, "browse_page", num=num + 1, excerpt=EXCERPT_LETTERS, place=place, rank=rank)
    is_more, rows = len(rows) > num, rows[:num]
    after = None
    if is_more:
        after = f"{'' if rows[-1]['place'] is None else repr(rows[-1]['place'])},{rows[-1]['rank']}"
    return {"samples": [listed(index, row) for row in rows], "after": after}


def neighbours(
    index: Index, database: Database, parameters: Mapping[str, str], sample_id: int
) -> dict[str, dict[str, Any] | None]:
    """The samples `before` and `after` one in the order of a request; none where it does not match the filters."""
    rows = matching(index, parameters).ask(database, "browse_neighbours", id=sample_id, excerpt=EXCERPT_LETTERS)
    found = {row["step"]: listed(index, row) for row in rows}
    return {"before": found.get(-1), "after": found.get(1)}


def count(index: Index, database: Database, parameters: Mapping[str, str]) -> int:
    """How many samples fulfil the filters."""
    return int(matching(index, parameters).ask(database, "browse_count")[0]["num"])


def page_size(parameters: Mapping[str, str]) -> int:
    """How many rows a request wants, within bounds."""
    return max(1, min(MAX_PAGE, whole("limit", parameters.get("limit") or str(_PAGE))))


def _after(text: str) -> tuple[float | None, int]:
    """Place and rank of the last sample seen."""
    if not text:
        return None, 0
    place, comma, rank = text.partition(",")
    if not comma:
        raise BadRequestError(f"after = {text!r} is not what a page gave")
    return (_number("after", place) if place else None), whole("after", rank)


def listed(index: Index, row: Mapping[str, Any]) -> dict[str, Any]:
    """A sample as lists show it."""
    names = ("granularity", "key", "snapshot", "source_id", "num_words", "duration_s", "text", "num_segments")
    scores = zip(index.scores, row["scores"] or (), strict=False)
    return {
        **{name: row[name] for name in names},
        "tar": None if index.target.manifest else index.tar_of(row["id"]),  # tells apart what may share a key
        "kind": media_kind(row["media_extension"]),
        "scores": {name: value for name, value in scores if value is not None},
    }


def spread(index: Index, database: Database, granularity: str, quantity: str) -> dict[str, Any] | None:
    """Bounds and a histogram of one quantity; None where no sample has it."""
    chosen = granularity or index.only
    where = "true" if chosen is None else "granularity = $chosen"
    values = {} if chosen is None else {"chosen": chosen}
    measured = f"WITH measured AS (SELECT ({expression(index, quantity)})::DOUBLE AS value FROM entries WHERE {where})"
    (bounds,) = database.query(f"{measured}\n{sql_text('browse_range')}", values)
    if not bounds["num"]:
        return None
    low, high = bounds["low"], bounds["high"]
    width = (high - low) / _NUM_BINS or 1.0
    if quantity == "words":
        width = float(max(1, math.ceil((high - low + 1) / _NUM_BINS)))
    num = max(1, math.ceil((high - low + (quantity == "words")) / width - 1e-9))
    bins = [0] * num
    own = {"low": low, "width": width, "num": num}
    for row in database.query(f"{measured}\n{sql_text('browse_spread')}", values | own):
        bins[row["bin"]] = row["n"]
    return {"low": low, "high": high, "width": width, "num": bounds["num"], "bins": bins}
