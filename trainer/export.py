"""A checkpoint of a training made into a model: the best one, or one of a training that is not at its end."""

from __future__ import annotations

import json
from dataclasses import dataclass

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from trainer.build import build
from trainer.checkpoint import Checkpoints, load_weights
from trainer.checkpoint_files import DamagedCheckpointError, read_index
from trainer.processes import joined
from trainer.publish import End, publish_at
from trainer.run_data import open_data
from trainer.train_recipe import RECIPE, TrainRecipe


@dataclass(frozen=True)
class Kept:
    """A checkpoint that is there: its steps, whether it is the best one, and what was measured then."""

    step: int
    is_best: bool
    figures: dict[str, float]


class TrainingOutput:
    """The checkpoints in the output of a training, wherever that lies by now."""

    def __init__(self, uri: str) -> None:
        """Raises GexError: there is no training."""
        place = storage.absolute(uri).rstrip("/")
        recipe = storage.join(place, RECIPE)
        if not storage.exists(recipe):
            raise GexError(f"{uri!r} is no output of a training: there is no {RECIPE} in it")
        try:
            content = TrainRecipe.model_validate(json.loads(storage.read_bytes(recipe)))
        except ValueError as error:
            raise GexError(f"{recipe!r} is no recipe that this version knows: {error}") from error
        self.recipe = content.model_copy(update={"output": place})
        wanted = self.recipe.checkpoints
        self._checkpoints = Checkpoints(
            self.recipe.place("checkpoints"), metric=wanted.best, higher_is_better=wanted.higher_is_better
        )

    def kept(self) -> list[Kept]:
        """Those that can be read, by step."""
        best, found = self._checkpoints.best(), []
        for step in self._checkpoints.steps():
            try:
                figures = read_index(self._checkpoints.uri_of(step))["progress"]["metrics"]
            except DamagedCheckpointError:
                continue
            found.append(Kept(step, step == best, figures))
        return found

    def step_of(self, which: str) -> int:
        """The step of "best", "latest" or a number.

        Raises:
            GexError: there is no such checkpoint.
        """
        steps = self._checkpoints.steps()
        if which == "best":
            if self.recipe.checkpoints.best is None:
                raise GexError("the training has no checkpoints.best, by which one would be the best; name a step")
            step = self._checkpoints.best()
        elif which == "latest":
            step = self._checkpoints.latest()
        else:
            step = int(which) if which.isdecimal() and int(which) in steps else None
        if step is None:
            there = ", ".join(map(str, steps)) or "none at all"
            raise GexError(f"{self.recipe.output!r} has no checkpoint {which!r}; there are: {there}")
        return step

    def export(self, step: int, folder: str) -> End:
        """Write the model of a step, its averaged weights where it has them, into a folder of its own.

        Raises:
            GexError: the checkpoint is damaged, the training's data are gone, or the folder holds something.
        """
        target = storage.absolute(folder).rstrip("/")
        if next(iter(storage.list_files(storage.join(target, "*"))), None) is not None:
            raise GexError(f"{folder!r} holds something already; name another folder")
        uri = self._checkpoints.uri_of(step)
        with joined() as processes, open_data(self.recipe.data, self.recipe.task) as data:
            built = build(self.recipe, data, processes)
            load_weights(uri, built.module, averaged=self.recipe.optim.ema_decay is not None)
            end = End(target, step, read_index(uri)["progress"]["metrics"])
            publish_at(end, self.recipe, built, data, processes)
        return end
