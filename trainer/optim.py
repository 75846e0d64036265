"""One step of the optimiser: a loss whose gradients are there, and the number of the step in; changed weights out.

Learning rates are a function of the number of the step, so a training that goes on needs no more than that number
and Adam's moments. A step whose loss or gradient is not finite changes nothing on any rank: ranks agree by one
all-reduce, which also makes the mean of their losses, and is the one time a step that the host waits for the device.
A parameter without a gradient (``None``, not zero) is neither updated nor decayed.

Does no backward pass, and knows nothing of data or checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from gex_pipeline.errors import GexError
from trainer.optim_settings import OptimSettings
from trainer.sharded import whole


class StepFigures(NamedTuple):
    """What a step was; the same on all ranks."""

    loss: float
    """Mean over ranks."""
    grad_norm: float
    """Before clipping."""
    learning_rates: dict[str, float]
    """By the name of the group."""
    skipped: bool


class GuardedOptimiser:
    """AdamW with its schedule, clipping, and the guard against what is not finite."""

    def __init__(self, groups: Sequence[dict[str, Any]], settings: OptimSettings, *, num_steps: int) -> None:
        """`groups` are those of ``trainer.model.parameter_groups``; `num_steps` is where the schedule ends.

        Raises:
            GexError: nothing is left to train, or weights are held in half precision.
        """
        self.settings, self.num_steps = settings, num_steps
        self.adamw = _new_adamw(groups, settings)
        self.num_skipped = 0
        self.num_skipped_in_row = 0
        self._highest = [float(group["lr"]) for group in self.adamw.param_groups]

    def step(self, step: int, loss: Tensor) -> StepFigures:
        """Update the weights and clear the gradients; `step` counts from 0 over all epochs.

        Raises:
            GexError: too many steps in a row were not finite; on all ranks at once.
        """
        self._set_learning_rates(step)
        parameters = [p for group in self.adamw.param_groups for p in group["params"] if p.grad is not None]
        norm = whole(get_total_norm([p.grad for p in parameters])).to(loss.device)
        mean_loss, grad_norm, finite = self._agree(loss.detach().mean(), norm)
        if finite:
            if self.settings.max_grad_norm is not None:
                clip_grads_with_norm_(parameters, self.settings.max_grad_norm, norm)
            self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        self._count(step, finite, mean_loss, grad_norm)
        rates = {str(group.get("name", at)): float(group["lr"]) for at, group in enumerate(self.adamw.param_groups)}
        return StepFigures(mean_loss, grad_norm, rates, not finite)

    def counters(self) -> dict[str, int]:
        """What a checkpoint keeps beside Adam's moments."""
        return {"num_skipped": self.num_skipped, "num_skipped_in_row": self.num_skipped_in_row}

    def restore_counters(self, counters: dict[str, int]) -> None:
        """Take up what `counters` gave."""
        self.num_skipped = counters["num_skipped"]
        self.num_skipped_in_row = counters["num_skipped_in_row"]

    def _set_learning_rates(self, step: int) -> None:
        settings = self.settings
        share = learning_rate_share(
            step, num_steps=self.num_steps, warmup_steps=settings.warmup_steps, final_share=settings.final_share
        )
        for group, highest in zip(self.adamw.param_groups, self._highest, strict=True):
            group["lr"] = highest * share

    def _agree(self, loss: Tensor, norm: Tensor) -> tuple[float, float, bool]:
        """Mean loss of all ranks, the norm here, and whether both are finite on every rank."""
        finite = loss.isfinite() & norm.isfinite()
        figures = torch.stack([loss.double(), finite.double()])
        num_ranks = rank_and_size()[1]
        if num_ranks > 1:
            dist.all_reduce(figures)
        loss_sum, num_finite, grad_norm = torch.cat([figures, norm.double()[None]]).tolist()
        return loss_sum / num_ranks, grad_norm, num_finite == num_ranks

    def _count(self, step: int, finite: bool, loss: float, grad_norm: float) -> None:
        if finite:
            self.num_skipped_in_row = 0
            return
        self.num_skipped += 1
        self.num_skipped_in_row += 1
        if self.num_skipped_in_row >= self.settings.max_nonfinite_steps:
            first = step - self.num_skipped_in_row + 1
            raise GexError(
                f"no step from {first} to {step} had a finite loss and gradient on all ranks (the last one: mean loss "
                f"{loss}, gradient norm {grad_norm}); look at the data of these steps, or lower the learning rates "
                f"and go on from a checkpoint before step {first}"
            )


def learning_rate_share(step: int, *, num_steps: int, warmup_steps: int = 0, final_share: float = 0.0) -> float:
    """Share of the highest learning rate that a step (from 0) takes: a rise in equal parts, then half a cosine.

    Raises:
        ValueError: the step is negative.
    """
    if step < 0:
        raise ValueError(f"step is {step}; steps count from 0")
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min((step - warmup_steps) / max(num_steps - warmup_steps, 1), 1.0)
    return final_share + (1 - final_share) * (1 + math.cos(math.pi * progress)) / 2


def autocast(settings: OptimSettings, device: torch.device) -> Any:
    """The region in which the forward pass and the loss run."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.precision == "bf16")


def computes_in_bf16(device: torch.device) -> bool:
    """Whether a device is a GPU that has bf16 and does not emulate it."""
    return device.type == "cuda" and bool(torch.cuda.is_bf16_supported(including_emulation=False))


def check_precision(settings: OptimSettings, device: torch.device) -> None:
    """Refuse bf16 where it would be emulated, which is slower than 32 bits.

    Raises:
        GexError: the device cannot compute in bf16.
    """
    if settings.precision == "bf16" and device.type == "cuda" and not computes_in_bf16(device):
        name = torch.cuda.get_device_name(device)
        raise GexError(f'{name} only emulates bf16, which is slower than 32 bits; set optim.precision to "fp32"')


def rank_and_size() -> tuple[int, int]:
    """Number of this process and how many there are; 0 of 1 where none were started."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def _new_adamw(groups: Sequence[dict[str, Any]], settings: OptimSettings) -> torch.optim.AdamW:
    parameters = [parameter for group in groups for parameter in group["params"]]
    if not parameters:
        raise GexError("no parameter is left to train; the towers and everything else are frozen")
    smallest = min(float(group["lr"]) for group in groups)
    for parameter in parameters:
        if parameter.dtype in (torch.bfloat16, torch.float16):
            raise GexError(
                f"weights are held in {str(parameter.dtype).removeprefix('torch.')}; hold them in float32 and set "
                f"precision = 'bf16' to compute in half precision: a step of Adam at the learning rate {smallest:g} is "
                "less than half the distance between two neighbouring numbers of that type, so weights would not move"
            )
    on_cuda = all(parameter.is_cuda for parameter in parameters)
    way = {"fused": True} if on_cuda else {"foreach": True}
    return torch.optim.AdamW(groups, betas=settings.betas, eps=settings.eps, **way)
