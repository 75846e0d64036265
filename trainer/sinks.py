"""Where the figures of a training go: a recipe in, an open record out. The first process writes, the others do not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.run_lock import HoldLostError
from gex_pipeline.storage_failures import one_line
from trainer.curve import draw_curve
from trainer.processes import Processes
from trainer.record import WANDB_RUN, Beside, JsonLines, Lines, Record, Sink, TensorBoard, WeightsAndBiases
from trainer.telling import step_line
from trainer.train_recipe import TrainRecipe

LOG, CURVE, TENSORBOARD = "log.jsonl", "curve.svg", "tensorboard"
_TAKEN_UP = (LOG, WANDB_RUN)
_KEPT = (LOG, WANDB_RUN, TENSORBOARD)  # wandb's own files are its affair, and grow while they are read


@contextmanager
def open_record(
    recipe: TrainRecipe, processes: Processes, steps: range, say: Callable[[str], None]
) -> Iterator[Record]:
    """The sinks that the recipe names, for these steps; what was written of them before is cut off.

    Files of figures are local: for an output on an object store they are written here first, and copied there by
    `Record.keep` and when the training ends. Called before every checkpoint, `keep` sees to it that a training that is
    killed has the lines of all steps that it does not take again; those of later steps are cut off when it goes on.
    Where the output turns out to be another training's by now (`HoldLostError`), nothing more is copied or drawn there.

    Raises:
        GexError: a sink cannot be opened.
    """
    if not processes.is_first:
        yield Record([], every_steps=recipe.record.every_steps)
        return
    with _local_output(recipe) as folder:
        sinks = _sinks(recipe, folder, steps, say)
        record = Record(sinks, every_steps=recipe.record.every_steps, keep=partial(_publish, folder, recipe, _KEPT))
        try:
            yield record
        finally:
            record.close()
            if _is_ours():
                _draw(folder, say)


def _sinks(recipe: TrainRecipe, folder: Path, steps: range, say: Callable[[str], None]) -> list[Sink]:
    form = partial(step_line, num_steps=steps.stop)
    sinks: list[Sink] = [Lines(say, form), JsonLines(folder / LOG, next_step=steps.start)]
    if recipe.record.tensorboard:
        sinks.append(Beside("TensorBoard", TensorBoard(folder / TENSORBOARD, next_step=steps.start), say))
    if recipe.record.wandb_project:
        content = recipe.model_dump(mode="json")
        run = WeightsAndBiases(folder, recipe.record.wandb_project, recipe.name, content)
        sinks.append(Beside("Weights & Biases", run, say))
    return sinks


def _is_ours() -> bool:
    """Whether the output is still this training's, as far as the error says that ends it."""
    return not isinstance(sys.exception(), HoldLostError)


def _draw(folder: Path, say: Callable[[str], None]) -> None:
    """The picture of the figures, as well as can be."""
    try:
        if (picture := draw_curve(folder / LOG)) is not None:
            storage.publish_bytes(picture.encode(), str(folder / CURVE))
    except (GexError, OSError, ValueError) as error:
        say(f"warning: {CURVE} is not drawn: {one_line(error)}")


@contextmanager
def _local_output(recipe: TrainRecipe) -> Iterator[Path]:
    if storage.is_local(recipe.output):
        yield storage.local_path(recipe.output)
        return
    with storage.scratch_folder("gex-figures-") as folder:
        for name in _TAKEN_UP:
            if storage.exists(recipe.place(name)):
                (folder / name).write_bytes(storage.read_bytes(recipe.place(name)))
        try:
            yield folder
        finally:
            if _is_ours():
                _publish(folder, recipe)


def _publish(folder: Path, recipe: TrainRecipe, names: Sequence[str] | None = None) -> None:
    """Copy figures to an output on an object store: files and folders of these names, by default all."""
    if storage.is_local(recipe.output):
        return
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size):
        parts = file.relative_to(folder).parts
        if names is None or parts[0] in names:
            storage.publish_file(file, recipe.place(*parts))
