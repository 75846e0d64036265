"""Checkpoints of a training: model, average, optimiser, random numbers and place in; a folder ``step-000000123`` out.

Tensors are safetensors, everything else JSON; a folder is there as a whole or not at all (see checkpoint_files). One
training writes to one place.

All ranks call `save` and `resume`. Rank 0 writes what is the same on all of them, and the random states of all. A
training that goes on with as many ranks is equal to the bit, as far as its device computes the same twice (a CPU does;
some of torch's kernels for GPUs add in no fixed order); with another number the random states are derived from
seed, step and rank, and everything else is restored. Weights are matched by name and shape. The model is handed over
without its wrapper, and all trained parameters are its own.
"""

from __future__ import annotations

import logging
import math
import secrets
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.storage_failures import explained
from trainer.checkpoint_files import (
    INDEX,
    DamagedCheckpointError,
    fill_tensors,
    publish_folder,
    read_index,
    read_tensors,
    verify,
    write_index,
    write_tensors,
)
from trainer.ema import Ema
from trainer.optim import rank_and_size
from trainer.random_state import derive_random_state, gather_random_states, set_random_state
from trainer.sharded import put, spread_like, whole_tensors

MODEL, EMA, OPTIMISER, RNG = "model.safetensors", "ema.safetensors", "optimiser.safetensors", "rng.safetensors"
_NONE, _ALL_DAMAGED = -1, -2
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingState:
    """What changes while training; `load` and `resume` change it in place."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    ema: Ema | None = None

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.model.parameters()).device


@dataclass(frozen=True)
class Progress:
    """Where a training stands. `recipe` and everything else can be written as JSON."""

    step: int
    """Steps that are done, and so the number of the next one, with which the data go on."""
    seed: int
    recipe: dict[str, Any] = field(default_factory=dict)
    """A checkpoint that is copied away from its training says what it is of."""
    counters: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    """What was measured at this step; those that are not finite are not kept."""


class Checkpoints:
    """The checkpoints of one training under one path or URI."""

    def __init__(self, root: str, *, keep: int = 3, metric: str | None = None, higher_is_better: bool = True) -> None:
        """Kept are the newest `keep` and the one that is best by `metric`."""
        if keep < 1:
            raise ValueError(f"keep is {keep}; at least the newest checkpoint is kept")
        self.root, self.keep, self.metric, self.higher_is_better = root.rstrip("/"), keep, metric, higher_is_better

    def uri_of(self, step: int) -> str:
        """Where the checkpoint of a step lies."""
        return storage.join(self.root, f"step-{step:09d}")

    def steps(self) -> list[int]:
        """Steps of which there is a checkpoint, damaged ones included."""
        found = [_step_of(file.uri) for file in storage.list_files(f"{self.root}/step-*/{INDEX}")]
        return sorted(step for step in found if step is not None)

    def latest(self) -> int | None:
        """The newest step whose checkpoint is whole, told in a line where newer ones are not; None: there are none.

        Raises:
            DamagedCheckpointError: none of them is whole.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                verify(self.uri_of(step))
            except DamagedCheckpointError as error:
                _log.warning("%s; taking the checkpoint before it", error)
            else:
                return step
        if steps:
            raise DamagedCheckpointError(f"no checkpoint under {self.root!r} is whole; remove them to start anew")
        return None

    def best(self) -> int | None:
        """The step with the best value of the metric, the earliest of equal ones; None: none has one."""
        values: list[tuple[float, int]] = []
        for step in self.steps() if self.metric else []:
            try:
                value = read_index(self.uri_of(step))["progress"]["metrics"].get(self.metric)
            except DamagedCheckpointError:
                continue
            if value is not None:
                values.append((value if self.higher_is_better else -value, -step))
        return -max(values)[1] if values else None

    def save(self, state: TrainingState, progress: Progress) -> str:
        """Write a checkpoint on rank 0 and remove those that are no longer kept; its URI.

        Checkpoints of later steps are of a course that training has left (it went on from an earlier one, or they are
        damaged), and are removed too.

        Raises:
            GexError: it cannot be written.
        """
        uri = self.uri_of(progress.step)
        rank, world_size = rank_and_size()
        optimiser, numbers = _optimiser_state(state)
        tensors = {RNG: gather_random_states(state.device)}
        for file, part in ((MODEL, named_tensors(state.model)), (OPTIMISER, optimiser)):
            tensors[file] = whole_tensors(part, keep=rank == 0)
        if state.ema is not None:
            tensors[EMA] = whole_tensors(state.ema.state_dict(), keep=rank == 0)
        if rank == 0:
            average = {} if state.ema is None else {"average": {"num_updates": state.ema.num_updates}}
            with explained(uri):
                self._write(progress.step, tensors, _index_content(progress, world_size, numbers) | average)
                self._remove_old(progress.step)
        return uri

    def _write(self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], content: dict[str, Any]) -> None:
        uri, local = self.uri_of(step), storage.is_local(self.root)
        if local:
            storage.local_path(self.root).mkdir(parents=True, exist_ok=True)
        beside = storage.local_path(self.root) if local else None
        # elsewhere than beside the others, the scratch folder says its own failures
        with storage.scratch_folder(".checkpoint-", beside) as scratch, explained(uri) if local else nullcontext():
            folder = scratch / storage.name_of(uri)
            folder.mkdir()
            for name, part in tensors.items():
                write_tensors(part, folder / name)
            write_index(folder, content)
            self._remove(step)
            publish_folder(folder, uri)

    def resume(self, state: TrainingState) -> Progress | None:
        """Load the newest whole checkpoint, the same on all ranks; None: there is none at all.

        Raises:
            GexError: all checkpoints are damaged, or the newest whole one is of another model.
        """
        chosen = self._choose() if rank_and_size()[0] == 0 else _NONE
        if rank_and_size()[1] > 1:
            step = torch.tensor([chosen], dtype=torch.int64, device=state.device)
            dist.broadcast(step, src=0)
            chosen = int(step.item())
        if chosen == _ALL_DAMAGED:
            raise DamagedCheckpointError(f"no checkpoint under {self.root!r} is whole; remove them to start anew")
        return None if chosen == _NONE else self.load(chosen, state)

    def load(self, step: int, state: TrainingState) -> Progress:
        """Load the checkpoint of a step; its bytes are taken as they are (see `verify`).

        Raises:
            GexError: there is none, or it is of another model.
        """
        uri = self.uri_of(step)
        index = read_index(uri)
        if EMA in index["files"] and "average" not in index:
            raise GexError(f"{uri!r} does not say how often its average was moved; this version cannot go on from it")
        # versions before wrote the step twice
        progress = Progress(**{one.name: index["progress"][one.name] for one in fields(Progress)})
        fill_tensors(named_tensors(state.model), storage.join(uri, MODEL), "weights")
        _load_optimiser(state, uri, index["optimiser"])
        _load_average(state, uri, index)
        rank, world_size = rank_and_size()
        if index["world_size"] == world_size:
            states = read_tensors(storage.join(uri, RNG))
            set_random_state({name: rows[rank].clone() for name, rows in states.items()}, state.device)
        else:
            derive_random_state(progress.seed, progress.step, rank)
        return progress

    def _choose(self) -> int:
        """What rank 0 tells the others."""
        try:
            step = self.latest()
        except DamagedCheckpointError:
            return _ALL_DAMAGED
        return _NONE if step is None else step

    def _remove_old(self, newest: int) -> None:
        steps = self.steps()
        for step in {_step_of(file.uri) for file in storage.list_files(f"{self.root}/step-*/*")}.difference(steps):
            if step is not None:
                self._remove(step)  # an upload that ended before its index
        kept = {*[step for step in steps if step <= newest][-self.keep :], self.best()}
        for step in steps:
            if step > newest:
                _log.warning(
                    "%r is later than step %d, from which training went on; removed", self.uri_of(step), newest
                )
            if step > newest or step not in kept:
                self._remove(step)
        if storage.is_local(self.root):
            for left_over in storage.local_path(self.root).glob(".checkpoint-*"):
                shutil.rmtree(left_over, ignore_errors=True)

    def _remove(self, step: int) -> None:
        uri = self.uri_of(step)
        if storage.is_local(uri):
            if storage.local_path(uri).exists():
                # out of sight in one step, then away
                hidden = storage.local_path(self.root) / f".checkpoint-{secrets.token_hex(4)}"
                storage.local_path(uri).rename(hidden)
                shutil.rmtree(hidden)
            return
        storage.remove(storage.join(uri, INDEX))
        for file in storage.list_files(f"{uri}/*"):
            storage.remove(file.uri)


def load_weights(uri: str, model: nn.Module, *, averaged: bool = False) -> None:
    """Fill a model from a checkpoint, with the averages of its weights where there are any; for use or fine-tuning.

    Raises:
        GexError: the checkpoint is damaged, is of another model, or has no averages.
    """
    index = verify(uri)
    tensors = named_tensors(model)
    if averaged and EMA not in index["files"]:
        raise GexError(f"{uri!r} has no average of weights; it was trained without ema_decay")
    fill_tensors(tensors, storage.join(uri, MODEL), "weights")
    if averaged:
        averages = read_tensors(storage.join(uri, EMA))
        for name, average in averages.items():
            put(tensors[name], average)


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers that are kept, each once under its first name."""
    first: dict[int, str] = {}
    tensors: dict[str, Tensor] = model.state_dict(keep_vars=True)
    for name, tensor in tensors.items():
        first.setdefault(id(tensor), name)
    return {name: tensors[name].detach() for name in first.values()}


def _step_of(uri: str) -> int | None:
    name = uri.split("/")[-2]
    return int(name[5:]) if name[5:].isdigit() else None


def _index_content(progress: Progress, world_size: int, optimiser: dict[str, float]) -> dict[str, Any]:
    finite = {name: float(value) for name, value in progress.metrics.items() if math.isfinite(value)}
    return {
        "progress": asdict(progress) | {"metrics": finite},
        "world_size": world_size,
        "optimiser": optimiser,
        "torch": str(torch.__version__),
    }


def _trained(state: TrainingState) -> list[tuple[str, nn.Parameter]]:
    """The optimiser's parameters in its order, with the model's names."""
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    return [(names[id(p)], p) for group in state.optimiser.param_groups for p in group["params"]]


def _optimiser_state(state: TrainingState) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Tensors, and plain numbers, by name of parameter and of state."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, float] = {}
    for name, parameter in _trained(state):
        for key, value in state.optimiser.state.get(parameter, {}).items():
            kind: dict[str, Any] = tensors if isinstance(value, Tensor) else numbers
            kind[f"{name}/{key}"] = value
    return tensors, numbers


def _load_optimiser(state: TrainingState, uri: str, numbers: dict[str, float]) -> None:
    """Moments by name; learning rates and the like stay those of this training."""
    trained = _trained(state)
    found: dict[str, dict[str, Any]] = {}
    for path, value in [*read_tensors(storage.join(uri, OPTIMISER)).items(), *numbers.items()]:
        name, key = path.rsplit("/", 1)
        found.setdefault(name, {})[key] = value
    shapes = {name: parameter.shape for name, parameter in trained}
    for name, entry in found.items():
        if name not in shapes:
            raise GexError(f"{uri!r} does not fit this training: it has an optimiser state of {name}, which is frozen")
        if any(isinstance(value, Tensor) and value.ndim and value.shape != shapes[name] for value in entry.values()):
            raise GexError(f"{uri!r} does not fit this training: its optimiser state of {name} has another shape")
    entries = {place: _as_spread(found[name], p) for place, (name, p) in enumerate(trained) if name in found}
    state.optimiser.load_state_dict({"state": entries, "param_groups": state.optimiser.state_dict()["param_groups"]})


def _as_spread(entry: dict[str, Any], parameter: nn.Parameter) -> dict[str, Any]:
    """The state of one parameter, its moments spread as the parameter is."""
    return {
        key: spread_like(value, parameter) if isinstance(value, Tensor) and value.ndim else value
        for key, value in entry.items()
    }


def _load_average(state: TrainingState, uri: str, index: dict[str, Any]) -> None:
    if state.ema is None:
        if EMA in index["files"]:
            _log.warning("%r has an average of weights, which this training does not go on with", uri)
    elif EMA in index["files"]:
        fill_tensors(state.ema.state_dict(), storage.join(uri, EMA), "averages")
        state.ema.num_updates = index["average"]["num_updates"]
    else:
        _log.warning("%r has no average of weights; it starts at the weights of this step", uri)
        weights = named_tensors(state.model)
        state.ema.load_state_dict({name: weights[name] for name in state.ema.state_dict()})
        state.ema.num_updates = 0
