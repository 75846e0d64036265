"""A training of a few weights with everything that a checkpoint must bring back: all generators, moments, an average.

Two ranks of it in processes of their own; what they find is saved by rank.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from gex_pipeline.errors import GexError, TransientError
from trainer.checkpoint import Checkpoints, Progress, TrainingState
from trainer.ema import Ema
from trainer.optim import GuardedOptimiser
from trainer.optim_settings import OptimSettings
from trainer.processes import joined

NUM_STEPS = 12
NUM_RANKS = 2
SEED = 7


class Tiny(nn.Module):
    """Dropout, a buffer that changes, one weight under two names, one that never has a gradient."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.dropout = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(width)
        self.second = nn.Linear(width, 1)
        self.tied = self.second
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x_BC: torch.Tensor) -> torch.Tensor:
        return self.tied(self.norm(self.dropout(self.first(x_BC))))


class Training:
    """What a loop holds."""

    def __init__(self, init_seed: int = 0, *, width: int = 8, ema: bool = True, max_nonfinite_steps: int = 10) -> None:
        torch.manual_seed(init_seed)
        random.seed(init_seed)
        np.random.seed(init_seed)
        self.model = Tiny(width)
        settings = OptimSettings(max_nonfinite_steps=max_nonfinite_steps, precision="fp32")
        names = dict(self.model.named_parameters())
        towers = [names.pop("first.weight")]
        groups = [
            {"name": "towers_decay", "params": towers, "lr": 0.01, "weight_decay": 0.2},
            {"name": "rest_no_decay", "params": list(names.values()), "lr": 0.05, "weight_decay": 0.0},
        ]
        self.optimiser = GuardedOptimiser(groups, settings, num_steps=NUM_STEPS)
        self.ema = Ema(self.model, 0.75) if ema else None
        self.state = TrainingState(self.model, self.optimiser.adamw, self.ema)

    def steps(self, first: int, last: int) -> list[float]:
        """Losses of steps `first` to `last`, excluded."""
        losses = []
        for step in range(first, last):
            rows = torch.linspace(-1, 1, 24).reshape(4, 6) * (step + 1)
            x = rows + torch.randn(4, 6) + random.gauss(0, 1) + float(np.random.standard_normal())
            loss = (self.model(x) - 1).square().mean()
            loss.backward()
            losses.append(self.optimiser.step(step, loss).loss)
            if self.ema is not None:
                self.ema.update()
        return losses

    def progress(self, step: int, **rest: object) -> Progress:
        return Progress(step, SEED, {"name": "tiny"}, self.optimiser.counters(), **rest)

    def everything(self) -> dict[str, torch.Tensor]:
        """All numbers that training changes, and the next one of every generator."""
        found = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimiser.adamw.state.get(parameter, {}).items():
                found[f"{name}/{key}"] = value.clone()
        if self.ema is not None:
            found |= {f"ema/{name}": tensor.clone() for name, tensor in self.ema.state_dict().items()}
        draws = [random.random(), random.gauss(0, 1), np.random.standard_normal(), torch.rand(()).item()]
        return found | {"draws": torch.tensor(draws, dtype=torch.float64)}


def run_ranks(folder: Path) -> list[dict[str, torch.Tensor]]:
    """Start two processes, wait for them, and read what they found."""
    torch.multiprocessing.spawn(_one_rank, args=(str(folder),), nprocs=NUM_RANKS)
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(NUM_RANKS)]


def _one_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=NUM_RANKS)
    try:
        found = {f"guard/{name}": tensor for name, tensor in _guarded(rank).items()}
        found |= {f"resume/{name}": tensor for name, tensor in _resumed(rank, folder).items()}
        with joined({}) as processes:
            found["gathered"] = processes.gathered([{"key": f"sample {rank}"}] * (2 * rank))
            found["made"] = processes.once_a_machine(lambda: {"by": rank})
            found["not made"] = _error_of(lambda: processes.once_a_machine(_fail))
        torch.save(found, Path(folder) / f"rank-{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _fail() -> None:
    raise TransientError(f"the store is away for rank {dist.get_rank()}")


def _error_of(call: Callable[[], object]) -> str:
    try:
        call()
    except GexError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _guarded(rank: int) -> dict[str, torch.Tensor]:
    """Steps 0 and 2 are whole; in step 1 the loss of rank 1 is not finite, though its gradient is; then twice more."""
    weight = nn.Parameter(torch.zeros(2))
    settings = OptimSettings(max_nonfinite_steps=2)
    optimiser = GuardedOptimiser([{"params": [weight], "lr": 0.1, "weight_decay": 0.0}], settings, num_steps=10)
    found, losses = {}, []
    for step, broken in enumerate([False, True, False, True, True]):
        loss = weight.sum() + rank + (math.inf if broken and rank == 1 else 0.0)
        loss.backward()
        try:
            losses.append(optimiser.step(step, loss).loss)
        except GexError as error:
            found["stopped_at"] = torch.tensor(step)
            found["says_steps_3_to_4"] = torch.tensor("no step from 3 to 4" in str(error))
        found[f"after_{step}"] = weight.detach().clone()
    return found | {"losses": torch.tensor(losses), "skipped": torch.tensor(optimiser.num_skipped)}


def _resumed(rank: int, folder: str) -> dict[str, torch.Tensor]:
    """Ranks draw other numbers, and their losses here are their own; weights of rank 0 count."""
    checkpoints = Checkpoints(f"{folder}/checkpoints")
    whole = Training()
    derive = torch.Generator().manual_seed(rank)
    torch.manual_seed(int(torch.randint(1000, (), generator=derive)))
    whole.steps(0, 3)
    checkpoints.save(whole.state, whole.progress(3))
    expected_draws = torch.rand(3)
    dist.barrier()
    resumed = Training(5)
    progress = checkpoints.resume(resumed.state)
    assert progress is not None
    return {
        "expected_draws": expected_draws,
        "draws": torch.rand(3),
        "step": torch.tensor(progress.step),
        "first.weight": resumed.model.first.weight.detach(),
    }
