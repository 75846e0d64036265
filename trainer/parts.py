"""Parts of a trained model in a new one: which settings come along with a part, and its weights.

A part is a child of the model, or a classifier's head. What is not taken begins anew by the recipe. The towers
themselves, which need a CLIP to be made, are another file's, and so is the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from gex_pipeline.errors import RecipeError
from gex_pipeline.settings_errors import explain
from trainer.model import VideoTextModel
from trainer.pretrained import Pretrained
from trainer.settings import PARTS, TOWERS, IamSettings, ModelSettings, Part, TowerSettings

WITHOUT_WEIGHTS = frozenset(
    (
        "max_logit_scale",
        "towers.class_token",
        "towers.frozen",
        "towers.long_text",
        "towers.mask_padding",
        "towers.max_windows",
    )
)
"""Keys of ``[model]`` that can be said of a trained model: no weight depends on them, or on what they mean."""

_POSITIONS = ("iam.temporal_position", "iam.num_temporal_positions")
_FIRST_VALUES = ("iam.base_init", "iam.value_init")  # of what begins anew, whatever was trained before
_OF_TOWERS = tuple(key for name in TowerSettings.model_fields if (key := f"towers.{name}") not in WITHOUT_WEIGHTS)
_OF_IAMS = (
    "shared_base",
    *(key for name in IamSettings.model_fields if (key := f"iam.{name}") not in (*_POSITIONS, *_FIRST_VALUES)),
)
_SETTINGS_OF: dict[Part, tuple[str, ...]] = {
    "image_tower": _OF_TOWERS,
    "text_tower": _OF_TOWERS,
    "video_iam": _OF_IAMS,
    "text_iam": _OF_IAMS,
    "temporal_position": _POSITIONS,
    "logit_scale": ("initial_temperature",),
    "head": ("iam.dim",),
}
"""What a part is: it comes along with its weights."""


def check_parts(start: Pretrained, parts: Sequence[Part]) -> None:
    """Refuse parts that a trained model does not have.

    Raises:
        RecipeError: the first of them, and those there are.
    """
    lacking = {"head"} if start.classifier is None else set()
    if start.model.temporal_position is None:
        lacking.add("temporal_position")
    for part in parts:
        if part in lacking:
            there = ", ".join(one for one in PARTS if one not in lacking)
            raise RecipeError(f"start_from_parts names {part!r}, which the model of start_from lacks; it has {there}")


def settings_of_parts(own: ModelSettings, start: ModelSettings, parts: Sequence[Part]) -> ModelSettings:
    """The settings of a new model with these parts of a trained one.

    Of towers all settings are those of `start`, which has what the recipe says anew of them already.

    Raises:
        RecipeError: the recipe says something else of a part than it is, or the settings contradict each other.
    """
    tables = own.model_dump()
    for part in parts:
        for key in _SETTINGS_OF[part]:
            there, here = _value(start, key), _value(own, key)
            if _is_said(own, key) and there != here:
                raise RecipeError(
                    f"start_from_parts and [model] contradict each other: {part} brings its settings along, and "
                    f"{key} is {_shown(there)} there and {_shown(here)} here; leave it out"
                )
            table, _, name = key.rpartition(".")
            (tables[table] if table else tables)[name] = there
    if set(parts) & set(TOWERS):
        tables["towers"] = start.towers.model_dump()
    try:
        return ModelSettings.model_validate(tables)
    except ValidationError as error:
        raise RecipeError(explain(error, ModelSettings, "model.")) from error


def take_weights(model: VideoTextModel, start: VideoTextModel, parts: Sequence[Part]) -> None:
    """Copy the weights of these parts but for towers and head, after all shapes are compared.

    Raises:
        RecipeError: a weight has another shape, or is in one of the models only; the first of them.
    """
    copied = [part for part in parts if part not in (*TOWERS, "head")]
    targets, weights = _tensors(model, copied), _tensors(start, copied)
    for name in [*targets, *weights]:
        here, there = (tuple(of[name].shape) if name in of else None for of in (targets, weights))
        if here != there:
            raise RecipeError(
                f"start_from_parts does not fit [model]: {name} has shape {there} in the model of start_from and "
                f"{here} here; name the towers as well, or a [model.towers] with features of the same width"
            )
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(weights[name])


def _tensors(model: VideoTextModel, parts: Sequence[str]) -> dict[str, Tensor]:
    # a base that both branches share is under both names
    tensors: dict[str, Tensor] = model.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in tensors.items() if name.partition(".")[0] in parts}


def _value(settings: ModelSettings, key: str) -> Any:
    table, _, name = key.rpartition(".")
    return getattr(getattr(settings, table) if table else settings, name)


def _is_said(settings: ModelSettings, key: str) -> bool:
    table, _, name = key.rpartition(".")
    return name in (getattr(settings, table) if table else settings).model_fields_set


def _shown(value: Any) -> str:
    return "a table" if isinstance(value, BaseModel) else repr(value)
