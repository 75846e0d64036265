"""Quarantine: which rejects of earlier snapshots stand, and which of them a run tries again.

A reject stands until a run has tried it again: such a run lists what it took in its table ``retried``, and what came
of it is found where everything is found, in the receipts or in the rejects of that snapshot.
"""

from __future__ import annotations

from typing import Any

from gex_pipeline.receipts import LOSS_SCHEMA
from gex_pipeline.run_state import Run
from gex_pipeline.tables import Database

_NOT_RETIRED = "SELECT '' AS key"
NOT_RETRIED = "SELECT '' AS granularity, '' AS id, '' AS reason, 0 AS snapshot"


def find_standing(database: Database, run: Run) -> None:
    """Make the table ``standing``: rejects of published snapshots that no later one has tried again, or could try."""
    database.view_parquet("losses_before", run.previous_tables("rejects"), empty=LOSS_SCHEMA, numbered=True)
    database.view_parquet("retried_before", run.previous_tables("retried"), empty=NOT_RETRIED, numbered=True)
    retired = [uri for name in run.manifest.granularity_names() for uri in run.previous_tables(f"retired-{name}")]
    database.view_parquet("retired_samples", retired, empty=_NOT_RETIRED)
    database.run("retry_rejects")


def find_retried(database: Database, run: Run) -> None:
    """Make the table ``retried_now``: the standing rejects this run tries again, by granularity and id."""
    find_standing(database, run)
    retry = run.retry
    database.run(
        "retry_chosen",
        reasons=list(retry.reasons) if retry else [],
        granularities=list(retry.granularities) if retry else [],
    )


def standing_rejects(run: Run) -> list[dict[str, Any]]:
    """How many rejects stand: granularity, stage, reason, num, and one's detail as an example."""
    with Database() as database:
        find_standing(database, run)
        return database.rows("retry_counts")


def publish_retried(run: Run) -> None:
    """Write the snapshot's table ``retried``, when this run tried any reject again."""
    if run.retry is None:
        return
    with Database() as database:
        find_retried(database, run)
        database.publish_table("retried_now", run.layout.table("retried", run.snapshot), "granularity, id")
