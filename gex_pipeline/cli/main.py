"""``gex``: one verb a command. Exit codes: 0 done, 1 failed, 2 wrong usage or recipe, 3 accounts do not add up,
4 a publication gate is closed, 5 a new snapshot drifts (``gex validate``), 75 failed for now or stopped by SIGTERM (run
the same command again), 130 stopped by the keyboard, 141 nobody reads the output any more (``gex plan R | head``).
"""

from __future__ import annotations

import argparse
import os
import select
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from gex_pipeline import __version__
from gex_pipeline.cli.model_commands import MODEL_COMMANDS
from gex_pipeline.cli.parsing import CommandTable, add_command, whole
from gex_pipeline.cli.shards import add_shard_commands
from gex_pipeline.cli.validation_commands import VALIDATION_COMMANDS
from gex_pipeline.errors import BalanceError, GateError, GexError, RecipeError
from gex_pipeline.stopping import sigterm_as_interrupt

_TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h
_UNREAD = 141  # as a shell says it of a command that SIGPIPE ended
_EXAMPLE = """\
example:
  gex demo                     draw a small corpus, expand it, show what came out
  gex plan recipe.toml         what would happen, before a byte is encoded
  gex run recipe.toml          do it; run it again to go on where it stopped
  gex status OUTPUT            what is published, what is under way
  gex retry OUTPUT             what was rejected, and why; with --reason, try it again
  gex report OUTPUT            (re)write OUTPUT/report/report.html
  gex shards verify OUTPUT     check every byte, text and joint; 'gex shards --help' says what else
  gex validate OUTPUT          likeness of videos and texts, drift against the snapshot before
  gex train training.toml      train a model on it; 'gex train --template scratch' prints a recipe
  gex eval MODEL OUTPUT        what it learned
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gex",
        description="Make video-text pairs of every granularity out of short captioned clips.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"gex {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (text, example, arguments) in _COMMANDS.items():
        command = add_command(commands, name, text, example)
        arguments(command)
    return parser


def _plan_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", type=Path, help="recipe file (TOML)")
    command.add_argument("--json", action="store_true", help="print the plan as JSON")


def _run_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", help="recipe file (TOML), or an output: the recipe it was made with")
    command.add_argument("--no-report", action="store_true", help="do not write the report")
    command.add_argument(
        "--check-bytes", action="store_true", help="read every published shard, and build damaged ones again"
    )
    command.add_argument(
        "--accept-changes", action="store_true", help="go on though the recipe is not the one of the last snapshot"
    )
    command.add_argument(
        "--submit", metavar="http://HEAD:8265", help="run it as a job of this Ray cluster, and follow the job"
    )


def _retry_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("output", help="folder or URI of a data set")
    command.add_argument("--reason", action="append", metavar="R", help="try these rejects again; may be repeated")
    command.add_argument(
        "--granularity", action="append", metavar="G", help="only of this granularity; may be repeated"
    )
    command.add_argument("--recipe", type=Path, help="the recipe file, when the output does not know where it lies")
    command.add_argument("--no-report", action="store_true", help="do not write the report")
    command.add_argument("--json", action="store_true", help="print the standing rejects, or what came of it, as JSON")


def _status_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("output", help="folder or URI of a data set")
    command.add_argument("--watch", action="store_true", help="show it again every 2 s until no run is at work on it")
    command.add_argument("--json", action="store_true", help="print as JSON")


def _report_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("output", help="folder or URI of a data set")
    command.add_argument("--samples", type=whole(0), default=12, metavar="N", help="samples to show (default 12)")


def _demo_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=Path, nargs="?", default=Path("demo"), help="where to put it (default: demo)")
    # Below 4 sources there are not enough clips to plant the faults in.
    command.add_argument("--sources", type=whole(4), default=24, metavar="N", help="source videos to draw (default 24)")
    command.add_argument("--seed", type=whole(0), default=7, metavar="N", help="seed of the drawing (default 7)")


_COMMANDS: CommandTable = {
    "plan": (
        "show what a run would do: groups, clips used, excluded and rejected, hours, bytes, shards",
        "gex plan recipe.toml",
        _plan_arguments,
    ),
    "run": (
        "expand a collection: build what is missing, check it, publish it, report it",
        "gex run recipe.toml",
        _run_arguments,
    ),
    "retry": (
        "show what was rejected and why; with --reason, try it again after a repair",
        "gex retry demo/output --reason media_missing",
        _retry_arguments,
    ),
    "status": ("show what an output holds and what is under way", "gex status s3://bucket/out", _status_arguments),
    "report": ("write the report of an output again", "gex report demo/output", _report_arguments),
    "shards": (
        "look into shards, ours or any WebDataset: list, show, find, count, compare, verify",
        "gex shards verify demo/output",
        add_shard_commands,
    ),
    "demo": ("draw a small corpus of moving shapes and expand it", "gex demo", _demo_arguments),
    **VALIDATION_COMMANDS,
    **MODEL_COMMANDS,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    module = import_module(f"gex_pipeline.cli.{arguments.command.replace('-', '_')}")
    with sigterm_as_interrupt() as told:
        try:
            code = int(module.command(arguments))
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            if _is_read():
                raise
            return _UNREAD
        except KeyboardInterrupt:
            if told.to_stop:
                return _fail("told to stop by SIGTERM; run the same command again to go on", _TRY_AGAIN)
            return _fail("stopped; run the same command again to go on", 130)
        except GexError as error:
            return _fail(str(error), _code_of(error))


def _code_of(error: GexError) -> int:
    for kind, code in ((RecipeError, 2), (BalanceError, 3), (GateError, 4)):
        if isinstance(error, kind):
            return code
    return _TRY_AGAIN if error.transient else 1


def _is_read() -> bool:
    """Whether there is still somebody behind the output; if not, what is left of it goes nowhere."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    if not output.poll(0):
        return True
    # else the interpreter tries once more when it ends, and prints what comes of it
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return False


def _fail(message: str, code: int) -> int:
    from gex_pipeline.progress import printable

    sys.stderr.write(printable(f"gex: {message}\n"))
    return code


if __name__ == "__main__":
    sys.exit(main())
