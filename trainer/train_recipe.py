"""One frozen tree from one TOML file: what is trained, on what, how, and where the results go.

Relative paths start from the recipe's folder. The paper's numbers need no lines. A table ``[model]`` may begin from a
shipped tree or a file (``settings = "iam-paper"``) and change keys of it. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gex_pipeline import storage
from gex_pipeline.errors import RecipeError
from gex_pipeline.settings_errors import check_no_credentials, explain, read_toml
from gex_pipeline.shards.manifest import read_manifest
from trainer.data_settings import PAPER_GRANULARITIES, DataSettings, Task
from trainer.optim_settings import OptimSettings
from trainer.run_settings import (
    CLASSIFICATION_FIGURES,
    RETRIEVAL_FIGURES,
    CheckpointSettings,
    EvaluationSettings,
    LaunchSettings,
    ParallelSettings,
    RecordSettings,
)
from trainer.settings import PARTS, ModelSettings, Part, read_model_settings

RECIPE = "recipe.json"
"""In the output of a training: the recipe by which it began."""
_PAPER_BATCH = 512
_PIECE = 64  # of that batch; so many videos of 32 frames fit into a GPU of 80 GB, as the templates say
_SHIPPED = Path(__file__).parent / "configs"


class TrainRecipe(BaseModel):
    """One training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="training", min_length=1)
    """Shown in the model card."""
    output: str = Field(min_length=1)
    """Folder or URI for checkpoints, figures and the model."""
    task: Task = "contrastive"
    """Videos against texts, or a linear head over the video branch; a sample's text is then the name of its class."""
    seed: int = Field(default=0, ge=0)
    """Of weights that start at random; the order of samples has its own, in `data`."""
    start_from: str | None = None
    """A trained model whose weights are the start: the output of a training, or an exported folder."""
    start_from_parts: tuple[Part, ...] | None = Field(default=None, min_length=1)
    """The parts whose weights are taken from there, everything else beginning anew by `model`; none: all parts."""
    mask_same_source: bool = True
    """Whether pairs of one source video are kept out of each other's negatives."""
    model: ModelSettings = ModelSettings()
    data: DataSettings
    optim: OptimSettings = OptimSettings()
    parallel: ParallelSettings = ParallelSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()
    record: RecordSettings = RecordSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    launch: LaunchSettings = LaunchSettings()

    @field_validator("start_from_parts")
    @classmethod
    def _in_one_order(cls, parts: tuple[Part, ...] | None) -> tuple[Part, ...] | None:
        # the order says nothing, and a training that goes on is not another one because of it
        return parts and tuple(part for part in PARTS if part in parts)

    @model_validator(mode="after")
    def _parts_are_of_a_start(self) -> Self:
        if self.start_from_parts and self.start_from is None:
            raise ValueError(
                "start_from_parts is set and start_from is not; name the trained model that the parts "
                f"({', '.join(self.start_from_parts)}) are taken from, or leave start_from_parts out"
            )
        if "head" in (self.start_from_parts or ()) and self.task != "classification":
            others = ", ".join(part for part in PARTS if part != "head")
            raise ValueError(
                f"start_from_parts names 'head', which only task = 'classification' has; this task's parts: {others}"
            )
        return self

    @model_validator(mode="after")
    def _evaluation_needs_held_out(self) -> Self:
        if self.evaluation.every_steps is not None and not self.data.held_out_share:
            raise ValueError("evaluation.every_steps is set and data.held_out_share is 0; hold some sources out")
        if self.checkpoints.best is not None and self.evaluation.every_steps is None:
            raise ValueError("checkpoints.best needs evaluation.every_steps: without it there is nothing to compare")
        figures = CLASSIFICATION_FIGURES if self.task == "classification" else RETRIEVAL_FIGURES
        known = [f"{name}/{figure}" for name in self.data.granularities for figure in figures]
        if self.checkpoints.best is not None and self.checkpoints.best not in known:
            raise ValueError(
                f"checkpoints.best is {self.checkpoints.best!r}; the evaluation of this task says {', '.join(known)}"
            )
        return self

    def place(self, *parts: str) -> str:
        """A file or folder of the output."""
        return storage.join(self.output, *parts)


def load_train_recipe(path: str | Path) -> TrainRecipe:
    """Read and check a recipe file.

    Raises:
        RecipeError: file, key, value found and what was expected.
    """
    content = read_toml(path, "training recipe")
    try:
        return make_train_recipe(content, Path(path).parent)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error


def make_train_recipe(content: Mapping[str, Any], base: Path = Path()) -> TrainRecipe:
    """Check the tables of a recipe and build the frozen tree, its paths absolute.

    Raises:
        RecipeError: key, value found and what was expected.
    """
    check_no_credentials(content)
    tables = dict(content)
    if isinstance(tables.get("model"), dict):
        tables["model"] = _model_table(tables["model"], base)
    try:
        return _located(TrainRecipe.model_validate(tables), base)
    except ValidationError as error:
        raise RecipeError(explain(error, TrainRecipe)) from error


def recipe_over(dataset_uri: str) -> TrainRecipe:
    """The paper's recipe over all granularities of a published data set, batches as large as its smallest one allows.

    The paper's main model was trained without IT; here it is trained on where it is published.

    Raises:
        GexError: nothing is published there; RecipeError: it has a granularity that the paper has not.
    """
    manifest = read_manifest(dataset_uri)
    if manifest is None:
        raise RecipeError(f"{dataset_uri!r} is neither a training recipe nor a published data set")
    sizes = {name: sum(shard.num_samples for shard in manifest.shards(name)) for name in manifest.granularity_names()}
    unknown = [name for name in sizes if name not in PAPER_GRANULARITIES]
    if unknown:
        raise RecipeError(
            f"{dataset_uri!r} has granularities the paper has no numbers for: {', '.join(unknown)}; write a training "
            "recipe with [data.granularities.NAME] num_frames, n_iter_video, n_iter_text"
        )
    smallest = min(sizes.values(), default=0)
    batch_size = _PAPER_BATCH
    while batch_size > max(smallest, 1):
        batch_size //= 2
    data = {"dataset": dataset_uri, "granularities": {name: {} for name in sizes}, "batch_size": batch_size}
    output = storage.absolute(dataset_uri).rstrip("/") + "-training"
    tables = {"name": f"{manifest.name} training", "output": output, "data": data}
    return make_train_recipe({**tables, "parallel": {"piece_size": _PIECE}})


def template(name: str) -> str:
    """The text of a recipe that comes with the package, to be edited.

    Raises:
        RecipeError: there is none of this name.
    """
    file = _SHIPPED / f"train-{name}.toml"
    if name not in template_names():
        raise RecipeError(
            f"no training recipe {name!r} comes with the package; there are {', '.join(template_names())}"
        )
    return file.read_text(encoding="utf-8")


def template_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(file.stem.removeprefix("train-") for file in _SHIPPED.glob("train-*.toml"))


def _model_table(table: dict[str, Any], base: Path) -> dict[str, Any]:
    """The table with what it begins from below it."""
    keys = dict(table)
    start = keys.pop("settings", None)
    if start is None:
        return keys
    try:
        settings = read_model_settings(base / start if str(start).endswith(".toml") else start)
    except (OSError, ValueError) as error:
        raise RecipeError(f"model.settings: {error}") from error
    # what is not written stays unset, so that a default is told from a wish
    return _merged(settings.model_dump(exclude_unset=True), keys)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _located(recipe: TrainRecipe, base: Path) -> TrainRecipe:
    """Relative paths from the recipe's folder; a CLIP is a hub id where there is no such folder."""
    folder = str(base.absolute())
    changes: dict[str, Any] = {
        "output": _absolute(recipe.output, folder),
        "data": recipe.data.located(lambda uri: _absolute(uri, folder)),
    }
    if recipe.start_from is not None:
        changes["start_from"] = _absolute(recipe.start_from, folder)
    clip = Path(folder, recipe.model.towers.clip)
    if clip.is_dir():
        towers = recipe.model.towers.model_copy(update={"clip": str(clip)})
        changes["model"] = recipe.model.model_copy(update={"towers": towers})
    return recipe.model_copy(update=changes)


def _absolute(uri: str, folder: str) -> str:
    return uri if "://" in uri or uri.startswith("/") else str(Path(folder, uri))
