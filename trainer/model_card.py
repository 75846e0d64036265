"""What is said of a trained model in a README: what it is, on what it was trained, how it is used, what it can do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from trainer.build import Built
from trainer.settings import PARTS, TOWERS
from trainer.train_recipe import TrainRecipe

_TEMPLATE = Path(__file__).parent / "configs" / "model-card.md.jinja"


def model_card(recipe: TrainRecipe, built: Built, trained: Mapping[str, Any]) -> str:
    """The card in Markdown, with the header that model hubs read."""
    # Markdown, not HTML: nothing is escaped
    environment = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)  # noqa: S701
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    card: str = template.render(
        recipe=recipe,
        trained=trained,
        granularities={**built.granularities, **recipe.data.granularities},
        class_names=built.class_names,
        num_parameters=sum(parameter.numel() for parameter in built.module.parameters()),
        dim=built.settings.iam.dim,
        towers=_towers(recipe, built),
    )
    return card


def _towers(recipe: TrainRecipe, built: Built) -> str:
    towers = built.settings.towers
    parts = recipe.start_from_parts or PARTS
    taken = [part.replace("_", " ") for part in TOWERS if recipe.start_from and part in parts]
    if len(taken) == len(TOWERS):
        return f"those of {recipe.start_from}, {'frozen' if towers.frozen else 'trained on'}"
    start = "from scratch" if towers.weights == "random" else "from its weights"
    if taken:
        other = "from scratch" if towers.shape is not None else f"of {towers.clip}, {start}"
        done = "frozen" if towers.frozen else "trained on"
        return f"the {taken[0]} of {recipe.start_from} and the other one {other}; both {done}"
    if towers.shape is not None:
        return "a CLIP from scratch, with a vocabulary learned from the texts"
    return f"{towers.clip}, {start}, {'frozen' if towers.frozen else 'trained'}"
