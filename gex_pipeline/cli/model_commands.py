"""The commands of ``gex`` that train a model and use it: their arguments, and what they say of themselves."""

from __future__ import annotations

import argparse

from gex_pipeline.cli.parsing import CommandTable


def _train_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", help="training recipe (TOML), or a published data set: the paper's recipe over it")


MODEL_COMMANDS: CommandTable = {
    "train": (
        "train the model of the paper on a published data set; run it again to go on where it stopped",
        "gex train training.toml",
        _train_arguments,
    ),
}
