"""Trainings of a few thousand weights over the numbered output: recipes for them, and what they leave, read back.

Every key can be changed by a table of the recipe's form; `None` takes a key away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from tests.trainer.outputs import IMAGE_PX
from trainer.processes import joined
from trainer.train import Outcome, train
from trainer.train_recipe import TrainRecipe, make_train_recipe

ROOT = Path(__file__).parents[2]
TINY_MODEL: dict[str, Any] = {
    "towers": {
        "shape": {"patch_px": 16, "width": 16, "num_layers": 1, "num_heads": 2, "max_tokens": 11, "num_merges": 50}
    },
    "iam": {"num_embeddings": 4, "dim": 16, "num_heads": 2, "mlp_ratio": 4, "num_temporal_positions": 4},
}
GRANULARITIES: dict[str, Any] = {"LVLT": {"num_frames": 2}, "LVST": {"num_frames": 1}, "IT": {}}
Tables = Mapping[str, Any]
LONGER: Tables = {
    "data": {"granularities": {"LVST": {"num_frames": 1}, "IT": {}}, "held_out_share": 0.0},
    "optim": {"epochs": 6},
    "checkpoints": {"every_steps": 3, "keep": 2},
}
"""A change: a training that can be killed, stopped or disturbed on its way."""
NUM_LONGER_STEPS = 6 * 8  # of two granularities of 18 samples, in batches of four


def tables_of(dataset: Path | str, output: Path | str, *changes: Tables) -> dict[str, Any]:
    """A recipe's tables: batches of four, three steps of each granularity an epoch, two epochs over 18 sources."""
    data = {
        "dataset": str(dataset),
        "granularities": GRANULARITIES,
        "batch_size": 4,
        "image_size_px": IMAGE_PX,
        "num_workers": 0,
        "held_out_share": 0.25,
    }
    optim = {"epochs": 2, "precision": "fp32", "learning_rate_towers": 1e-3, "learning_rate": 1e-3}
    tables = {"name": "tiny", "output": str(output), "model": TINY_MODEL, "data": data, "optim": optim}
    tables["record"] = {"every_steps": 1}
    for change in changes:
        tables = _changed(tables, change)
    return tables


def tiny_recipe(dataset: Path | str, output: Path | str, *changes: Tables) -> TrainRecipe:
    """Those tables as a recipe."""
    return make_train_recipe(tables_of(dataset, output, *changes))


def write_recipe(file: Path, tables: Tables) -> Path:
    """Those tables as a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in tables.items()), encoding="utf-8")
    return file


def train_here(recipe: TrainRecipe) -> tuple[Outcome, list[str]]:
    """Train in this process; how it ended, and what it said."""
    said: list[str] = []
    with joined({}) as processes:
        return train(recipe, processes, said.append), said


def log_of(output: Path) -> list[dict[str, Any]]:
    """The lines of figures; a last one that is being written is left out."""
    file = output / "log.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def steps_of(output: Path) -> list[dict[str, Any]]:
    """The lines of figures of steps, without those of evaluations."""
    return [line for line in log_of(output) if "samples_per_s" in line]


def weights_of(output: Path) -> dict[str, Tensor]:
    """The weights of the model that a training exported."""
    return load_file(output / "model" / "model.safetensors")


def checkpoint_of(output: Path, step: int) -> dict[str, Tensor]:
    """The weights of a checkpoint."""
    return load_file(output / "checkpoints" / f"step-{step:09d}" / "model.safetensors")


def largest_difference(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Of all numbers of two sets of weights with the same names."""
    assert first.keys() == second.keys()
    return max(float((tensor.double() - second[name].double()).abs().max()) for name, tensor in first.items())


def _changed(table: Tables, change: Tables) -> dict[str, Any]:
    changed = dict(table)
    for key, value in change.items():
        old = changed.get(key)
        # granularities are a set: a change of it names all of them
        nested = isinstance(old, dict) and isinstance(value, Mapping) and key != "granularities"
        changed[key] = _changed(old, value) if nested else value
    return {key: value for key, value in changed.items() if value is not None}


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
