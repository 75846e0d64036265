"""What is said of a trained model in a README: what it is, on what it was trained, how it is used, what it can do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from trainer.build import Built
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
        class_names=built.class_names,
        num_parameters=sum(parameter.numel() for parameter in built.module.parameters()),
        dim=built.settings.iam.dim,
        towers=_towers(recipe, built),
    )
    return card


def _towers(recipe: TrainRecipe, built: Built) -> str:
    towers = built.settings.towers
    if recipe.start_from:
        return f"those of {recipe.start_from}, {'frozen' if towers.frozen else 'trained on'}"
    if towers.shape is not None:
        return "a CLIP from scratch, with a vocabulary learned from the texts"
    start = "from scratch" if towers.weights == "random" else "from its weights"
    return f"{towers.clip}, {start}, {'frozen' if towers.frozen else 'trained'}"
