"""The commands of ``gex`` that judge texts: their arguments, and what they say of themselves."""

from __future__ import annotations

import argparse
from pathlib import Path

from gex_pipeline.cli.parsing import CommandTable, number, whole


def _assess_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", type=Path, help="tasks and candidates (TOML)")
    command.add_argument("-o", "--out", metavar="FOLDER", help="where to write (default: assessment- and FILE's name)")
    command.add_argument("--tasks", type=whole(1), metavar="N", help="only so many, chosen by the seed of the file")
    command.add_argument("--json", action="store_true", help="print the figures as JSON")


def _validate_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("output", help="folder or URI of a data set")
    command.add_argument("--clip", metavar="MODEL", help="CLIP model: a directory or a hub id (default: the recipe's)")
    command.add_argument(
        "--videos", type=whole(1), default=100, metavar="N", help="videos of every granularity (default 100)"
    )
    command.add_argument(
        "--texts", type=whole(1), default=1000, metavar="N", help="pairs of a long and a short text (default 1000)"
    )
    command.add_argument("--seed", type=_seed, default=0, metavar="N", help="of the choice and the picture (default 0)")
    command.add_argument(
        "--max-psi",
        type=number(above=0),
        metavar="X",
        help="drift: stability index that is an alarm (default: the recipe's)",
    )
    command.add_argument("--no-report", action="store_true", help="do not write the report again")
    command.add_argument("--json", action="store_true", help="print the figures as JSON")


def _seed(text: str) -> int:
    from gex_pipeline.validate.settings import MAX_SEED  # here: --help loads no pydantic

    return whole(0, MAX_SEED)(text)


VALIDATION_COMMANDS: CommandTable = {
    "assess-summarisers": (
        "compare summarisers on tasks with references: ROUGE, BERTScore and seconds a task, as the paper's table 7",
        "gex assess-summarisers assessment.toml",
        _assess_arguments,
    ),
    "validate": (
        "measure a published output with models, beside the paper's table 8, and its drift; 5 when it drifts",
        "gex validate demo/output --clip openai/clip-vit-base-patch32",
        _validate_arguments,
    ),
}
