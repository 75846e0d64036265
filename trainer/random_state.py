"""Random states of all ranks as tensors, to be kept and put back: Python, NumPy's global one, torch, one CUDA device.

Shapes are fixed, so ranks exchange states by plain collectives. Generators that someone made for themselves are not
seen here.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Mapping

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from trainer.optim import rank_and_size

_log = logging.getLogger(__name__)


def gather_random_states(device: torch.device) -> dict[str, Tensor]:
    """The states of all ranks, one row each."""
    num_ranks = rank_and_size()[1]
    gathered = {}
    for name, own in _own_state(device).items():
        rows = [own]
        if num_ranks > 1:
            rows = [torch.empty_like(own, device=device) for _ in range(num_ranks)]
            dist.all_gather(rows, own.to(device))
        gathered[name] = torch.stack(rows).cpu()
    return gathered


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Put one rank's row back."""
    has_gauss, gauss = state["python_gauss"].tolist()
    random.setstate((3, tuple(state["python"].tolist()), gauss if has_gauss else None))
    *keys, position, has_cached = state["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_cached, state["numpy_gauss"].item()))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda":
        if "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], device)
        else:
            _log.warning("the checkpoint was written without a CUDA device; its random state is not that of one")


def derive_random_state(seed: int, step: int, rank: int) -> None:
    """Random states that depend on these three numbers only."""
    words = hashlib.sha256(f"gex training {seed} {step} {rank}".encode()).digest()
    random.seed(words[:8])
    np.random.seed(int.from_bytes(words[8:12], "big"))
    torch.manual_seed(int.from_bytes(words[12:20], "big") >> 1)


def _own_state(device: torch.device) -> dict[str, Tensor]:
    """Every generator as tensors of fixed shapes."""
    _, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state = {
        "python": torch.tensor(words, dtype=torch.int64),
        "python_gauss": torch.tensor([gauss is not None, gauss or 0.0], dtype=torch.float64),
        "numpy": torch.tensor([*map(int, keys), position, has_gauss], dtype=torch.int64),
        "numpy_gauss": torch.tensor([cached], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})
