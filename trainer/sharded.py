"""Tensors that are spread over processes (FSDP2), made whole to be written and spread again to be read.

A tensor that lies on one process passes through unchanged, so callers need not know which kind they hold.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole_tensors(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """All tensors as one process needs them; all processes call it, those that do not `keep` get nothing.

    One tensor is made whole at a time and then lies on the CPU.
    """
    found = {}
    for name, tensor in tensors.items():
        full = whole(tensor)
        if keep:
            found[name] = full.cpu() if isinstance(tensor, DTensor) else full
    return found


def whole(tensor: Tensor) -> Tensor:
    """One tensor with all of its parts; all processes call it."""
    full: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full


def spread_like(tensor: Tensor, target: Tensor) -> Tensor:
    """A whole tensor, the same on all processes, as `target` is spread."""
    if not isinstance(target, DTensor):
        return tensor
    own: Tensor = distribute_tensor(tensor.to(target.device), target.device_mesh, target.placements, src_data_rank=None)
    return own


def put(target: Tensor, value: Tensor) -> None:
    """Copy a whole tensor into one that may be spread."""
    with torch.no_grad():
        target.copy_(spread_like(value, target))
