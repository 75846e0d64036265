"""``gex run``: the Prefect flow in this process, with progress for a person. ``gex retry`` runs it through here too."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gex_pipeline import storage
from gex_pipeline.cli.show import say, say_now, show_end
from gex_pipeline.errors import GexError, RecipeChangedError, TransientError
from gex_pipeline.progress import LineProgress, progress, shown_by
from gex_pipeline.recipe import Recipe
from gex_pipeline.retry import Retry
from gex_pipeline.run_lock import check_free
from gex_pipeline.run_state import Run, find_recipe, is_left_open, open_run, read_state, stored_retry
from gex_pipeline.shards.manifest import read_manifest
from gex_pipeline.stopping import listening

# Defaults only: whoever sets these keeps them. Prefect's own logs would drown the progress of a run in a terminal.
_PREFECT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}


def command(arguments: argparse.Namespace) -> int:
    """Run a recipe."""
    if arguments.submit:
        from gex_pipeline.ray_submit import submit

        return submit(arguments.submit, arguments.recipe, _flags(arguments), say_now)
    how = How(not arguments.no_report, arguments.check_bytes, arguments.accept_changes)
    return run_recipe(arguments.recipe, how)


def _flags(arguments: argparse.Namespace) -> list[str]:
    """The flags of a run, for a job that does the same."""
    flags = ("no_report", "check_bytes", "accept_changes")
    return [f"--{name.replace('_', '-')}" for name in flags if getattr(arguments, name)]


@dataclass(frozen=True)
class How:
    """What a run does beside building what is new."""

    report: bool = True
    check_bytes: bool = False  # read every published shard
    accept_changes: bool = False  # go on with another recipe than that of the last snapshot
    retry: Retry | None = None  # rejects to try again


def run_recipe(place: str, how: How | None = None) -> int:
    """Run the flow over a recipe (its file, or an output made with it) and show how it ended."""
    from gex_pipeline.stages.rebuild import find_damaged

    how = how or How()
    recipe = find_recipe(place)
    run = _open(recipe, how)
    left = _left_by_the_last(run) if run.is_current and is_left_open(run) else []
    if run.is_current and not left and not how.check_bytes and not find_damaged(run):
        say("nothing new: the inputs are those of the last run")
        show_end(run.manifest, recipe.output_uri)
        return 0
    run_flow(run, place, how)
    manifest = read_manifest(recipe.output_uri)
    if manifest is None:
        raise GexError(f"the run ended without publishing anything to {recipe.output_uri}")
    if len(manifest.snapshots) == run.snapshot:
        say("nothing new: the inputs are those of the last run" if run.is_current else "nothing new: no new clip")
    for line in left:
        say(line)
    show_end(manifest, recipe.output_uri)
    return 0


def _left_by_the_last(run: Run) -> list[str]:
    """What a run that brings nothing new does about one that was stopped, in words."""
    words = []
    if run.is_begun:
        retry = stored_retry(read_state(run.layout) or {})
        what = f"a retry of {', '.join(retry.reasons)}" if retry else "a run over other metadata"
        again = f"; to try it again: {shlex.join(retry.command(run.layout.output_uri))}" if retry else ""
        words.append(f"given up: snapshot {run.snapshot}, which {what} had begun and not finished{again}")
    if not run.is_told:
        words.append(f"made good: the run that published snapshot {run.snapshot - 1} was stopped before its report")
    return words


def _open(recipe: Recipe, how: How) -> Run:
    """The run; of a changed recipe it is first shown what the next snapshot would be."""
    try:
        return open_run(recipe, accept_changes=how.accept_changes)
    except RecipeChangedError:
        from gex_pipeline.cli.plan import plan_all, show_plan

        changed = open_run(recipe, accept_changes=True)
        show_plan(changed, *plan_all(changed))
        raise


@contextmanager
def _prefect_answers(is_ours: bool) -> Iterator[None]:
    """Say in a sentence that Prefect's server is gone.

    Raises:
        TransientError: it is; KeyboardInterrupt: and so should this run be.
    """
    import httpx

    try:
        yield
    except (httpx.TransportError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith("Failed to reach API"):
            raise
        told = listening()
        if told is not None:
            told.check()
        if is_ours:
            raise TransientError(
                "the Prefect server of this run does not answer; something ended it, say a lack of memory. What is "
                "built and published stays; run the same command again"
            ) from error
        raise TransientError(
            "the Prefect server (PREFECT_API_URL) does not answer. What is built and published stays; run the same "
            "command again when it does, or without PREFECT_API_URL, which starts one for the run"
        ) from error


def _check_prefect_home() -> None:
    """Refuse a home of Prefect in which its server, started for the run, would wait for minutes and fail.

    Raises:
        GexError: it cannot be written.
    """
    if os.environ.get("PREFECT_API_URL"):
        return
    try:
        storage.check_writable(str(Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()))
    except (GexError, RuntimeError) as error:
        raise GexError(f"Prefect keeps its state in PREFECT_HOME: {error}; set it to a folder for it") from error


def run_flow(run: Run, place: str, how: How) -> None:
    """The flow to its end, with progress.

    Raises:
        GexError: it failed.
    """
    from gex_pipeline.stages.prepare import check_gate_names

    # The flow asks both again; here it is said before Prefect is started.
    check_gate_names(run.recipe)
    check_free(run.layout)
    _check_prefect_home()
    for name, value in _PREFECT.items():
        os.environ.setdefault(name, value)
    with shown_by(LineProgress()):
        progress().stage("start Prefect", None, "")
        from flows.server import start_server

        server = start_server()
        from flows.expand import ExpandParameters, expand
        from flows.stages import failure_of

        if server is not None:
            server.wait()

        parameters = ExpandParameters(
            recipe=storage.absolute(place),
            report=how.report,
            check_bytes=how.check_bytes,
            retry=how.retry,
            accept_changes=how.accept_changes,
        )
        with _prefect_answers(is_ours=server is not None):
            state = expand(parameters, return_state=True)
    if not state.is_completed():
        error = failure_of(state)
        if isinstance(error, GexError):
            raise error
        raise GexError(f"the run failed: {type(error).__name__}: {error}. Run the same command again to go on")
