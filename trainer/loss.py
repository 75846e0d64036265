"""The video-text contrastive loss over the global batch: unit vectors of this rank in, this rank's loss out.

Every rank compares its own rows with the columns of all ranks. The features are gathered with their gradient, so the
mean over ranks of the gradients, which is what data-parallel training makes of them, is the gradient of one process
that holds the whole batch, the temperature's included. All ranks bring equally many rows. There is no switch for
another way to gather: the two that are in use elsewhere give other gradients (tests/numerics).

Paper: GEXIA §3.2, cross-modal alignment.
Deviation: pairs of one source video can be taken out of each other's negatives, as a training does by default; in the
paper's sums all pairs of the batch are.
"""

# Tensors: B rows of this rank, G rows of all ranks, D width, S sources a row.

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from trainer.model import Embeddings

_SHARED_AT_ONCE = 4096  # sources that several rows have; bounds the memory of a mask to so many columns


def vtc_loss(embeddings: Embeddings, same_BG: Tensor | None = None, group: Any = None) -> Tensor:
    """Symmetric InfoNCE of this rank's rows; its mean over ranks is the loss of the global batch.

    `same_BG`, of `same_source`, takes pairs that share a source video out of each other's negatives.
    """
    rank, num_ranks = _place(group)
    first_row = rank * len(embeddings.video_BD)
    with torch.autocast(embeddings.video_BD.device.type, enabled=False):
        # one gather for both branches
        both_B2D = torch.stack([_wide(embeddings.video_BD), _wide(embeddings.text_BD)], dim=1)
        both_G2D = gather_with_gradient(both_B2D, group) if num_ranks > 1 else both_B2D
        video_logits_BG = embeddings.logit_scale * both_B2D[:, 0] @ both_G2D[:, 1].T
        text_logits_BG = embeddings.logit_scale * both_B2D[:, 1] @ both_G2D[:, 0].T
        target_B = torch.arange(len(both_B2D), device=both_B2D.device) + first_row
        if same_BG is not None:
            video_logits_BG = video_logits_BG.masked_fill(same_BG, -torch.inf)
            text_logits_BG = text_logits_BG.masked_fill(same_BG, -torch.inf)
        v2t, t2v = (functional.cross_entropy(logits, target_B) for logits in (video_logits_BG, text_logits_BG))
        return (v2t + t2v) / 2


def same_source(sources_BS: Tensor, group: Any = None) -> Tensor:
    """Which rows of all ranks share a source with a row of this one, but for itself; of numbers (int64) of sources.

    All ranks bring equally many numbers a row; a row that has fewer sources has some of its own again.
    """
    rank, num_ranks = _place(group)
    sources_GS = _gather(sources_BS, group) if num_ranks > 1 else sources_BS
    own = slice(rank * len(sources_BS), (rank + 1) * len(sources_BS))
    same_BG = _sharing(sources_GS, own) if sources_BS.shape[1] > 1 else sources_BS == sources_GS.T
    same_BG[:, own].fill_diagonal_(False)
    return same_BG


def num_without_negatives(same_BG: Tensor) -> Tensor:
    """How many rows of this rank have no other row left to be told from: they cost nothing and teach nothing."""
    return (same_BG.sum(dim=1) == same_BG.shape[1] - 1).sum()


def _sharing(sources_GS: Tensor, own: slice) -> Tensor:
    """The same where rows have several sources, exactly; only sources that several rows have take part."""
    num_rows = len(sources_GS)
    _, number_GS = sources_GS.unique(return_inverse=True)
    row_GS = torch.arange(num_rows, device=sources_GS.device)[:, None]
    pairs = (number_GS * num_rows + row_GS).unique()  # a source and a row that has it, each pair once
    number, row = pairs // num_rows, pairs % num_rows
    is_shared = number.bincount()[number] > 1
    shared, number = number[is_shared].unique(return_inverse=True)
    row = row[is_shared]
    same_BG = torch.zeros(own.stop - own.start, num_rows, dtype=torch.bool, device=sources_GS.device)
    for first in range(0, len(shared), _SHARED_AT_ONCE):
        here = (number >= first) & (number < first + _SHARED_AT_ONCE)
        has_GK = torch.zeros(num_rows, min(_SHARED_AT_ONCE, len(shared) - first), device=sources_GS.device)
        has_GK[row[here], number[here] - first] = 1
        same_BG |= has_GK[own] @ has_GK.T > 0  # sums of ones: exact enough in any precision
    return same_BG


def gather_with_gradient(rows: Tensor, group: Any = None) -> Tensor:
    """The rows of all ranks, in the order of ranks; a row's gradient is the sum of what all ranks have for it."""
    gathered: Tensor = _Gather.apply(rows, group)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return _gather(rows, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        # a gradient that autograd hands over may have any strides; collectives read memory as it lies
        grad = grads[0].contiguous()
        own = grad.new_empty(grad.shape[0] // dist.get_world_size(ctx.group), *grad.shape[1:])
        _collective("reduce_scatter_single", "reduce_scatter_tensor")(own, grad, group=ctx.group)
        return own, None


def _gather(rows: Tensor, group: Any) -> Tensor:
    gathered = rows.new_empty(rows.shape[0] * dist.get_world_size(group), *rows.shape[1:])
    _collective("all_gather_single", "all_gather_into_tensor")(gathered, rows.contiguous(), group=group)
    return gathered


def _collective(name: str, older_name: str) -> Any:
    # torch 2.13 renamed them and warns at every call under the older name
    return getattr(dist, name, None) or getattr(dist, older_name)


def _place(group: Any) -> tuple[int, int]:
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(group), dist.get_world_size(group)


def _wide(x_BD: Tensor) -> Tensor:
    return x_BD if x_BD.dtype == torch.float64 else x_BD.float()
