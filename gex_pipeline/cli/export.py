"""``gex export``: a checkpoint of a training as a model of its own."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from gex_pipeline.cli.show import say, say_json, table
from gex_pipeline.stages.models import require_train_extra

if TYPE_CHECKING:
    from trainer.export import Kept, TrainingOutput


def command(arguments: argparse.Namespace) -> int:
    """Show the checkpoints, or make a model of one."""
    require_train_extra()
    from trainer.export import TrainingOutput

    training = TrainingOutput(arguments.training)
    if arguments.out is None:
        _show(training, arguments.json)
        return 0
    which = arguments.checkpoint or ("best" if training.recipe.checkpoints.best else "latest")
    end = training.export(training.step_of(which), arguments.out)
    if arguments.json:
        say_json({"model": end.uri, "step": end.num_steps, "figures": end.figures})
    else:
        say(f"the model after {end.num_steps} steps is at {end.uri}")
    return 0


def _show(training: TrainingOutput, as_json: bool) -> None:
    kept, figure = training.kept(), training.recipe.checkpoints.best
    if as_json:
        say_json({"checkpoints": [{"step": one.step, "best": one.is_best, "figures": one.figures} for one in kept]})
        return
    if not kept:
        say(f"{training.recipe.output} has no checkpoint")
        return
    table(["steps", figure or "figure", ""], [_row(one, figure) for one in kept], numbers=(0, 1))
    say(f"gex export {training.recipe.output} --checkpoint {kept[-1].step} -o FOLDER makes a model of one")


def _row(one: Kept, figure: str | None) -> list[str]:
    value = one.figures.get(figure) if figure else None
    return [str(one.step), "-" if value is None else f"{value:.4g}", "best" if one.is_best else ""]
