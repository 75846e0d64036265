"""How the model is trained: learning rates, schedule, decay, clipping, precision; one frozen tree.

The defaults are the paper's where it says something (rates, epochs, the cosine), and of the rest moments, decay and
precision are open_clip's. That there is no warm-up and that gradients are clipped is ours: open_clip has it the other
way round. Imports pydantic only. Says nothing of the model, the data or machines.

Paper: GEXIA §4.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

_Share = Annotated[float, Field(ge=0, lt=1)]


class OptimSettings(BaseModel):
    """AdamW, its schedule, and what becomes of steps that go wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate_towers: float = Field(default=1e-6, ge=0)
    """Highest learning rate of CLIP's two towers."""
    learning_rate: float = Field(default=1e-4, ge=0)
    """Highest learning rate of everything else."""
    betas: tuple[_Share, _Share] = (0.9, 0.98)
    """How much of Adam's two moments stays from one step to the next."""
    eps: float = Field(default=1e-6, gt=0)
    """What Adam adds to the root of its second moment."""
    weight_decay: float = Field(default=0.2, ge=0)
    """Of matrices; vectors, bases and positions do not decay."""
    epochs: int = Field(default=5, ge=1)
    """Passes over the data; the schedule ends with the last one."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps in which learning rates rise from nothing."""
    final_share: float = Field(default=0.0, ge=0, le=1)
    """Where the cosine ends, as a share of the highest learning rate."""
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    """Gradients are scaled to this norm when theirs is larger; none: never."""
    max_nonfinite_steps: int = Field(default=10, ge=1)
    """Training stops after so many steps in a row without a finite loss and gradient."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """How much of the moving average of the weights stays at each step, once there were many; none: no average."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """In what the forward pass computes; weights and optimiser are in 32 bits in either case."""
