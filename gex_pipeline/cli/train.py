"""``gex train``: train, or go on; or print a recipe to begin with."""

from __future__ import annotations

import argparse
import sys

from gex_pipeline.cli.show import say, say_now
from gex_pipeline.errors import RecipeError
from gex_pipeline.progress import printable


def command(arguments: argparse.Namespace) -> int:
    """Train, or print a recipe."""
    if arguments.template is not None:
        from trainer.train_recipe import template

        say(template(arguments.template).rstrip())
        return 0
    if arguments.recipe is None:
        raise RecipeError("nothing to train on: name a training recipe or a published data set")
    from gex_pipeline.stages.models import train_model

    outcome = train_model(arguments.recipe, say_now)
    if outcome.stopped_by:
        sys.stderr.write(printable(f"gex: {outcome.describe()}\n"))
    else:
        say(outcome.describe())
    return outcome.exit_code
