"""``gex status``: what an output holds, and how far a run that is not finished has come.

Of a run under way a display lists the receipts that are there and reads those it has not read yet, several at a time;
what is planned is read once. Writes nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from gex_pipeline import storage
from gex_pipeline.cli.show import say, say_json, show_accounts, show_granularities, table
from gex_pipeline.errors import GexError
from gex_pipeline.layout import Layout
from gex_pipeline.receipts import read_receipt
from gex_pipeline.run_lock import Holder, read_holder
from gex_pipeline.run_state import command_to_finish, is_unfinished, num_told, read_output, stored_retry
from gex_pipeline.stopping import listening
from gex_pipeline.tables import Database

_AGAIN_S = 2.0
_STOPPED = 130  # and not 0, which says that the run has ended


@dataclass
class _Known:
    """What earlier displays have read; a file that was written again since is read again."""

    plans: dict[str, tuple[storage.FileInfo, frozenset[str]]] = field(default_factory=dict)  # the receipts to come
    receipts: dict[str, tuple[storage.FileInfo, str]] = field(default_factory=dict)  # the runs they are of


def command(arguments: argparse.Namespace) -> int:
    """Show an output; with --watch again and again until nobody holds it."""
    if not arguments.watch:
        return _show(arguments, _Known())
    try:
        return _watch(arguments)
    except KeyboardInterrupt:
        told = listening()
        if told is not None and told.to_stop:
            raise
        return _STOPPED  # without a word: who looks on stops nothing


def _watch(arguments: argparse.Namespace) -> int:
    known = _Known()
    while True:
        if sys.stdout.isatty():
            sys.stdout.write("\x1b[H\x1b[2J")
        _show(arguments, known)
        sys.stdout.flush()
        holder = read_holder(Layout(storage.absolute(arguments.output)))
        if holder is None or holder.has_ended:
            return 0
        time.sleep(_AGAIN_S)


def _show(arguments: argparse.Namespace, known: _Known) -> int:
    output_uri = storage.absolute(arguments.output)
    manifest, state = read_output(output_uri)
    if manifest is None and state is None:
        raise GexError(f"{output_uri} holds no data set and no run was begun there")
    under_way = _under_way(output_uri, state, known) if state is not None and is_unfinished(state, manifest) else []
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
    if holder is None or holder.has_ended:
        if state is not None and under_way:
            _show_next(output_uri, state)
        elif manifest is not None and num_told(state, manifest) < len(manifest.snapshots):
            say(f"next     gex run {output_uri}    (the last run was stopped before its report)")
    return 0


def _show_next(output_uri: str, state: dict[str, Any]) -> None:
    if stored_retry(state) is None:
        say("next     run the same 'gex run' again to go on")
    else:
        say(f"next     {command_to_finish(state, output_uri)}    to go on (gex run {output_uri} gives it up)")


def _show_holder(holder: Holder | None) -> None:
    if holder is not None:
        held_by = f"held by  {holder.words}{holder.clock_words}"
        say(f"left by  {holder.words}, which has ended" if holder.has_ended else held_by)


def _under_way(output_uri: str, state: dict[str, Any], known: _Known) -> list[dict[str, Any]]:
    """Planned and built shards of a snapshot that is begun and not published."""
    layout, rows = Layout(output_uri), []
    for name in state["recipe"]["granularity"]:
        planned = _planned(layout, name, state["snapshot"], known)
        built = _built(layout, name, planned, known).count(state["run_id"]) if planned else 0
        rows.append({"granularity": name, "planned": len(planned), "built": built})
    return rows


def _planned(layout: Layout, granularity: str, snapshot: int, known: _Known) -> frozenset[str]:
    """The receipts that the planned shards will have; none before there is a plan."""
    plan_uri = layout.table(f"plan-{granularity}", snapshot)
    now = storage.info(plan_uri)
    if now is None:
        return frozenset()
    read, receipts = known.plans.get(plan_uri, (None, frozenset()))
    if read != now:
        with Database() as database:
            database.view_parquet("plan", [plan_uri])
            receipts = frozenset(layout.receipt(granularity, row["shard"]) for row in database.rows("plan_of_shards"))
        known.plans[plan_uri] = (now, receipts)
    return receipts


def _built(layout: Layout, granularity: str, planned: frozenset[str], known: _Known) -> list[str]:
    """Of every planned receipt that is there, the run that wrote it."""
    there = storage.list_files(storage.join(layout.output_uri, granularity, "*.parquet"))
    there = [file for file in there if file.uri in planned]
    new = [file for file in there if known.receipts.get(file.uri, (None, ""))[0] != file]
    for file, receipt in zip(new, storage.for_each(lambda file: read_receipt(file.uri), new), strict=True):
        known.receipts[file.uri] = (file, receipt.plan_digest if receipt else "")
    return [known.receipts[file.uri][1] for file in there]
