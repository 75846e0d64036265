"""The model of a training, as it starts: from a CLIP, from scratch, or from a model that was trained before.

The same on all processes: weights that start at random come from the recipe's seed. Puts nothing on a device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gex_pipeline import storage
from gex_pipeline.errors import GexError, RecipeError
from trainer.classifier import VideoClassifier
from trainer.history import record_of
from trainer.model import VideoTextModel
from trainer.pretrained import Pretrained, local_folder, publish_model
from trainer.processes import Processes
from trainer.run_data import RunData
from trainer.settings import ModelSettings, TowerSettings
from trainer.small_clip import write_small_clip
from trainer.tokens import TextTokenizer, load_tokenizer
from trainer.towers import load_towers
from trainer.train_recipe import RECIPE, TrainRecipe


@dataclass(frozen=True)
class Built:
    """What is trained, and what feeds it."""

    module: nn.Module
    """The model, or the classifier around it."""
    model: VideoTextModel
    tokenizer: TextTokenizer
    settings: ModelSettings
    clip_config: Any
    earlier: tuple[Mapping[str, Any], ...] = ()
    """The trainings of the model that it starts from, oldest first."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of a classifier."""
        return self.module.class_names if isinstance(self.module, VideoClassifier) else ()


def build(recipe: TrainRecipe, data: RunData, processes: Processes) -> Built:
    """The model as the recipe says, in 32-bit floats on the CPU.

    Raises:
        GexError: the CLIP or the model to start from cannot be loaded; RecipeError: they do not fit the recipe.
    """
    torch.manual_seed(recipe.seed)
    start = _started(recipe) if recipe.start_from else None
    model, tokenizer, settings = (
        (start.model, start.tokenizer, start.settings) if start else _fresh(recipe, data, processes)
    )
    image_px = model.image_tower.image_px
    if image_px != recipe.data.image_size_px:
        raise RecipeError(f"data.image_size_px is {recipe.data.image_size_px}, the image tower reads {image_px}")
    module: nn.Module = model
    if recipe.task == "classification":
        module = VideoClassifier(model, data.classes())
        module.freeze_what_rests()
    earlier = tuple(record_of(start.trained)) if start else ()
    return Built(module, model, tokenizer, settings, _clip_config(model), earlier)


def _fresh(
    recipe: TrainRecipe, data: RunData, processes: Processes
) -> tuple[VideoTextModel, TextTokenizer, ModelSettings]:
    towers = recipe.model.towers
    with _clip_folder(recipe, data, processes) as folder:
        if folder is not None:
            towers = towers.model_copy(update={"clip": str(folder), "weights": "random"})
        try:
            model = VideoTextModel(recipe.model, load_towers(towers))
            return model, load_tokenizer(towers), recipe.model
        except (OSError, ValueError) as error:
            raise GexError(_cannot_load(recipe.model.towers, error)) from error


def _started(recipe: TrainRecipe) -> Pretrained:
    """A trained model; of the recipe's own settings only what can differ is taken."""
    own = recipe.model.model_dump(exclude_unset=True)
    frozen = own.get("towers", {}).pop("frozen", None)
    if any(own.values()):
        raise RecipeError(
            "start_from and [model] contradict each other: a model that is trained already brings its settings along; "
            "leave [model] out, but for towers.frozen"
        )
    found = Pretrained.from_pretrained(recipe.start_from or "", frozen=frozen)
    found.model.train()
    return found


@contextmanager
def _clip_folder(recipe: TrainRecipe, data: RunData, processes: Processes) -> Iterator[Path | None]:
    """The CLIP that is made for this training, on this machine; none where a checkpoint is used."""
    shape = recipe.model.towers.shape
    if shape is None:
        yield None
        return
    uri = recipe.place("clip")
    # one that lies there without a recipe is left of a training that never began, maybe over other texts
    begun = storage.exists(recipe.place(RECIPE)) and storage.exists(storage.join(uri, "config.json"))
    if processes.is_first and not begun:
        with storage.scratch_folder("gex-clip-") as folder:
            try:
                write_small_clip(folder, shape, data.texts(), recipe.data.image_size_px, recipe.model.towers.activation)
            except ValueError as error:
                raise RecipeError(f"model.towers.shape: {error}") from error
            publish_model(folder, uri)
    processes.wait()
    with local_folder(uri) as folder:
        yield folder


def _clip_config(model: VideoTextModel) -> Any:
    """The configuration of the towers in use, as a checkpoint has it."""
    from transformers import CLIPConfig

    return CLIPConfig(
        text_config=model.text_tower.encoder.config.to_dict(),
        vision_config=model.image_tower.encoder.config.to_dict(),
        projection_dim=model.image_tower.projection_dim,
    )


def _cannot_load(towers: TowerSettings, error: Exception) -> str:
    why = str(error).strip().splitlines()[0]
    return (
        f"CLIP {towers.clip!r} cannot be loaded: {why} Give a folder with a CLIP in [model.towers] clip, or a table "
        "[model.towers.shape] to train one from scratch"
    )
