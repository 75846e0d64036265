"""Where models and chat templates lie that a file names by a relative path: counted from that file's folder.

A setting stays as it was written in what is stored, shown and hashed, so the same files in another folder are the same
recipe; only whoever is about to open a model asks here. A name without a folder of that name below the file's is left
as it is: a hub id, the name of a template of ours, or a path from the working directory. Opens nothing.
"""

from __future__ import annotations

from pathlib import Path

from gex_pipeline.recipe import Recipe
from gex_pipeline.summarize.chat_template import is_file_name
from gex_pipeline.summarize.settings import SummarizerSettings
from gex_pipeline.validate.settings import MINILM, ScorerSettings


def summarizer_of(recipe: Recipe, granularity: str) -> SummarizerSettings:
    """The summarizer of a granularity, ready to be used."""
    return placed_summarizer(recipe.granularity[granularity].summarizer, recipe.base)


def scores_of(recipe: Recipe) -> ScorerSettings:
    """The scores of a recipe, ready to be used."""
    return placed_scores(recipe.scores, recipe.base)


def placed_summarizer(settings: SummarizerSettings, base: str) -> SummarizerSettings:
    """The settings with model and template as absolute paths, where `base` has them."""
    if settings.backend != "vllm":
        return settings  # a model is a name on the server then
    template = settings.chat_template
    if template is not None and is_file_name(template) and (file := _below(base, template)).is_file():
        template = str(file)
    return settings.model_copy(update={"model": _placed(settings.model, base), "chat_template": template})


def placed_scores(settings: ScorerSettings, base: str) -> ScorerSettings:
    """The settings with models as absolute paths, where `base` has them."""
    names = ("sentence_model", "bertscore_model", "clip_model")
    return settings.model_copy(update={name: _placed(getattr(settings, name), base) for name in names})


def _placed(model: str | None, base: str) -> str | None:
    if model is None or model == MINILM or not (folder := _below(base, model)).is_dir():
        return model
    return str(folder)


def _below(base: str, path: str) -> Path:
    """The path from `base`; an absolute one, or one that names a home, as it is."""
    return Path(base).absolute() / Path(path).expanduser()
