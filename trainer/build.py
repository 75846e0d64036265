"""The model of a training, as it starts: from a CLIP, from scratch, or from (parts of) a model trained before.

The same on all processes: weights that start at random come from the recipe's seed. Puts nothing on a device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gex_pipeline import storage
from gex_pipeline.errors import GexError, RecipeError
from trainer.classifier import VideoClassifier
from trainer.data_settings import GranularitySettings
from trainer.history import record_of
from trainer.model import VideoTextModel
from trainer.parts import WITHOUT_WEIGHTS, check_parts, settings_of_parts, take_weights
from trainer.pretrained import Pretrained, local_folder, publish_model
from trainer.processes import Processes
from trainer.run_data import RunData
from trainer.settings import PARTS, TOWERS, ModelSettings, Part, TowerSettings
from trainer.small_clip import write_small_clip
from trainer.tokens import TextTokenizer, load_tokenizer
from trainer.towers import ClipTowers, load_towers, towers_of
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
    granularities: Mapping[str, GranularitySettings] = field(default_factory=dict)
    """Those of the model that it starts from, whether this training goes on with them or not; none of a module that
    begins anew, which knows none of them."""
    told: tuple[str, ...] = ()
    """Sentences for a person on what became of the model that it starts from."""

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
    if start is None:
        model, tokenizer, settings = _fresh(recipe, data, processes)
    elif recipe.start_from_parts is None:
        model, tokenizer, settings = start.model, start.tokenizer, start.settings
    else:
        model, tokenizer, settings = _in_parts(start, recipe, data, processes)
    image_px = model.image_tower.image_px
    if image_px != recipe.data.image_size_px:
        raise RecipeError(f"data.image_size_px is {recipe.data.image_size_px}, the image tower reads {image_px}")
    module: nn.Module = model
    if recipe.task == "classification":
        module = VideoClassifier(model, data.classes())
        module.freeze_what_rests()
    config = _clip_config(model)
    if start is None:
        return Built(module, model, tokenizer, settings, config)
    parts = recipe.start_from_parts or PARTS
    told = _tell_parts(recipe) + _begin_head(module, start, parts)
    known = start.granularities if {"video_iam", "text_iam"} <= set(parts) else {}
    return Built(module, model, tokenizer, settings, config, tuple(record_of(start.trained)), known, told)


def _tell_parts(recipe: TrainRecipe) -> tuple[str, ...]:
    taken = recipe.start_from_parts
    if taken is None:
        return ()
    return (f"of {recipe.start_from} only {', '.join(taken)} {'is' if len(taken) == 1 else 'are'} taken",)


def _begin_head(module: nn.Module, start: Pretrained, parts: Sequence[Part]) -> tuple[str, ...]:
    """Start a head where the trained one is, if there are both; what to tell where that one is left."""
    if start.classifier is None or "head" not in parts:
        return ()
    if isinstance(module, VideoClassifier):
        return _start_head(module, start.classifier)
    num_classes = len(start.classifier.class_names)
    return (
        f"the head of the model that this starts from ({num_classes} classes) is left: a contrastive training has none",
    )


def _start_head(classifier: VideoClassifier, trained: VideoClassifier) -> tuple[str, ...]:
    """Start a head where a trained one is; what to tell where that one is for other classes and is left."""
    names = classifier.class_names
    if set(names) != set(trained.class_names):
        return (f"a new head: the model's classes are others ({len(trained.class_names)} there, {len(names)} here)",)
    rows = trained.labels_of(names)
    with torch.no_grad():
        classifier.head.weight.copy_(trained.head.weight[rows])
        classifier.head.bias.copy_(trained.head.bias[rows])
    return ()


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
    towers = own.pop("towers", {})
    said = {*own, *(f"towers.{key}" for key in towers)}
    if recipe.start_from_parts is not None:
        # what is said of the others does not concern this model; of what comes along a change is refused later
        own, towers = {}, {key: value for key, value in towers.items() if f"towers.{key}" in WITHOUT_WEIGHTS}
    elif said - WITHOUT_WEIGHTS:
        raise RecipeError(
            "start_from and [model] contradict each other: a model that is trained already brings its settings along; "
            f"leave [model] out, but for {', '.join(sorted(WITHOUT_WEIGHTS))}"
        )
    found = Pretrained.from_pretrained(recipe.start_from or "", changes={**own, "towers": towers})
    found.model.bound_logit_scale()  # a bound that is lower now: beyond it there is no gradient
    found.model.train()
    return found


def _in_parts(
    start: Pretrained, recipe: TrainRecipe, data: RunData, processes: Processes
) -> tuple[VideoTextModel, TextTokenizer, ModelSettings]:
    """A new model by the recipe with some parts, and their settings, of a trained one."""
    parts = recipe.start_from_parts or ()
    check_parts(start, parts)
    settings = settings_of_parts(recipe.model, start.settings, parts)
    if set(parts) & set(TOWERS):
        try:
            model, tokenizer = VideoTextModel(settings, _towers(start, parts, settings)), start.tokenizer
        except ValueError as error:
            raise RecipeError(f"[model] does not fit the towers of {recipe.start_from!r}: {error}") from error
    else:
        model, tokenizer, _ = _fresh(recipe.model_copy(update={"model": settings}), data, processes)
    take_weights(model, start.model, parts)
    model.bound_logit_scale()
    return model.train(), tokenizer, settings


def _towers(start: Pretrained, parts: Sequence[Part], settings: ModelSettings) -> ClipTowers:
    """The towers that are taken; their CLIP as it was before is loaded where something else begins from it."""
    image, text = start.model.image_tower, start.model.text_tower
    if set(TOWERS) <= set(parts) and settings.iam.value_init == "random":
        return ClipTowers(image, text, torch.empty(0), torch.empty(0))  # nothing starts at a projection
    fresh = _clip_before(start.model, settings.towers)
    return replace(
        fresh,
        image=image if "image_tower" in parts else fresh.image,
        text=text if "text_tower" in parts else fresh.text,
    )


def _clip_before(model: VideoTextModel, towers: TowerSettings) -> ClipTowers:
    """The CLIP that a trained model began with, random where that one was."""
    from transformers import CLIPModel

    if towers.shape is not None or towers.weights == "random":
        return towers_of(CLIPModel(_clip_config(model)), towers)
    try:
        return load_towers(towers)
    except (OSError, ValueError) as error:
        raise GexError(_cannot_load(towers, error)) from error


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
    with processes.writing():
        if processes.is_first and not begun:
            with storage.scratch_folder("gex-clip-") as folder:
                try:
                    size_px, activation = recipe.data.image_size_px, recipe.model.towers.activation
                    write_small_clip(folder, shape, data.texts(), size_px, activation)
                except ValueError as error:
                    raise RecipeError(f"model.towers.shape: {error}") from error
                publish_model(folder, uri)
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
    why = str(error).strip().splitlines()[0].rstrip(".")
    if not isinstance(error, OSError):  # it is there, and says what is wrong with it
        return f"CLIP {towers.clip!r} cannot be used: {why}"
    return (
        f"CLIP {towers.clip!r} cannot be loaded: {why}. Give a folder with a CLIP in [model.towers] clip, or a table "
        "[model.towers.shape] to train one from scratch"
    )
