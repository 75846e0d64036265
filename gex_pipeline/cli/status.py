"""``gex status``: what an output holds, and how far a run that is not finished has come."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from typing import Any

from gex_pipeline import storage
from gex_pipeline.cli.show import say, say_json, show_accounts, show_granularities, table
from gex_pipeline.errors import GexError
from gex_pipeline.layout import Layout
from gex_pipeline.receipts import read_receipt
from gex_pipeline.run_lock import Holder, read_holder
from gex_pipeline.run_state import NOTHING_NEW, read_state
from gex_pipeline.shards.manifest import Manifest, read_manifest
from gex_pipeline.tables import Database

_AGAIN_S = 2.0


def command(arguments: argparse.Namespace) -> int:
    """Show an output; with --watch again and again until nobody holds it."""
    while arguments.watch:
        if sys.stdout.isatty():
            sys.stdout.write("\x1b[H\x1b[2J")
        _show(arguments)
        sys.stdout.flush()
        holder = read_holder(Layout(storage.absolute(arguments.output)))
        if holder is None or holder.has_ended:
            return 0
        time.sleep(_AGAIN_S)
    return _show(arguments)


def _show(arguments: argparse.Namespace) -> int:
    output_uri = storage.absolute(arguments.output)
    manifest, state = read_manifest(output_uri), read_state(Layout(output_uri))
    if manifest is None and state is None:
        raise GexError(f"{output_uri} holds no data set and no run was begun there")
    under_way = _under_way(output_uri, state, manifest)
    holder = read_holder(Layout(output_uri))
    if arguments.json:
        say_json(
            {
                "manifest": asdict(manifest) if manifest else None,
                "run": state,
                "under_way": under_way,
                "holder": asdict(holder) | {"has_ended": holder.has_ended} if holder else None,
            }
        )
        return 0
    if manifest is not None:
        for snapshot in manifest.snapshots:
            retired = f"  retired {snapshot.retired}" if snapshot.retired else ""
            say(f"snapshot {snapshot.snapshot}  {snapshot.created}  recipe {snapshot.recipe_hash}{retired}")
        show_accounts(manifest.snapshots[-1].accounts)
        show_granularities(manifest)
    if state is not None and under_way:
        say(
            f"not finished: snapshot {state['snapshot']}, last at stage {state['stage']!r} "
            f"({state['updated']}, process {state['pid']} on {state['host']})"
        )
        rows = [(row["granularity"], f"{row['built']:,}", f"{row['planned']:,}") for row in under_way]
        table(("granularity", "shards built", "planned"), rows, numbers=(1, 2))
    _show_holder(holder)
    if under_way and (holder is None or holder.has_ended):
        say("next     run the same 'gex run' again to go on")
    return 0


def _show_holder(holder: Holder | None) -> None:
    if holder is not None:
        say(f"left by  {holder.words}, which has ended" if holder.has_ended else f"held by  {holder.words}")


def _under_way(output_uri: str, state: dict[str, Any] | None, manifest: Manifest | None) -> list[dict[str, Any]]:
    """Planned and built shards of a snapshot that is begun and not published."""
    published = len(manifest.snapshots) if manifest else 0
    if state is None or state["snapshot"] < published or state["stage"] == NOTHING_NEW:
        return []
    layout, rows = Layout(output_uri), []
    for name in state["recipe"]["granularity"]:
        plan_uri = layout.table(f"plan-{name}", state["snapshot"])
        planned, built = [], 0
        if storage.exists(plan_uri):
            with Database() as database:
                database.view_parquet("plan", [plan_uri])
                planned = database.rows("plan_of_shards")
            for row in planned:
                receipt = read_receipt(layout.receipt(name, row["shard"]))
                built += receipt is not None and receipt.plan_digest == state["run_id"]
        rows.append({"granularity": name, "planned": len(planned), "built": built})
    return rows
