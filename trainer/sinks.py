"""Where the figures of a training go: a recipe in, an open record out. The first process writes, the others do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from gex_pipeline import storage
from trainer.curve import draw_curve
from trainer.processes import Processes
from trainer.record import WANDB_RUN, JsonLines, Lines, Record, Sink, TensorBoard, WeightsAndBiases
from trainer.telling import step_line
from trainer.train_recipe import TrainRecipe

LOG, CURVE = "log.jsonl", "curve.svg"


@contextmanager
def open_record(
    recipe: TrainRecipe, processes: Processes, steps: range, say: Callable[[str], None]
) -> Iterator[Record]:
    """The sinks that the recipe names, for these steps; what was written of them before is cut off.

    Files of figures are local: for an output on an object store they are written here first and copied there when the
    training ends, in whatever way.

    Raises:
        GexError: a sink cannot be opened.
    """
    if not processes.is_first:
        yield Record([], every_steps=recipe.record.every_steps)
        return
    with _local_output(recipe) as folder:
        next_step = steps.start
        form = partial(step_line, num_steps=steps.stop)
        sinks: list[Sink] = [Lines(say, form), JsonLines(folder / LOG, next_step=next_step)]
        if recipe.record.tensorboard:
            sinks.append(TensorBoard(folder / "tensorboard", next_step=next_step))
        if recipe.record.wandb_project:
            content = recipe.model_dump(mode="json")
            sinks.append(WeightsAndBiases(folder, recipe.record.wandb_project, recipe.name, content))
        record = Record(sinks, every_steps=recipe.record.every_steps)
        try:
            yield record
        finally:
            record.close()
            if (picture := draw_curve(folder / LOG)) is not None:
                (folder / CURVE).write_text(picture, encoding="utf-8")


@contextmanager
def _local_output(recipe: TrainRecipe) -> Iterator[Path]:
    if storage.is_local(recipe.output):
        yield storage.local_path(recipe.output)
        return
    with storage.scratch_folder("gex-figures-") as folder:
        for name in (LOG, WANDB_RUN):
            if storage.exists(recipe.place(name)):
                (folder / name).write_bytes(storage.read_bytes(recipe.place(name)))
        try:
            yield folder
        finally:
            for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size):
                storage.publish_file(file, recipe.place(*file.relative_to(folder).parts))
