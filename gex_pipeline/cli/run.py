"""``gex run``: the Prefect flow in this process, with progress for a person."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from gex_pipeline.cli.show import say, show_end
from gex_pipeline.errors import GexError
from gex_pipeline.progress import LineProgress, progress, shown_by
from gex_pipeline.recipe import load_recipe
from gex_pipeline.run_lock import check_free
from gex_pipeline.run_state import open_run
from gex_pipeline.shards.manifest import read_manifest

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
    """Run a recipe file."""
    return run_recipe(arguments.recipe, report=not arguments.no_report)


def run_recipe(path: Path, *, report: bool = True) -> int:
    """Run the flow over a recipe and show how it ended."""
    recipe = load_recipe(path)
    run = open_run(recipe)
    if run.is_current:
        say("nothing new: the inputs are those of the last run")
        show_end(run.manifest, recipe.output_uri)
        return 0
    check_free(run.layout)  # the flow asks again; here it is said before Prefect is started
    _run_flow(path, report)
    manifest = read_manifest(recipe.output_uri)
    if manifest is None:
        raise GexError(f"the run ended without publishing anything to {recipe.output_uri}")
    if len(manifest.snapshots) == run.snapshot:
        say("nothing new: no clip that was not known before")
    show_end(manifest, recipe.output_uri)
    return 0


def _run_flow(path: Path, report: bool) -> None:
    for name, value in _PREFECT.items():
        os.environ.setdefault(name, value)
    with shown_by(LineProgress()):
        progress().stage("start Prefect", None, "")
        from flows.expand import ExpandParameters, expand

        state = expand(ExpandParameters(recipe=path.absolute(), report=report), return_state=True)
    if not state.is_completed():
        error = state.result(raise_on_failure=False)
        if isinstance(error, GexError):
            raise error
        raise GexError(f"the run failed: {type(error).__name__}: {error}. Run the same command again to go on")
