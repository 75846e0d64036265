"""``gex shards``: the arguments of the shard tools. Loads nothing else until one of them is called."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from gex_pipeline.cli.parsing import add_command, number, whole

_TARGET = "an output (folder or URI), or tars of any WebDataset: paths, globs, ranges such as a-{000..012}.tar"
_Arguments = Callable[[argparse.ArgumentParser], None]


def _key(command: argparse.ArgumentParser) -> None:
    command.add_argument("key", help="a sample's key, or the beginning of one")


def _find(command: argparse.ArgumentParser) -> None:
    command.add_argument("predicate", help="an SQL condition over the columns of a sample")
    command.add_argument("--limit", type=whole(1), metavar="N", help="samples to print (default 20, with --json all)")


def _stats(command: argparse.ArgumentParser) -> None:
    command.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the histograms as a picture too")


def _sample(command: argparse.ArgumentParser) -> None:
    command.add_argument("num", type=whole(1), metavar="N", help="samples to pick")
    command.add_argument("--seed", type=int, default=0, help="seed of the choice (default 0)")
    _folder(command)


def _export(command: argparse.ArgumentParser) -> None:
    _key(command)
    _folder(command)


def _folder(command: argparse.ArgumentParser) -> None:
    command.add_argument("--to", type=Path, default=Path("samples"), metavar="FOLDER", help="default: samples")


def _sheet(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", type=Path, default=Path("sheet.png"), metavar="FILE.png", help="default: sheet.png")
    command.add_argument("--samples", type=whole(1), default=6, metavar="N", help="samples to show (default 6)")
    command.add_argument("--seed", type=int, default=0, help="seed of the choice (default 0)")
    command.add_argument("--where", metavar="PREDICATE", help="choose among the samples of this SQL condition")


def _verify(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--deep", action="store_true", help="decode every frame, compare each segment with its source clip"
    )
    command.add_argument("--jobs", type=whole(1), metavar="N", help="worker processes (default: one a core)")
    command.add_argument(
        "--ray", nargs="?", const="local", metavar="ADDRESS", help="run as a Ray job: a private Ray, or this cluster"
    )


def _browse(command: argparse.ArgumentParser) -> None:
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine)")
    command.add_argument("--port", type=whole(0, 65535), default=0, help="port to listen on (default 0: a free one)")
    command.add_argument("--open", action="store_true", help="open the page in a browser")


def _retire(command: argparse.ArgumentParser) -> None:
    command.add_argument("output", metavar="OUTPUT", help="folder or URI of a data set")
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--older-than-days", type=number(least=0), metavar="N", help="snapshots that were published before that"
    )
    which.add_argument("--snapshot", type=whole(0), action="append", metavar="N", help="this one; may be repeated")
    command.add_argument("--dry-run", action="store_true", help="say what would go, and change nothing")


def _none(_: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


_COMMANDS: dict[str, tuple[str, str, _Arguments]] = {
    "ls": ("list the shards: samples, bytes, hours, state", "ls demo/output", _none),
    "show": ("show one sample: texts, segments, scores, lineage", "show 19b165cf demo/output", _key),
    "find": (
        "find samples by an SQL condition",
        "find \"num_words > 20 AND scores['rouge1'] < 0.3\" demo/output",
        _find,
    ),
    "stats": ("count durations, words, scores, codecs", "stats demo/output --plot stats.png", _stats),
    "sample": ("write samples picked by chance out as files", "sample 5 demo/output --to look", _sample),
    "export": ("write one sample out as files", "export 19b165cf demo/output --to look", _export),
    "sheet": ("draw a contact sheet", "sheet demo/output --granularity LVLT --out sheet.png", _sheet),
    "browse": ("look through a data set on a local web page", "browse demo/output --open", _browse),
    "diff": ("compare two outputs, or two snapshots (OUTPUT@N)", "diff demo/output@0 demo/output@1", _none),
    "verify": (
        "check digests, texts, videos and joints; exit 1 when something is wrong",
        "verify demo/output",
        _verify,
    ),
    "retire": (
        "take old snapshots out of a data set: their shards are no longer listed, and removed",
        "retire demo/output --older-than-days 365 --dry-run",
        _retire,
    ),
}


def add_shard_commands(parser: argparse.ArgumentParser) -> None:
    """Add ``ls``, ``show`` and the others below ``gex shards``."""
    parser.epilog = "example:\n" + "\n".join(f"  gex shards {example}" for _, example, _ in _COMMANDS.values())
    tools = parser.add_subparsers(dest="tool", metavar="TOOL", required=True)
    for name, (text, example, arguments) in _COMMANDS.items():
        tool = add_command(tools, name, text, f"gex shards {example}")
        arguments(tool)
        if name == "retire":
            tool.add_argument("--json", action="store_true", help="print as JSON")
            continue
        if name == "diff":
            tool.add_argument("before", metavar="A", help="an output, OUTPUT@N for its snapshot N, or a tar")
            tool.add_argument("after", metavar="B", help="the other one")
        else:
            tool.add_argument("target", nargs="+", metavar="TARGET", help=_TARGET)
            tool.add_argument("--snapshot", type=whole(0), metavar="N", help="of an output: as it was at this snapshot")
        tool.add_argument("--granularity", metavar="G", help="of an output: only this granularity")
        tool.add_argument("--json", action="store_true", help="print as JSON")


def command(arguments: argparse.Namespace) -> int:
    """Run one tool."""
    return int(getattr(import_module("gex_pipeline.cli.shard_tools"), arguments.tool)(arguments))
