"""Four processes that train one model on one batch; groups of 1, 2 and 4 of them. What they find is saved by name.

Every rank has the same weights and its part of the batch, in float64. "averaged" are gradients after the mean over
ranks that data-parallel training makes; "ddp" and "cached" are made by DistributedDataParallel itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from tests.trainer.tiny_models import draw_linear_batch, gradients, linear_model
from trainer.grad_cache import backward_in_pieces
from trainer.loss import gather_with_gradient, same_source, vtc_loss
from trainer.model import Embeddings
from trainer.tokens import TextTokens

NUM_RANKS = 4
NUM_ROWS = 16
SOURCES = torch.tensor([5, 1, 2, 5, 3, 9, 2, 4, 5, 6, 7, 8, 1, -2, -2, 0])
# a second source for some; those that have one have it twice
SEVERAL = torch.stack([SOURCES, torch.where(torch.arange(NUM_ROWS) % 5 == 1, 4, SOURCES)], dim=1)
Loss = Callable[[Embeddings, Tensor, object], Tensor]


def run_ranks(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Start the processes, wait for them, and read what they found."""
    torch.multiprocessing.spawn(_one_rank, args=(str(folder),), nprocs=NUM_RANKS)
    return {file.stem: torch.load(file, weights_only=True) for file in folder.glob("*.pt")}


def _one_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=NUM_RANKS)
    try:
        for num_ranks in (1, 2, 4):
            group = dist.new_group(list(range(num_ranks)))
            if rank < num_ranks:
                _train_on(group, rank, num_ranks, Path(folder))
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _train_on(group: object, rank: int, num_ranks: int, folder: Path) -> None:
    found = {
        "ours": _averaged(our_loss, group, rank, num_ranks),
        "masked": _averaged(masked_loss, group, rank, num_ranks),
        "shared": _averaged(shared_loss, group, rank, num_ranks),
        "slice": _averaged(slice_backward_loss, group, rank, num_ranks),
        "detached": _averaged(detached_gather_loss, group, rank, num_ranks),
        "strided": _averaged(strided_loss, group, rank, num_ranks),
        "ddp": _by_ddp(group, rank, num_ranks, cached=False),
        "cached": _by_ddp(group, rank, num_ranks, cached=True),
    }
    if rank == 0:
        for name, tensors in found.items():
            torch.save(tensors, folder / f"{name}-{num_ranks}.pt")


def part_of_batch(rank: int, num_ranks: int) -> tuple[Tensor, TextTokens, Tensor]:
    video, texts = draw_linear_batch(NUM_ROWS)
    rows = slice(rank * NUM_ROWS // num_ranks, (rank + 1) * NUM_ROWS // num_ranks)
    return video[rows], TextTokens(*(part[rows] for part in texts)), SOURCES[rows]


def _averaged(loss_of: Loss, group: object, rank: int, num_ranks: int) -> dict[str, Tensor]:
    model = linear_model()
    video, texts, sources = part_of_batch(rank, num_ranks)
    loss = loss_of(model(video, texts, n_iter_video=3, n_iter_text=1), sources, group)
    loss.backward()
    return _mean_over_ranks(loss, gradients(model), group, num_ranks)


def _mean_over_ranks(loss: Tensor, grads: dict[str, Tensor], group: object, num_ranks: int) -> dict[str, Tensor]:
    found = {"loss": loss.detach().clone(), **grads}
    for tensor in found.values():
        dist.all_reduce(tensor, group=group)
        tensor.div_(num_ranks)
    return found


def _by_ddp(group: object, rank: int, num_ranks: int, *, cached: bool) -> dict[str, Tensor]:
    model = linear_model()
    wrapped = DistributedDataParallel(model, process_group=group)
    video, texts, _ = part_of_batch(rank, num_ranks)

    def encode(rows: slice) -> Embeddings:
        return wrapped(video[rows], TextTokens(*(part[rows] for part in texts)), n_iter_video=3, n_iter_text=1)

    if cached:
        half = len(video) // 2
        pieces = [slice(0, half), slice(half, None)]
        loss = backward_in_pieces(encode, pieces, lambda all_rows: vtc_loss(all_rows, None, group), wrapped.no_sync)
    else:
        loss = vtc_loss(encode(slice(None)), None, group)
        loss.backward()
    mean_loss = _mean_over_ranks(loss, {}, group, num_ranks)["loss"]
    return {"loss": mean_loss, **gradients(model)}


def our_loss(embeddings: Embeddings, sources: Tensor, group: object) -> Tensor:
    return vtc_loss(embeddings, None, group)


def masked_loss(embeddings: Embeddings, sources: Tensor, group: object) -> Tensor:
    return vtc_loss(embeddings, same_source(sources[:, None], group), group)


def shared_loss(embeddings: Embeddings, sources: Tensor, group: object) -> Tensor:
    """Masked by several sources a row."""
    rank = dist.get_rank(group)
    own = SEVERAL[rank * len(sources) : (rank + 1) * len(sources)]
    return vtc_loss(embeddings, same_source(own, group), group)


def strided_loss(embeddings: Embeddings, sources: Tensor, group: object) -> Tensor:
    """Through the gather alone, whose gradient comes back transposed: once lost in torch (issue 120386)."""
    video = gather_with_gradient(embeddings.video_BD.T.contiguous().T, group)
    weights = torch.arange(video.numel(), dtype=torch.float64).reshape(video.shape[::-1])
    return (video.T * weights).square().sum() / 1e4


def slice_backward_loss(embeddings: Embeddings, sources: Tensor, group: object) -> Tensor:
    """Wrong: the whole matrix on every rank, from a gather whose backward keeps the own rows' gradient only."""
    video, text = (_SliceBackward.apply(rows, group) for rows in embeddings[:2])
    logits = embeddings.logit_scale * video @ text.T
    target = torch.arange(len(logits))
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def detached_gather_loss(embeddings: Embeddings, sources: Tensor, group: object) -> Tensor:
    """Wrong: own rows against the columns of all ranks, gathered without a gradient."""
    video, text = (_gathered(rows.detach(), group) for rows in embeddings[:2])
    rank, rows = dist.get_rank(group), len(embeddings.video_BD)
    target = torch.arange(rows) + rank * rows
    # own columns keep their gradient, as in the code this is taken from
    video, text = (
        torch.cat([all_rows[: rank * rows], own, all_rows[(rank + 1) * rows :]])
        for all_rows, own in ((video, embeddings.video_BD), (text, embeddings.text_BD))
    )
    v2t = functional.cross_entropy(embeddings.logit_scale * embeddings.video_BD @ text.T, target)
    t2v = functional.cross_entropy(embeddings.logit_scale * embeddings.text_BD @ video.T, target)
    return (v2t + t2v) / 2


class _SliceBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, group: object) -> Tensor:
        ctx.own = slice(dist.get_rank(group) * len(rows), (dist.get_rank(group) + 1) * len(rows))
        return _gathered(rows, group)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return grad[ctx.own], None


def _gathered(rows: Tensor, group: object) -> Tensor:
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, rows.contiguous(), group=group)
    return torch.cat(parts)


def cosine(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Cosine of two sets of gradients, the temperature's and the loss left out."""
    names = sorted(expected.keys() - {"loss", "logit_scale"})
    a, b = (torch.cat([tensors[name].flatten() for name in names]) for tensors in (found, expected))
    return nn.functional.cosine_similarity(a, b, dim=0).item()
