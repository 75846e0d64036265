"""The output of a training: that it is this training's, and the trained model with its card at the end."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from gex_pipeline import __version__, storage
from gex_pipeline.errors import RecipeError
from gex_pipeline.shards.manifest import read_manifest
from trainer.build import Built
from trainer.checkpoint import named_tensors
from trainer.checkpoint_files import INDEX
from trainer.held_out import Figures
from trainer.history import EARLIER
from trainer.model_card import model_card
from trainer.pretrained import CONFIG, PRECISION, ModelFiles, publish_model, write_model
from trainer.processes import Processes
from trainer.run_data import RunData
from trainer.sharded import whole_tensors
from trainer.train_recipe import RECIPE, TrainRecipe

# what may differ when a training goes on: where and how it runs, and what it tells
_FREE = ("name", "output", "launch", "record", "checkpoints", "evaluation", "parallel")
_FREE_OF_DATA = ("num_workers", "prefetch_batches", "worker_timeout_s", "max_damaged_share")


def check_output(recipe: TrainRecipe, processes: Processes) -> TrainRecipe:
    """Refuse an output in which another training has come to a checkpoint; the recipe with its snapshot settled.

    The order of the samples follows from their numbers, so a training goes on over the snapshot it began with, whatever
    has been published since.

    Raises:
        RecipeError: it holds another training.
    """
    problem = ""
    if processes.is_first:
        before = _begun(recipe)
        recipe = _settled(recipe, before)
        if before is not None:
            problem = _difference(before, recipe)
    problem, snapshot = processes.broadcast((problem, recipe.data.snapshot))
    if problem:
        raise RecipeError(
            f"{recipe.output!r} holds a training with another recipe: {problem}; take another output, "
            "or put the recipe back to go on with it. To go on from its weights by another recipe: gex export "
            f'{recipe.output} --checkpoint latest -o M, then start_from = "M", without [model], in a recipe with '
            "another output; Adam's moments and the schedule begin anew"
        )
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"snapshot": snapshot})})


def begin_output(recipe: TrainRecipe, processes: Processes) -> None:
    """Write down the recipe of a training whose data and model are there.

    Raises:
        GexError: it cannot be written.
    """
    if processes.is_first:
        content = json.dumps(_content(recipe), indent=1).encode() + b"\n"
        storage.publish_bytes(content, recipe.place(RECIPE))


def publish_trained(recipe: TrainRecipe, built: Built, data: RunData, figures: Figures, processes: Processes) -> str:
    """Write the model as it is now; its place. All processes call it.

    Raises:
        GexError: it cannot be written.
    """
    end = End(recipe.place("model"), _num_steps(recipe, data), figures)
    publish_at(end, recipe, built, data, processes)
    return end.uri


@dataclass(frozen=True)
class End:
    """Where a model comes to lie, after how many steps it is the model, and what it can do then."""

    uri: str
    num_steps: int
    figures: Figures


def publish_at(end: End, recipe: TrainRecipe, built: Built, data: RunData, processes: Processes) -> None:
    """Write the model as it is now. All processes call it.

    Raises:
        GexError: it cannot be written.
    """
    tensors = whole_tensors(named_tensors(built.module), keep=processes.is_first)
    if processes.is_first:
        trained = _trained(end, recipe, built, data)
        files = ModelFiles(
            settings=built.settings,
            tokenizer=built.tokenizer,
            granularities={**built.granularities, **recipe.data.granularities},
            image_size_px=recipe.data.image_size_px,
            trained=trained,
            card=model_card(recipe, built, trained),
            class_names=built.class_names,
        )
        with storage.scratch_folder("gex-model-") as folder:
            write_model(tensors, built.clip_config, files, folder)
            publish_model(folder, end.uri)


def _trained(end: End, recipe: TrainRecipe, built: Built, data: RunData) -> dict[str, Any]:
    """What is said of the training, and of those before it, in the model's configuration."""
    annotations = recipe.data.annotations
    return {
        "name": recipe.name,
        "task": recipe.task,
        "data": annotations.kind if annotations else recipe.data.dataset,
        "annotations": annotations.model_dump(mode="json", exclude_none=True) if annotations else None,
        "snapshot": recipe.data.snapshot,
        "samples": {name: data.training.num_samples(name) for name in recipe.data.granularities},
        "held_out_share": recipe.data.held_out_share,
        "held_out_seed": recipe.data.held_out_seed,
        "num_steps": end.num_steps,
        "num_steps_in_all": _num_steps(recipe, data),
        "batch_size": recipe.data.batch_size,
        PRECISION: recipe.optim.precision,
        "averaged": recipe.optim.ema_decay is not None,
        "figures": end.figures,
        "start_from": recipe.start_from,
        "start_from_parts": recipe.start_from_parts,
        EARLIER: list(built.earlier),
        "software": {"gex": __version__},
    }


def _num_steps(recipe: TrainRecipe, data: RunData) -> int:
    """Of the whole training."""
    return recipe.optim.epochs * data.order.steps_per_epoch


def _begun(recipe: TrainRecipe) -> dict[str, Any] | None:
    """The recipe by which this output began; one that did not come to a checkpoint is as good as none, and goes."""
    uri = recipe.place(RECIPE)
    if not storage.exists(uri):
        return None
    has_checkpoint = next(iter(storage.list_files(recipe.place("checkpoints", "step-*", INDEX))), None) is not None
    if not has_checkpoint and not storage.exists(recipe.place("model", CONFIG)):
        storage.remove(uri)
        return None
    content: dict[str, Any] = json.loads(storage.read_bytes(uri))
    return content


def _settled(recipe: TrainRecipe, before: dict[str, Any] | None) -> TrainRecipe:
    """The recipe with the snapshot that it begins with, or began with, where it names none."""
    if recipe.data.dataset is None or recipe.data.snapshot is not None:
        return recipe
    if before is not None:
        snapshot = before["data"]["snapshot"]
    else:
        manifest = read_manifest(recipe.data.dataset)
        snapshot = manifest.snapshots[-1].snapshot if manifest is not None and manifest.snapshots else None
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"snapshot": snapshot})})


def _content(recipe: TrainRecipe) -> dict[str, Any]:
    """The recipe with its defaults; of the model where it starts from another one only what is said in their place."""
    content = recipe.model_dump(mode="json")
    if recipe.start_from is not None:
        content["model"] = recipe.model.model_dump(mode="json", exclude_unset=True)
    return content


def _difference(before: dict[str, Any], recipe: TrainRecipe) -> str:
    """The first key that decides what is trained and is another one; empty where there is none."""
    with suppress(ValidationError):  # a key that this version does not know: it is named
        before = _content(TrainRecipe.model_validate(before))  # a key that came since: its default was done then
    for path, old, new in _pairs(before, _content(recipe)):
        if path[0] in _FREE or (path[0] == "data" and path[-1] in _FREE_OF_DATA):
            continue
        if old != new:
            return f"{'.'.join(path)} is {old!r} there and {new!r} here"
    return ""


def _pairs(before: Any, now: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any, Any]]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        return [pair for key in keys for pair in _pairs(before.get(key), now.get(key), (*path, key))]
    return [(path, before, now)]
