"""``gex train``: a training in this process, or in several under Ray Train."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from gex_pipeline.cli.show import say
from gex_pipeline.errors import MissingExtraError


def command(arguments: argparse.Namespace) -> int:
    """Train, or go on."""
    for package in ("torch", "transformers", "safetensors"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "train")
    from trainer.processes import joined
    from trainer.train import train
    from trainer.train_recipe import load_train_recipe, recipe_over

    place = arguments.recipe
    recipe = load_train_recipe(place) if Path(place).suffix == ".toml" else recipe_over(place)
    with joined() as processes:
        outcome = train(recipe, processes, say)
    say(outcome.describe())
    return 0
