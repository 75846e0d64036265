"""The two tasks of training: a batch in, gradients in place and the loss out.

`prepare` brings a batch to the device while the step before is still at work there; `backward` computes.
In pieces, a contrastive step keeps the negatives of the whole batch (see grad_cache), a classification step adds up.
Takes no optimiser step.
"""

# Tensors: B samples of this process, G of all, T frames.

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from trainer.loader import Batch, Damaged
from trainer.loss import num_without_negatives, same_source, vtc_loss
from trainer.model import Embeddings
from trainer.optim import autocast
from trainer.parallel import Parallel
from trainer.processes import Processes
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
    damaged: Sequence[Damaged] = ()
    """Samples of this process that others stand in for."""
    same_BG: Tensor | None = None
    """Which samples of all processes share a source with one of this one's and are no negatives; none: all are."""
    num_without_negatives: int = 0
    """Samples of this process that have no negative left."""


class Task(Protocol):
    """What a training does with a batch."""

    def prepare(self, batch: Batch) -> Prepared:
        """The batch on the device."""

    def backward(self, batch: Prepared) -> Tensor:
        """Add the gradients of this process's loss; the loss, without a graph."""


class Sender:
    """Brings a prepared batch to the device; to a GPU beside what it is computing, not behind it.

    Everything that is queued on the GPU after a batch was sent waits for the batch; what was queued before does not.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batch: Prepared) -> Prepared:
        """The batch with its tensors on the device."""
        if self._stream is None:
            return batch
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._stream):
            sent = batch._replace(
                frames_BT3HW=self._sent(batch.frames_BT3HW, computing),
                texts=None if batch.texts is None else TextTokens(*(self._sent(one, computing) for one in batch.texts)),
                labels_B=None if batch.labels_B is None else self._sent(batch.labels_B, computing),
                same_BG=None if batch.same_BG is None else self._sent(batch.same_BG, computing),
            )
        computing.wait_stream(self._stream)
        return sent

    def _sent(self, tensor: Tensor, computing: torch.cuda.Stream) -> Tensor:
        # the host waits for a copy out of memory that is not pinned; frames are pinned by the loader
        pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
        found = pinned.to(self.device, non_blocking=True)
        found.record_stream(computing)  # or its memory may be the next batch's while this one is still computed with
        return found


@dataclass(frozen=True)
class Contrastive:
    """Videos against texts, over the batch of all processes. Paper: GEXIA §3.2."""

    recipe: TrainRecipe
    built: Built
    parallel: Parallel
    processes: Processes
    send: Sender

    def prepare(self, batch: Batch) -> Prepared:
        """The batch on the device, its texts as tokens; all processes prepare a step's batch."""
        tokens = self.built.tokenizer(batch.texts)
        same_BG, num_alone = None, len(batch.keys) if self.recipe.data.batch_size == 1 else 0
        if self.recipe.mask_same_source:
            # on the CPU: the device would do it behind the step that it is at, and the host wait for its numbers
            same_BG = same_source(batch.sources_BS, self.processes.counts)
            num_alone = int(num_without_negatives(same_BG))
        prepared = Prepared(
            batch.step,
            batch.granularity,
            batch.frames_BT3HW,
            texts=tokens,
            num_truncated=int(tokens.truncated_B.sum()),
            damaged=batch.damaged,
            same_BG=same_BG,
            num_without_negatives=num_alone,
        )
        return self.send(prepared)

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
        with autocast(self.recipe.optim, self.processes.device):
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
    processes: Processes
    send: Sender

    def prepare(self, batch: Batch) -> Prepared:
        """The batch on the device, its texts as numbers of classes."""
        prepared = Prepared(
            batch.step,
            batch.granularity,
            batch.frames_BT3HW,
            labels_B=self.classifier.labels_of(batch.texts),
            damaged=batch.damaged,
        )
        return self.send(prepared)

    def backward(self, batch: Prepared) -> Tensor:
        """Gradients of the cross-entropy."""
        n_iter = self.recipe.data.granularities[batch.granularity].n_iter_video
        pieces = list(_pieces(batch, self.recipe.parallel.piece_size))
        losses = []
        for number, piece in enumerate(pieces):
            with nullcontext() if number == len(pieces) - 1 else self.parallel.no_sync():
                with autocast(self.recipe.optim, self.processes.device):
                    logits_BK = self.parallel.called(piece.frames_BT3HW, n_iter)
                mean = functional.cross_entropy(logits_BK.float(), piece.labels_B)
                loss = mean * (len(piece.frames_BT3HW) / len(batch.frames_BT3HW))
                loss.backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()


def task_of(recipe: TrainRecipe, built: Built, parallel: Parallel, processes: Processes) -> Task:
    """The task that the recipe names."""
    send = Sender(processes.device)
    if isinstance(built.module, VideoClassifier):
        return Classification(recipe, built.module, parallel, processes, send)
    return Contrastive(recipe, built, parallel, processes, send)


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
