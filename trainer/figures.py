"""The figures of a training between two lines: what each step was, gathered into one set of numbers.

Losses, shares of truncated texts and of samples without a negative are by granularity, rates over all; counts of
samples are those of all processes, and damaged ones are named. Utilisation is told where the operations of a step and
the peak of the device are known.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch

from trainer.build import Built
from trainer.classifier import VideoClassifier
from trainer.flops import PEAK_FLOPS_PER_S, model_flops
from trainer.optim import StepFigures
from trainer.processes import Processes
from trainer.record import Figure, Rates, peak_memory
from trainer.sharded import whole
from trainer.steps import Prepared
from trainer.telling import WITHOUT_NEGATIVES
from trainer.train_recipe import TrainRecipe

# what a device's name holds, the more telling words first
_KNOWN = (
    ("H200", "H200"),
    ("H100 PCIe", "H100 PCIe"),
    ("H100 NVL", "H100 NVL"),
    ("H100", "H100 SXM"),
    ("A100", "A100"),
)


class StepLog:
    """Takes every step and gives the figures since the last time."""

    def __init__(self, recipe: TrainRecipe, built: Built, processes: Processes) -> None:
        self.recipe, self.built, self.device = recipe, built, processes.device
        self.rates = Rates(num_devices=processes.world_size, peak_flops_per_s=_peak(recipe, processes.device))
        self._processes = processes
        self._last: StepFigures | None = None
        self._start_anew()

    def add(self, batch: Prepared, figures: StepFigures) -> None:
        """Count one step."""
        num_own, num_frames = batch.frames_BT3HW.shape[:2]
        num_samples = self.recipe.data.batch_size
        self.rates.count(num_samples=num_samples, num_frames=num_samples * num_frames)
        self._flops += num_own * _flops_a_sample(self.recipe, self.built, batch)
        if not figures.skipped:
            self._losses[batch.granularity].append(figures.loss)
        self._truncated[batch.granularity] += batch.num_truncated
        self._alone[batch.granularity] += batch.num_without_negatives
        self._seen[batch.granularity] += num_own
        self._damaged += [{"granularity": batch.granularity, **one._asdict()} for one in batch.damaged]
        self._num_skipped += int(figures.skipped)
        self._last = figures

    def figures(self, epoch: int) -> dict[str, Figure]:
        """All figures since the last call; all processes call it."""
        found: dict[str, Figure] = {"epoch": epoch}
        found |= {f"loss/{name}": sum(losses) / len(losses) for name, losses in sorted(self._losses.items())}
        last = self._last
        if last is not None:
            found["grad_norm"] = last.grad_norm
            for part in ("towers", "rest"):
                rates = [rate for name, rate in last.learning_rates.items() if name.startswith(part)]
                if rates:
                    found[f"learning_rate/{part}"] = rates[0]
        if not isinstance(self.built.module, VideoClassifier):
            found["temperature"] = 1.0 / self._scale()
        names = sorted(self.recipe.data.granularities)
        kinds = (self._truncated, self._alone, self._seen)
        own = [self._flops, len(self._damaged), *(kind[name] for name in names for kind in kinds)]
        flops, num_damaged, *counts = self._processes.sum(own)
        self.rates.count(flops=flops)
        found |= self.rates.figures()
        found["num_damaged"], found["num_skipped_steps"] = int(num_damaged), self._num_skipped
        if num_damaged:
            found["damaged"] = self._processes.gathered(self._damaged)
        for number, name in enumerate(names):
            num_truncated, num_alone, num_seen = counts[3 * number : 3 + 3 * number]
            if num_seen and not isinstance(self.built.module, VideoClassifier):
                found[f"truncated_share/{name}"] = num_truncated / num_seen
                found[f"{WITHOUT_NEGATIVES}{name}"] = num_alone / num_seen
        found |= peak_memory(self.device)
        self._start_anew()
        return found

    def _scale(self) -> float:
        with torch.no_grad():
            return float(whole(self.built.model.logit_scale).exp().item())

    def _start_anew(self) -> None:
        self._losses: defaultdict[str, list[float]] = defaultdict(list)
        self._truncated: defaultdict[str, int] = defaultdict(int)
        self._alone: defaultdict[str, int] = defaultdict(int)
        self._seen: defaultdict[str, int] = defaultdict(int)
        self._damaged: list[dict[str, str]] = []
        self._num_skipped = 0
        self._flops = 0.0
        self._last = None


def _flops_a_sample(recipe: TrainRecipe, built: Built, batch: Prepared) -> float:
    """Operations of training on one sample; recomputation is not counted, as it does no work of the model's.

    All texts of a process's batch have as many windows as its longest, and its tower computes them all.
    """
    reading = recipe.data.granularities[batch.granularity]
    found = model_flops(
        built.settings,
        built.clip_config,
        num_frames=reading.num_frames,
        n_iter_video=reading.n_iter_video,
        n_iter_text=reading.n_iter_text,
        num_windows=1 if batch.texts is None else batch.texts.ids_BWL.shape[1],
    )
    if isinstance(built.module, VideoClassifier):
        towers = (1 if built.settings.towers.frozen else 3) * found.image_tower
        return float(towers + 3 * found.video_iam)
    return float(found.training)


def _peak(recipe: TrainRecipe, device: Any) -> float | None:
    """Operations a second that a device can do at most, as the recipe or its vendor says."""
    if recipe.record.peak_flops_per_s is not None or device.type != "cuda" or recipe.optim.precision != "bf16":
        return recipe.record.peak_flops_per_s
    name = torch.cuda.get_device_name(device)
    return next((PEAK_FLOPS_PER_S[known] for words, known in _KNOWN if words in name), None)
