"""``gex retry``: what stands rejected in an output, and another try after the cause was repaired."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from gex_pipeline import storage
from gex_pipeline.cli.run import How, run_flow
from gex_pipeline.cli.show import say, say_json, show_accounts, show_end, table
from gex_pipeline.errors import GexError, RecipeError
from gex_pipeline.rejects import standing_rejects
from gex_pipeline.retry import Retry
from gex_pipeline.run_state import Run, find_recipe, open_run, read_state
from gex_pipeline.shards.manifest import Account, read_manifest


def command(arguments: argparse.Namespace) -> int:
    """List the standing rejects; with reasons, run the recipe with these tried again."""
    place = str(arguments.recipe or arguments.output)
    run = open_run(find_recipe(place))
    if run.layout.output_uri.rstrip("/") != storage.absolute(arguments.output).rstrip("/"):
        raise RecipeError(f"{place} is the recipe of another output, {run.layout.output_uri}")
    if not run.manifest.snapshots:
        raise GexError(f"{run.layout.output_uri} has no snapshot yet; gex run goes on with it")
    rejects = standing_rejects(run)
    if not arguments.reason:
        return _list(rejects, arguments)
    retry = Retry(tuple(sorted(set(arguments.reason))), tuple(sorted(set(arguments.granularity or ()))))
    retry.check(run.recipe)
    chosen = sum(row["num"] for row in rejects if _is_chosen(row, retry))
    if not chosen:
        if arguments.json:
            say_json({"tried": 0, "snapshot": None, "accounts": []})
        else:
            say(f"nothing is rejected as {', '.join(retry.reasons)}" + _of(retry.granularities) + ": nothing to do")
        return 0
    run_flow(open_run(run.recipe, retry), place, How(report=not arguments.no_report, retry=retry))
    return _show_result(run, chosen, as_json=arguments.json)


def _is_chosen(row: dict[str, Any], retry: Retry) -> bool:
    return row["reason"] in retry.reasons and (not retry.granularities or row["granularity"] in retry.granularities)


def _of(granularities: tuple[str, ...]) -> str:
    return f" in {', '.join(granularities)}" if granularities else ""


def _list(rejects: list[dict[str, Any]], arguments: argparse.Namespace) -> int:
    rows = [row for row in rejects if not arguments.granularity or row["granularity"] in arguments.granularity]
    if arguments.json:
        say_json(rows)
        return 0
    if not rows:
        say("nothing stands rejected (what ingest rejects is looked at again by every gex run)")
        return 0
    lines = [(row["granularity"], row["stage"], row["reason"], f"{row['num']:,}", row["example"]) for row in rows]
    table(("granularity", "stage", "reason", "rejects", "one of them"), lines, numbers=(3,))
    say(f"next     repair the cause, then: gex retry {arguments.output} --reason {rows[0]['reason']}")
    return 0


def _show_result(before: Run, chosen: int, *, as_json: bool) -> int:
    """What came of it: a snapshot, or the accounts of a run in which nothing could be used."""
    manifest = read_manifest(before.recipe.output_uri)
    is_published = manifest is not None and len(manifest.snapshots) > before.snapshot
    if manifest is not None and is_published:
        accounts = manifest.snapshots[-1].accounts
    else:
        state = read_state(before.layout) or {}
        accounts = tuple(Account(**account) for account in state.get("accounts", ()))
    if as_json:
        number = before.snapshot if is_published else None
        say_json({"tried": chosen, "snapshot": number, "accounts": [asdict(account) for account in accounts]})
    elif manifest is not None and is_published:
        show_end(manifest, before.recipe.output_uri)
    else:
        say(f"{chosen:,} rejects were tried again and none could be used; they stand as they were:")
        show_accounts(accounts)
    return 0
