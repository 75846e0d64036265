"""The expansion as a Prefect flow: metadata in, a published snapshot out. Order and retries only.

Each task is one stage of `gex_pipeline.stages`; each can be run again and makes only what is missing,
so a retry, a re-run after a crash and a scheduled run are the same thing. `gex run` calls this flow.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from prefect import State, flow, get_run_logger
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from pydantic import BaseModel, BeforeValidator, ConfigDict

from flows.stages import Filled, failed, flags_of, stage
from gex_pipeline import timeline
from gex_pipeline.errors import BalanceError, GateError, GexError
from gex_pipeline.granularity import Node
from gex_pipeline.progress import progress
from gex_pipeline.ray_jobs import ray_session
from gex_pipeline.recipe import Recipe
from gex_pipeline.report.wording import markdown_table
from gex_pipeline.retry import Retry
from gex_pipeline.run_lock import Lease, held
from gex_pipeline.run_state import (
    Run,
    as_begun,
    begin,
    end_without_snapshot,
    find_recipe,
    is_left_open,
    mark_done,
    mark_refused,
    mark_told,
    open_run,
)
from gex_pipeline.shards.manifest import Account, Snapshot, publish_sizes
from gex_pipeline.stages import build, drift, prepare, publish, rebuild, summaries


class ExpandParameters(BaseModel):
    """What a run needs to know; checked before it starts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Annotated[Filled, BeforeValidator(str)]  # a recipe file, or an output: the recipe it was made with
    report: bool = True  # write the report after publishing
    check_bytes: bool = False  # read every published shard; without it a listing has to do
    retry: Retry | None = None  # rejects of earlier snapshots to try again
    accept_changes: bool = False  # go on with a recipe that is not the one of the last snapshot


@stage("look")
def look(recipe: Recipe, parameters: ExpandParameters) -> Run:
    """What is published, what was begun, which inputs there are."""
    return open_run(recipe, parameters.retry, accept_changes=parameters.accept_changes)


@stage("check tools")
def check_tools(recipe: Recipe) -> None:
    """Everything the recipe needs is there."""
    prepare.check_tools(recipe)


@stage("find damaged shards")
def find_damaged(run: Run, check_bytes: bool) -> list[rebuild.Damage]:
    """Published shards that are not what was published."""
    return rebuild.find_damaged(run, read_bytes=check_bytes)


@stage("rebuild")
def rebuild_shards(run: Run, damaged: list[rebuild.Damage]) -> None:
    """Damaged shards → the bytes that were published."""
    with ray_session(run.recipe.ray):
        rebuild.rebuild(run, damaged)


@stage("compare")
def count_changed(run: Run) -> int:
    """Clips that the snapshot was begun with and that are not in the metadata as they were."""
    return prepare.num_begun_clips_changed(run)


@stage("ingest")
def ingest_clips(run: Run) -> Account:
    """Metadata → clips table and rejects."""
    with timeline.stage(run, "ingest"):
        return prepare.ingest_clips(run)


@stage("summarise", "summarise {node.name}")
def summarise_texts(run: Run, node: Node) -> None:
    """Long texts → accepted summaries and rejects, in checkpointed parts."""
    with timeline.stage(run, "summarise", node.name):
        summaries.summarise_node(run, node)


@stage("plan", "plan {node.name}")
def plan_shards(run: Run, node: Node) -> int:
    """Parents → samples → shards."""
    with timeline.stage(run, "plan", node.name):
        return len(build.plan_shards(run, node))


@stage("build", "build {node.name}")
def build_shards(run: Run, node: Node) -> int:
    """Planned shards → tars and receipts."""
    with timeline.stage(run, "build", node.name):
        return build.build_shards(run, node)


@stage("publish")
def publish_snapshot(run: Run) -> Snapshot | None:
    """Receipts → balance → dataset.json."""
    with timeline.stage(run, timeline.PUBLISH):
        return publish.publish(run)


@stage("report")
def write_report(output_uri: str) -> str:
    """dataset.json → report.html."""
    from gex_pipeline.report.build import build_report

    address: str = build_report(output_uri)
    return address


@stage("drift")
def look_for_drift(run: Run) -> list[dict[str, Any]]:
    """The new samples against those published before them."""
    return drift.drift_of(run.layout.output_uri, run.recipe.validation.max_psi)


@flow(name="expand", description="Make the missing granularities out of the clips that are there.", log_prints=False)
def expand(parameters: ExpandParameters) -> int | State[Any] | None:
    """Run a recipe; returns the number of the published snapshot, None when there was nothing new."""
    try:
        return _expand(parameters)
    except GexError as error:
        return failed(error, *_command(parameters))


def _command(parameters: ExpandParameters) -> list[str]:
    """What does the same by hand."""
    flags = {"report": "--no-report"}
    if parameters.retry is not None:
        output_uri = find_recipe(parameters.recipe).output_uri
        return [*parameters.retry.command(output_uri), *flags_of(parameters, flags)]
    flags |= {"check_bytes": "--check-bytes", "accept_changes": "--accept-changes"}
    return ["gex", "run", parameters.recipe, *flags_of(parameters, flags)]


def _expand(parameters: ExpandParameters) -> int | None:
    logger = get_run_logger()
    recipe = find_recipe(parameters.recipe)
    run = look(recipe, parameters)
    damaged = find_damaged(run, parameters.check_bytes)
    has_work = not run.is_current or bool(damaged)
    if not has_work and not is_left_open(run):
        logger.info("the inputs are those of snapshot %d: nothing to do", run.snapshot - 1)
        return None
    if has_work:
        check_tools(recipe)  # before anything is written
    with held(run.layout, run.run_id) as lease:
        if damaged:
            run = replace(look(recipe, parameters), lease=lease)  # again: snapshots may have been retired meanwhile
            damaged = rebuild.still_listed(run, damaged)
        if damaged:
            logger.warning("damaged: %s", "; ".join(damage.words for damage in damaged))
            rebuild_shards(run, damaged)
        return _expand_alone(parameters, recipe, lease)


def _expand_alone(parameters: ExpandParameters, recipe: Recipe, lease: Lease) -> int | None:
    # Again: another run may have published before this one got the lease.
    run = replace(look(recipe, parameters), lease=lease)
    if run.is_current:
        snapshot = None
        _end_begun(run)
    else:
        run = begin(_go_on(run))
        snapshot = _expand_rows(run)
    if snapshot is not None:
        _tell(run, snapshot, parameters)
        mark_done(run)
    elif not run.is_told:
        publish_sizes(run.layout, run.manifest)
        _tell(run.of_last_snapshot, run.manifest.snapshots[-1], parameters)
        mark_told(run)
    published = None if snapshot is None else snapshot.snapshot
    if not run.is_behind:
        return published
    plain = parameters.model_copy(update={"retry": None})  # what was retried is not tried once more
    later = _expand_alone(plain, recipe, lease)
    return published if later is None else later


def _go_on(run: Run) -> Run:
    """The run as its snapshot was begun, which keeps what is built, where no clip of it is gone or changed."""
    if not run.begun_inputs:
        return run
    if num_changed := count_changed(run):
        words = (
            f"begun anew: {num_changed:,} of the clips that snapshot {run.snapshot} was begun with are not in the "
            "metadata any more as they were; what was built of it is built again"
        )
    else:
        words = f"going on with snapshot {run.snapshot} as it was begun; what has come since is for the one after it"
    get_run_logger().info(words)
    progress().note(words)
    return run if num_changed else as_begun(run)


def _end_begun(run: Run) -> None:
    """Nothing is new: what a run that was stopped has begun is given up. Its finished shards stay."""
    logger = get_run_logger()
    logger.info("the inputs are those of snapshot %d: nothing to do", run.snapshot - 1)
    if run.is_begun:
        logger.warning("snapshot %d was begun by a run that was stopped, and is given up", run.snapshot)
        end_without_snapshot(run)


def _expand_rows(run: Run) -> Snapshot | None:
    """From metadata to a snapshot; None where they bring nothing new."""
    account = ingest_clips(run)
    if run.manifest.snapshots and account.num_used == 0 and run.retry is None and not run.changes:
        end_without_snapshot(run)
        get_run_logger().info("no new clips in %d rows: nothing to do", account.num_in)
        return None
    return _expand_clips(run)


def _tell(run: Run, snapshot: Snapshot, parameters: ExpandParameters) -> None:
    """Artifacts, drift and report of a snapshot that is published."""
    create_markdown_artifact(key="balance", markdown=balance_markdown(snapshot), description="accounts of the run")
    if scores := scores_markdown(run):
        create_markdown_artifact(key="scores", markdown=scores, description="accepted samples of the run")
    if run.snapshot:
        _mark_drift(look_for_drift(run))
    if parameters.report:
        progress().stage("report", None, "")
        address = write_report(run.recipe.output_uri)
        create_link_artifact(key="report", link=address, link_text=f"report of {run.recipe.name}")


def _mark_drift(rows: list[dict[str, Any]]) -> None:
    """An artifact where there was something before, a warning where the new samples are not like it."""
    if rows:
        create_markdown_artifact(key="drift", markdown=drift.drift_markdown(rows), description="new against before")
    for row in rows:
        if row["is_alarm"]:
            get_run_logger().warning("drift: %s", drift.in_words(row))
            progress().note(f"drift: {drift.in_words(row)}")


def _expand_clips(run: Run) -> Snapshot | None:
    progress().stage("start Ray", None, "")
    with ray_session(run.recipe.ray):
        for node in publish.built_nodes(run):
            if publish.needs_summaries(run, node):
                summarise_texts(run, node)
            plan_shards(run, node)
            build_shards(run, node)
    try:
        return publish_snapshot(run)
    except (BalanceError, GateError):
        mark_refused(run)
        raise


def balance_markdown(snapshot: Snapshot) -> str:
    """The accounts as a Markdown table."""
    columns = ("stage", "granularity", "in", "used", "known", "excluded", "rejected", "difference")
    rows = []
    for account in snapshot.accounts:
        excluded, rejected = (
            ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "0"
            for reasons in (account.excluded, account.rejected)
        )
        num_in = f"{account.num_in} {account.unit}"
        taken = (num_in, account.num_used, account.num_known)
        rows.append((account.stage, account.granularity, *taken, excluded, rejected, account.difference))
    return markdown_table(columns, rows, numbers=(2, 3, 4, 7))


def scores_markdown(run: Run) -> str:
    """Means and standard deviations of the scores of what Θ_t accepted; empty where nothing is scored."""
    rows = [
        (node.name, row["score"], row["num"], f"{row['mean']:.3f}", f"{row['std']:.3f}")
        for node in publish.built_nodes(run)
        for row in publish.score_means(run, node)
    ]
    return markdown_table(("granularity", "score", "samples", "mean", "std"), rows, numbers=(2, 3, 4)) if rows else ""


if __name__ == "__main__":
    import sys

    expand(ExpandParameters(recipe=sys.argv[1]))
