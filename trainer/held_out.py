"""Figures over the held-out sources while a training runs: all processes encode a share, the first one ranks.

Always the same samples of a granularity, those that ``gex eval`` takes, so figures can be compared; of a public data
set it is videos that are taken, each with all its captions. Every process makes equally many calls of the model, which
sharded weights need. Samples that cannot be read are left out and counted.
"""

# Tensors: B samples, V samples of all processes, T texts, D width.

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from trainer.build import Built
from trainer.classifier import VideoClassifier
from trainer.evaluate import Options, chosen_numbers
from trainer.evaluate_retrieval import Retrieval, retrieval_by_text, retrieval_of_captions
from trainer.metrics import accuracy, accuracy_over_spans
from trainer.model import Embeddings
from trainer.optim import autocast
from trainer.processes import Processes
from trainer.run_data import RunData
from trainer.run_settings import CLASSIFICATION_FIGURES, RETRIEVAL_FIGURES
from trainer.sequence import Reading, SequenceBatch, SequenceLoader
from trainer.train_recipe import TrainRecipe

Figures = dict[str, float]
Floats = NDArray[np.floating[Any]]


def evaluate_held_out(recipe: TrainRecipe, data: RunData, built: Built, processes: Processes) -> Figures:
    """Figures by ``granularity/name``, the same on all processes; none where nothing is held out."""
    was_training = built.module.training
    built.module.eval()
    try:
        found: Figures = {}
        for name in recipe.data.granularities:
            are_classes = bool(data.class_names or built.class_names)
            numbers, captions = _chosen(name, recipe, data, are_classes=are_classes)
            if len(numbers) >= 2:
                encoder = _Encoder(name, recipe, built, processes)
                figures = _evaluate(encoder, data, numbers, captions)
                found |= {f"{name}/{key}": value for key, value in figures.items()}
        return found
    finally:
        built.module.train(was_training)


class _Caption(NamedTuple):
    """A text of a public data set, and the sample by which its video is read."""

    text: str
    video: int


def _chosen(name: str, recipe: TrainRecipe, data: RunData, *, are_classes: bool) -> tuple[list[int], list[_Caption]]:
    """The samples that are read: those that `gex eval` takes, so that the two agree; and the texts of videos that have
    captions, where a sample stands for the video."""
    options = Options(max_samples=recipe.evaluation.max_samples)
    if recipe.data.annotations is None:
        num_samples = data.held_out.num_samples(name)
        return chosen_numbers(num_samples, options, name) or list(range(num_samples)), []
    samples_of = list(data.held_out_videos(name).values())
    numbers = chosen_numbers(len(samples_of), options, recipe.data.annotations.kind)
    chosen = samples_of if numbers is None else [samples_of[number] for number in numbers]
    if are_classes:
        return sorted(itertools.chain.from_iterable(chosen)), []
    captions = [_Caption(data.held_out.sample(name, one).text, of[0]) for of in chosen for one in of]
    return sorted(of[0] for of in chosen), captions


def _evaluate(encoder: _Encoder, data: RunData, numbers: list[int], captions: list[_Caption]) -> Figures:
    processes, recipe = encoder.processes, encoder.recipe
    share = math.ceil(len(numbers) / processes.world_size)
    sequence = Reading(
        num_frames=encoder.reading.num_frames,
        image_size_px=recipe.data.image_size_px,
        batch_size=recipe.evaluation.batch_size,
        num_workers=recipe.data.num_workers,
    )
    rows: list[tuple[list[int], Tensor]] = []
    num_damaged = 0
    own = numbers[processes.rank :: processes.world_size]
    with SequenceLoader(data.held_out, encoder.name, sequence, own) as loader:
        for _ in range(math.ceil(share / recipe.evaluation.batch_size)):
            batch = next(loader, None)
            vectors = encoder(batch)
            if batch is not None:
                num_damaged += len(batch.damaged)
                rows.append((batch.numbers, vectors))
    found, gathered = _gathered(rows, share, processes)
    text_TD = _texts(encoder, [caption.text for caption in captions]) if captions else None
    figures: Figures = {}
    if processes.is_first and len(found) >= 2:
        if text_TD is not None:
            figures = _caption_figures(found, gathered, captions, text_TD)
        else:
            figures = _figures(found, gathered, encoder, data)
    figures["num_damaged"] = processes.sum([float(num_damaged)])[0]
    shared: Figures = processes.broadcast(figures)
    return shared


def _texts(encoder: _Encoder, texts: Sequence[str]) -> Floats:
    """Vectors (T, D) of texts, on all processes; each of them encodes a share, in equally many calls."""
    processes, size = encoder.processes, encoder.recipe.evaluation.batch_size
    share = math.ceil(len(texts) / processes.world_size)
    own = list(range(len(texts)))[processes.rank :: processes.world_size]
    parts = [own[first : first + size] for first in range(0, share, size)]
    rows = [(part, encoder.texts([texts[number] for number in part])) for part in parts]
    return _gathered(rows, share, processes)[1]


class _Encoder:
    """One granularity's samples as rows: video and text vectors, or logits and the class."""

    def __init__(self, name: str, recipe: TrainRecipe, built: Built, processes: Processes) -> None:
        self.name, self.recipe, self.built, self.processes = name, recipe, built, processes
        self.reading, self.device = recipe.data.granularities[name], processes.device

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

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Vectors (B, D) of texts alone. The whole model is called, with a video of nothing: weights that are parted
        come together in no other call."""
        px = self.recipe.data.image_size_px
        nothing = torch.zeros(1, 1, 3, px, px, dtype=torch.uint8)
        with torch.no_grad(), autocast(self.recipe.optim, self.device):
            found = self._embeddings(nothing.to(self.device), texts or ["nothing"])
        vectors: Tensor = found.text_BD[: len(texts)].float().cpu()
        return vectors

    def _embeddings(self, frames: Tensor, texts: Sequence[str]) -> Embeddings:
        module: Any = self.built.module
        found: Embeddings = module(
            frames,
            self.built.tokenizer(texts).to(self.device),
            n_iter_video=self.reading.n_iter_video,
            n_iter_text=self.reading.n_iter_text,
        )
        return found

    def _rows(self, frames: Tensor, texts: Sequence[str], num_rows: int) -> Tensor:
        module: Any = self.built.module
        if isinstance(module, VideoClassifier):
            logits = module(frames, self.reading.n_iter_video)
            labels = module.labels_of(texts) if num_rows else torch.zeros(1)
            return torch.cat([logits.float(), labels.to(self.device)[:, None].float()], dim=1)
        found = self._embeddings(frames, texts)
        return torch.cat([found.video_BD, found.text_BD], dim=1)


def _gathered(rows: list[tuple[list[int], Tensor]], share: int, processes: Processes) -> tuple[list[int], Floats]:
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


def _figures(found: list[int], rows: Floats, encoder: _Encoder, data: RunData) -> Figures:
    if encoder.built.class_names:
        logits, labels = rows[:, :-1], rows[:, -1].astype(np.int64)
        annotations = encoder.recipe.data.annotations
        if annotations is not None and annotations.span_s is not None:
            video_of = {one: video for video, of in data.held_out_videos(encoder.name).items() for one in of}
            _, firsts, owners = np.unique([video_of[one] for one in found], return_index=True, return_inverse=True)
            metrics, num_videos = accuracy_over_spans(logits, owners, labels[firsts]), len(firsts)
        else:
            metrics, num_videos = accuracy(logits, labels), len(rows)
        accuracies = {name: float(getattr(metrics, name)) for name in CLASSIFICATION_FIGURES}
        return accuracies | {"num_samples": float(num_videos)}
    texts = [data.held_out.sample(encoder.name, number).text for number in found]
    dim = rows.shape[1] // 2
    return _retrieval_figures(retrieval_by_text(rows[:, dim:], rows[:, :dim], texts), len(rows))


def _caption_figures(found: list[int], rows: Floats, captions: Sequence[_Caption], text_TD: Floats) -> Figures:
    """As of public data everywhere: every caption is a query for its own video, and a video is a candidate once."""
    row_of = {number: row for row, number in enumerate(found)}
    kept = [number for number, caption in enumerate(captions) if caption.video in row_of]  # others' videos are damaged
    owners = np.array([row_of[captions[number].video] for number in kept], dtype=np.int64)
    texts = [captions[number].text for number in kept]
    dim = rows.shape[1] // 2
    return _retrieval_figures(retrieval_of_captions(text_TD[kept], rows[:, :dim], owners, texts), len(rows))


def _retrieval_figures(retrieval: Retrieval, num_videos: int) -> Figures:
    metrics = {"t2v": retrieval.text_to_video, "v2t": retrieval.video_to_text}
    figures: Figures = {"num_samples": float(num_videos)}
    for name in RETRIEVAL_FIGURES:
        direction, figure = name.split("_", 1)
        figures[name] = float(getattr(metrics[direction], figure))
    return figures
