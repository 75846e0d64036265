"""What is not in a data set, and why: a request's parameters in; counts by reason, or a page of losses, out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gex_pipeline.browse.index import Index
from gex_pipeline.browse.queries import page_size, whole
from gex_pipeline.tables import Database

_FILTERS = ("granularity", "stage", "state", "reason")


def loss_counts(index: Index, database: Database) -> list[dict[str, Any]]:
    """How many losses there are for each granularity, stage, state and reason."""
    return [
        row
        for row in index.with_losses(database).rows("browse_loss_counts")
        if index.only is None or row["granularity"] == index.only
    ]


def loss_page(index: Index, database: Database, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Losses after `after`, and the `after` of the next page; none where this is the last one."""
    num = page_size(parameters)
    after = whole("after", parameters.get("after") or "0")
    chosen = {name: parameters.get(name) or None for name in _FILTERS}
    if index.only is not None:
        chosen["granularity"] = index.only
    term = parameters.get("q", "").strip() or None
    rows = index.with_losses(database).rows("browse_loss_page", after=after, num=num + 1, term=term, **chosen)
    return {"losses": rows[:num], "after": rows[num - 1]["id"] if len(rows) > num else None}
