"""The gradient of one large batch, made from pieces that fit: a model and pieces of a batch in, gradients in place.

The contrastive loss needs all embeddings at once, the memory is in what lies before them. So every piece is encoded
without a graph, the loss gives the gradients of the embeddings, and every piece is encoded again with a graph, through
which those gradients go back (GradCache). The negatives are those of the whole batch. Random numbers of the second
pass are those of the first, so dropout is the same in both. The temperature's gradient goes back once.
Costs one more forward pass. Takes no optimiser step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from trainer.model import Embeddings


def backward_in_pieces(
    encode: Callable[[Any], Embeddings],
    pieces: Sequence[Any],
    loss_of: Callable[[Embeddings], Tensor],
    no_sync: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Tensor:
    """Add the gradient of `loss_of` all pieces' embeddings to the parameters; returns the loss, without a graph.

    `encode` runs the model on one piece, with whatever autocast it needs inside. `no_sync` is entered for every piece
    but the last, so that gradients cross ranks once.

    Raises:
        ValueError: there are no pieces.
    """
    if not pieces:
        raise ValueError("expected at least one piece of a batch, found none")
    states, parts = [], []
    for piece in pieces:
        states.append(_random_state())
        with torch.no_grad():
            parts.append(encode(piece))
    # inside an autocast region, a torch that caches half-precision weights under no_grad would hand those of the first
    # pass, which have no graph, to the second; torch 2.13 does not
    torch.clear_autocast_cache()
    cached = Embeddings(
        torch.cat([part.video_BD for part in parts]).requires_grad_(),
        torch.cat([part.text_BD for part in parts]).requires_grad_(),
        parts[0].logit_scale.detach().clone().requires_grad_(),
    )
    loss = loss_of(cached)
    loss.backward()
    after = _random_state()
    sizes = [len(part.video_BD) for part in parts]
    video_grads, text_grads = (_grad(column).split(sizes) for column in (cached.video_BD, cached.text_BD))
    for number, (piece, state) in enumerate(zip(pieces, states, strict=True)):
        is_last = number == len(pieces) - 1
        _restore_random_state(state)
        with nullcontext() if is_last else no_sync():
            again = encode(piece)
            outputs, grads = [again.video_BD, again.text_BD], [video_grads[number], text_grads[number]]
            if is_last:  # once: with every piece, the temperature's gradient would count as often as there are pieces
                outputs.append(again.logit_scale)
                grads.append(_grad(cached.logit_scale))
            # a frozen branch, or a frozen temperature, has no graph to go back through
            live = [(output, grad) for output, grad in zip(outputs, grads, strict=True) if output.requires_grad]
            torch.autograd.backward([output for output, _ in live], [grad for _, grad in live])
    _restore_random_state(after)
    return loss.detach()


def _grad(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _random_state() -> tuple[Tensor, Tensor | None]:
    on_device = torch.cuda.get_rng_state() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    return torch.get_rng_state(), on_device


def _restore_random_state(state: tuple[Tensor, Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])
