"""``gex plan``: ingest and plan in memory; writes nothing."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from gex_pipeline import ingest
from gex_pipeline.cli.show import human_bytes, human_time, reasons, say, say_json, table
from gex_pipeline.planning import NodePlan, plan_node, view_clips
from gex_pipeline.recipe import load_recipe
from gex_pipeline.run_state import Run, open_run
from gex_pipeline.shards.manifest import Account
from gex_pipeline.stages.build import builds
from gex_pipeline.stages.prepare import check_gate_names
from gex_pipeline.tables import Database


def command(arguments: argparse.Namespace) -> int:
    """Plan a recipe file."""
    recipe = load_recipe(arguments.recipe)
    check_gate_names(recipe)
    run = open_run(recipe, accept_changes=True)
    account, plans = plan_all(run)
    if arguments.json:
        granularities = [asdict(plan) for plan in plans]
        say_json({"changes": list(run.changes), "ingest": asdict(account), "granularities": granularities})
        return 0
    show_plan(run, account, plans)
    return 0


def plan_all(run: Run) -> tuple[Account, list[NodePlan]]:
    """Ingest and plan every granularity, taking every planned sample to succeed."""
    with Database() as database:
        found = ingest.ingest(database, run)
        view_clips(database, run)
        plans = [
            plan_node(database, run, node, planned_parents=True)
            for node in run.recipe.graph.nodes.values()
            if builds(run, node)
        ]
    return found.account, plans


def show_plan(run: Run, account: Account, plans: list[NodePlan]) -> None:
    """What a run would do, as a table; and in what its recipe is another one than before."""
    for change in run.changes:
        say(f"changed  {change}")
    say(
        f"{account.num_in:,} rows: {account.num_used:,} clips to use"
        + (f", {account.num_known:,} known from earlier snapshots" if account.num_known else "")
    )
    say(f"  excluded  {reasons(account.excluded)}")
    say(f"  rejected  {reasons(account.rejected)}")
    rows = [
        (
            plan.granularity,
            f"{plan.operation} {plan.parent}" if plan.parent else "pack",
            f"{plan.num_parents:,}",
            f"{plan.num_members:,}",
            reasons(plan.left_out, "\n"),
            f"{plan.num_samples:,}",
            human_time(plan.duration_s),
            human_bytes(plan.estimated_bytes),
            f"{plan.num_shards:,}",
        )
        for plan in plans
    ]
    headings = ("granularity", "made by", "from", "used", "left out", "samples", "video", "bytes, about", "shards")
    table(headings, rows, numbers=(2, 3, 5, 6, 7, 8))
    say("Media and summaries are not looked at yet; what turns out unusable while building is rejected with a reason.")
    say(f"output  {run.recipe.output_uri}  (snapshot {run.snapshot})")
