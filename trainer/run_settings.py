"""How a training runs, apart from what it learns: machines, memory, checkpoints, figures, evaluation.

Nothing here changes what a step computes, but for `batch pieces`, which change it by rounding only. Imports pydantic
only. Says nothing of the model, the data or the optimiser.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

RETRIEVAL_FIGURES = tuple(
    f"{direction}_{figure}"
    for direction in ("t2v", "v2t")
    for figure in ("r1_percent", "r5_percent", "r10_percent", "median_rank")
)
CLASSIFICATION_FIGURES = ("top1_percent", "top5_percent")
"""What the evaluation of a granularity says, and checkpoints can be compared by."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ParallelSettings(_Table):
    """How one step is shared out and fitted into memory."""

    strategy: Literal["ddp", "fsdp"] = "ddp"
    """With several processes: every one holds the whole model, or each a part of every layer (FSDP2)."""
    piece_size: int | None = Field(default=None, ge=1)
    """Samples that a process encodes at once; fewer than its share of a batch: gradients are made in pieces."""
    activation_checkpointing: bool = False
    """Compute the towers' activations anew in the backward pass: a third more time, a fraction of the memory."""
    compile: bool = False
    """Compile every layer with torch.compile, anew for each granularity's shapes."""


class CheckpointSettings(_Table):
    """When checkpoints are written, and which stay."""

    every_steps: int = Field(default=1000, ge=1)
    """Steps between two; one is written at the end in any case."""
    keep: int = Field(default=3, ge=1)
    """The newest that stay, beside the best."""
    best: str | None = None
    """Figure of the evaluation by which one is the best, such as "LVLT/t2v_r1_percent"; none: the newest stay only.
    `gex export` makes a model of it."""

    @property
    def higher_is_better(self) -> bool:
        """Of the figure `best`."""
        return not (self.best or "").endswith("_rank")


class RecordSettings(_Table):
    """Figures while training."""

    every_steps: int = Field(default=10, ge=1)
    """Steps between two lines."""
    tensorboard: bool = False
    """Also write TensorBoard's files."""
    wandb_project: str | None = None
    """Also log to Weights & Biases, under this project; WANDB_MODE=offline keeps it on this machine."""
    peak_flops_per_s: float | None = Field(default=None, gt=0)
    """Of one device in the precision that is used; none: the vendor's for devices that are known, else no MFU."""


class EvaluationSettings(_Table):
    """Retrieval over held-out sources, while training and at its end."""

    every_steps: int | None = Field(default=None, ge=1)
    """Steps between two; none: at the end only. Nothing is evaluated where nothing is held out."""
    max_samples: int = Field(default=1000, ge=2)
    """Samples of a granularity at most, of public data videos with all their texts; always the same ones."""
    batch_size: int = Field(default=64, ge=1)
    """Samples that a process encodes at once."""


class LaunchSettings(_Table):
    """Processes that `gex train` starts; torchrun says the same on its own command line."""

    num_processes: int = Field(default=1, ge=1)
    """One trains in this process; several under Ray Train."""
    address: str = "local"
    """Ray cluster: "local" starts a private one; "auto" or "host:port" joins one."""
    cpus_a_process: float = Field(default=1.0, gt=0)
    """CPUs that each of them takes; its data workers have theirs from the same."""
    gpus_a_process: int = Field(default=0, ge=0, le=1)
    """GPUs that each of them takes, one or none; with 0 they train on the CPU, whatever their node has."""
    autoscaling: bool = False
    """The cluster adds nodes: processes for which there is no room yet wait for them."""
    max_restarts: int = Field(default=3, ge=0)
    """How often training is started anew from its last checkpoint after a process or its machine is lost."""
