"""The two tasks of training: a batch in, gradients in place and the loss out.

`prepare` brings a batch to the device, which can go on while the step before is still at work; `backward` computes.
In pieces, a contrastive step keeps the negatives of the whole batch (see grad_cache), a classification step adds up.
Takes no optimiser step.
"""

# Tensors: B samples of this process, G of all, T frames.

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from trainer.build import Built
from trainer.classifier import VideoClassifier
from trainer.data_settings import GranularitySettings
from trainer.grad_cache import backward_in_pieces
from trainer.loader import Batch
from trainer.loss import num_without_negatives, same_source, vtc_loss
from trainer.model import Embeddings
from trainer.optim import autocast
from trainer.parallel import Parallel
from trainer.tokens import TextTokens
from trainer.train_recipe import TrainRecipe


class Prepared(NamedTuple):
    """A batch on the device."""

    step: int
    granularity: str
    frames_BT3HW: Tensor
    texts: TextTokens | None = None
    labels_B: Tensor | None = None
    num_truncated: int = 0
    """Texts whose end did not fit into the text tower."""
    num_damaged: int = 0
    """Samples that others stand in for."""
    same_BG: Tensor | None = None
    """Which samples of all processes share a source with one of this one's and are no negatives; none: all are."""
    num_without_negatives: Tensor | int = 0
    """Samples of this process that have no negative left."""


class Task(Protocol):
    """What a training does with a batch."""

    def prepare(self, batch: Batch) -> Prepared:
        """The batch on the device."""

    def backward(self, batch: Prepared) -> Tensor:
        """Add the gradients of this process's loss; the loss, without a graph."""


@dataclass(frozen=True)
class Contrastive:
    """Videos against texts, over the batch of all processes. Paper: GEXIA §3.2."""

    recipe: TrainRecipe
    built: Built
    parallel: Parallel
    device: torch.device

    def prepare(self, batch: Batch) -> Prepared:
        """The batch on the device, its texts as tokens; all processes prepare a step's batch."""
        tokens = self.built.tokenizer(batch.texts)
        same_BG, num_alone = None, len(batch.keys) if self.recipe.data.batch_size == 1 else 0
        if self.recipe.mask_same_source:
            same_BG = same_source(batch.sources_BS.to(self.device, non_blocking=True))
            num_alone = num_without_negatives(same_BG)
        return Prepared(
            batch.step,
            batch.granularity,
            batch.frames_BT3HW.to(self.device, non_blocking=True),
            texts=tokens.to(self.device, non_blocking=True),
            num_truncated=int(tokens.truncated_B.sum()),
            num_damaged=len(batch.damaged),
            same_BG=same_BG,
            num_without_negatives=num_alone,
        )

    def backward(self, batch: Prepared) -> Tensor:
        """Gradients of the symmetric InfoNCE."""
        reading = self.recipe.data.granularities[batch.granularity]
        pieces = list(_pieces(batch, self.recipe.parallel.piece_size))
        if len(pieces) > 1:
            return backward_in_pieces(
                lambda piece: self._encode(piece, reading),
                pieces,
                lambda embeddings: vtc_loss(embeddings, batch.same_BG),
                self.parallel.no_sync,
            )
        loss = vtc_loss(self._encode(batch, reading), batch.same_BG)
        loss.backward()
        return loss.detach()

    def _encode(self, batch: Prepared, reading: GranularitySettings) -> Embeddings:
        with autocast(self.recipe.optim, self.device):
            embeddings: Embeddings = self.parallel.called(
                batch.frames_BT3HW,
                batch.texts,
                n_iter_video=reading.n_iter_video,
                n_iter_text=reading.n_iter_text,
            )
        return embeddings


@dataclass(frozen=True)
class Classification:
    """A linear head over the video branch. Paper: GEXIA §4.3."""

    recipe: TrainRecipe
    classifier: VideoClassifier
    parallel: Parallel
    device: torch.device

    def prepare(self, batch: Batch) -> Prepared:
        """The batch on the device, its texts as numbers of classes."""
        return Prepared(
            batch.step,
            batch.granularity,
            batch.frames_BT3HW.to(self.device, non_blocking=True),
            labels_B=self.classifier.labels_of(batch.texts).to(self.device, non_blocking=True),
            num_damaged=len(batch.damaged),
        )

    def backward(self, batch: Prepared) -> Tensor:
        """Gradients of the cross-entropy."""
        n_iter = self.recipe.data.granularities[batch.granularity].n_iter_video
        pieces = list(_pieces(batch, self.recipe.parallel.piece_size))
        losses = []
        for number, piece in enumerate(pieces):
            with nullcontext() if number == len(pieces) - 1 else self.parallel.no_sync():
                with autocast(self.recipe.optim, self.device):
                    logits_BK = self.parallel.called(piece.frames_BT3HW, n_iter)
                mean = functional.cross_entropy(logits_BK.float(), piece.labels_B)
                loss = mean * (len(piece.frames_BT3HW) / len(batch.frames_BT3HW))
                loss.backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()


def task_of(recipe: TrainRecipe, built: Built, parallel: Parallel, device: torch.device) -> Task:
    """The task that the recipe names."""
    if isinstance(built.module, VideoClassifier):
        return Classification(recipe, built.module, parallel, device)
    return Contrastive(recipe, built, parallel, device)


def _pieces(batch: Prepared, piece_size: int | None) -> Iterator[Prepared]:
    """Parts of a batch of at most so many samples; which pairs share a source stays that of the whole batch."""
    num_samples = len(batch.frames_BT3HW)
    size = piece_size or num_samples
    for first in range(0, num_samples, size):
        part = slice(first, first + size)
        yield batch._replace(
            frames_BT3HW=batch.frames_BT3HW[part],
            texts=None if batch.texts is None else TextTokens(*(column[part] for column in batch.texts)),
            labels_B=None if batch.labels_B is None else batch.labels_B[part],
        )
