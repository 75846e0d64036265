"""Figures over the held-out sources while a training runs: all processes encode a share, the first one ranks.

Always the same samples of a granularity, those that ``gex eval`` takes, so figures can be compared. Every process makes
equally many calls of the model, which sharded weights need. Samples that cannot be read are left out and counted.
"""

# Tensors: B samples, V samples of all processes, D width.

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from trainer.build import Built
from trainer.classifier import VideoClassifier
from trainer.data_settings import GranularitySettings
from trainer.evaluate import Options, chosen_numbers
from trainer.evaluate_retrieval import retrieval_by_text
from trainer.metrics import accuracy
from trainer.optim import autocast
from trainer.processes import Processes
from trainer.run_data import RunData
from trainer.run_settings import CLASSIFICATION_FIGURES, RETRIEVAL_FIGURES
from trainer.sequence import Reading, SequenceBatch, SequenceLoader
from trainer.train_recipe import TrainRecipe

Figures = dict[str, float]


def evaluate_held_out(recipe: TrainRecipe, data: RunData, built: Built, processes: Processes) -> Figures:
    """Figures by ``granularity/name``, the same on all processes; none where nothing is held out."""
    was_training = built.module.training
    built.module.eval()
    try:
        found: Figures = {}
        for name in recipe.data.granularities:
            if data.held_out.num_samples(name) >= 2:
                figures = _evaluate(name, recipe, data, built, processes)
                found |= {f"{name}/{key}": value for key, value in figures.items()}
        return found
    finally:
        built.module.train(was_training)


def _evaluate(name: str, recipe: TrainRecipe, data: RunData, built: Built, processes: Processes) -> Figures:
    settings, reading = recipe.evaluation, recipe.data.granularities[name]
    num_samples = data.held_out.num_samples(name)
    # those that `gex eval` takes, so that the two agree
    numbers = chosen_numbers(num_samples, Options(max_samples=settings.max_samples), name) or list(range(num_samples))
    share = math.ceil(len(numbers) / processes.world_size)
    own = numbers[processes.rank :: processes.world_size]
    sequence = Reading(
        num_frames=reading.num_frames,
        image_size_px=recipe.data.image_size_px,
        batch_size=settings.batch_size,
        num_workers=recipe.data.num_workers,
    )
    encoder = _Encoder(recipe, built, reading, processes.device)
    rows: list[tuple[list[int], Tensor]] = []
    num_damaged = 0
    with SequenceLoader(data.held_out, name, sequence, own) as loader:
        for _ in range(math.ceil(share / settings.batch_size)):
            batch = next(loader, None)
            vectors = encoder(batch)
            if batch is not None:
                num_damaged += len(batch.damaged)
                rows.append((batch.numbers, vectors))
    found, gathered = _gathered(rows, share, processes)
    figures: Figures = {}
    if processes.is_first and len(found) >= 2:
        figures = _figures(gathered, [data.held_out.sample(name, number).text for number in found], built)
    figures["num_damaged"] = processes.sum([float(num_damaged)])[0]
    shared: Figures = processes.broadcast(figures)
    return shared


class _Encoder:
    """One granularity's samples as rows: video and text vectors, or logits and the class."""

    def __init__(self, recipe: TrainRecipe, built: Built, reading: GranularitySettings, device: torch.device) -> None:
        self.recipe, self.built, self.reading, self.device = recipe, built, reading, device

    def __call__(self, batch: SequenceBatch | None) -> Tensor:
        """Rows (B, width) in float32 on the CPU; without samples the model is called all the same."""
        texts: Sequence[str] = batch.texts if batch is not None and batch.texts else ["nothing"]
        px, num_frames = self.recipe.data.image_size_px, self.reading.num_frames
        frames = torch.zeros(1, num_frames, 3, px, px, dtype=torch.uint8)
        num_rows = 0
        if batch is not None and batch.texts:
            frames, num_rows = batch.frames_BT3HW, len(batch.texts)
        with torch.no_grad(), autocast(self.recipe.optim, self.device):
            rows = self._rows(frames.to(self.device), texts, num_rows)
        return rows[:num_rows].float().cpu()

    def _rows(self, frames: Tensor, texts: Sequence[str], num_rows: int) -> Tensor:
        module: Any = self.built.module
        if isinstance(module, VideoClassifier):
            logits = module(frames, self.reading.n_iter_video)
            labels = module.labels_of(texts) if num_rows else torch.zeros(1)
            return torch.cat([logits.float(), labels.to(self.device)[:, None].float()], dim=1)
        found = module(
            frames,
            self.built.tokenizer(texts).to(self.device),
            n_iter_video=self.reading.n_iter_video,
            n_iter_text=self.reading.n_iter_text,
        )
        return torch.cat([found.video_BD, found.text_BD], dim=1)


def _gathered(
    rows: list[tuple[list[int], Tensor]], share: int, processes: Processes
) -> tuple[list[int], np.ndarray[Any, Any]]:
    """Numbers of the samples that all processes have read, ascending, and their rows."""
    width = rows[0][1].shape[1] if rows else 0
    width = int(max(processes.all([width])))
    numbers = torch.full((share, 1), -1.0, dtype=torch.float64)
    own = torch.zeros(share, width, dtype=torch.float64)
    at = 0
    for of_batch, vectors in rows:
        numbers[at : at + len(of_batch), 0] = torch.tensor(of_batch, dtype=torch.float64)
        own[at : at + len(of_batch)] = vectors.double()
        at += len(of_batch)
    table = torch.cat([numbers, own], dim=1)
    if processes.world_size > 1:
        parts = [torch.empty_like(table) for _ in range(processes.world_size)]
        dist.all_gather(parts, table, group=processes.counts)
        table = torch.cat(parts)
    table = table[table[:, 0] >= 0]
    ordered = table[table[:, 0].argsort()]
    return [int(number) for number in ordered[:, 0]], ordered[:, 1:].numpy()


def _figures(rows: np.ndarray[Any, Any], texts: Sequence[str], built: Built) -> Figures:
    if built.class_names:
        found = accuracy(rows[:, :-1], rows[:, -1].astype(np.int64))
        accuracies = {name: float(getattr(found, name)) for name in CLASSIFICATION_FIGURES}
        return accuracies | {"num_samples": float(len(rows))}
    dim = rows.shape[1] // 2
    retrieval = retrieval_by_text(rows[:, dim:], rows[:, :dim], texts)
    metrics = {"t2v": retrieval.text_to_video, "v2t": retrieval.video_to_text}
    figures: Figures = {"num_samples": float(len(rows))}
    for name in RETRIEVAL_FIGURES:
        direction, figure = name.split("_", 1)
        figures[name] = float(getattr(metrics[direction], figure))
    return figures
