"""The processes of one training: which one this is, its device, and how they speak with each other.

torchrun and Ray Train tell a process its place by the same environment variables; without them there is one process.
Tensors of the device go over NCCL, or gloo on a CPU; small counts always over gloo, so that no accelerator waits for
a number.
"""

from __future__ import annotations

import os
import platform
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from gex_pipeline.errors import GexError, TransientError
from gex_pipeline.run_lock import this_machine

Made = TypeVar("Made")

_PATIENCE = timedelta(minutes=30)  # a rank that writes a checkpoint to a slow store keeps the others waiting


@dataclass(frozen=True)
class Processes:
    """This process among those of the training."""

    rank: int
    world_size: int
    device: torch.device
    counts: Any = None
    """Group for what is on the CPU, small numbers most of all; none with one process."""
    use_gpu: bool = True
    """Whether a GPU is taken where there is one."""
    launch: str = field(default_factory=lambda: secrets.token_hex(8))
    """The same for the processes that one launch starts in the place of lost ones, and for no others."""

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def describe_device(self) -> str:
        """A sentence for a person: what this process computes on, and why that is not a GPU where one is expected."""
        if self.device.type == "cuda":
            return f"training on {torch.cuda.get_device_name(self.device)}"
        built_for = torch.version.cuda
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
        if not self.use_gpu or built_for is None or hidden or torch.cuda.is_available():
            return "training on the CPU"
        return (
            f"warning: training on the CPU, since PyTorch, built for CUDA {built_for}, finds no GPU that it can use; "
            "where there is one, nvidia-smi says whether its driver is new enough"
        )

    def wait(self) -> None:
        """Until all are here."""
        if self.world_size > 1:
            dist.barrier(group=self.counts)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Around what the first one writes, on all: where it cannot, all fail with its sentence, and none waits for it.

        What all do together inside comes before the first one writes: whoever cannot is not there for what comes later.

        Raises:
            GexError: what the first one could not write, and what to do; TransientError: it may pass.
        """
        error: GexError | None = None
        try:
            yield
        except GexError as found:
            error = _told_to_go_on(found)
        told = self.broadcast(None if error is None else (str(error), error.transient))
        if error is not None:
            raise error
        if told is not None:
            raise (TransientError if told[1] else GexError)(told[0])

    def broadcast(self, value: Any) -> Any:
        """What the first one holds, on all; plain values only."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.counts)
        return box[0]

    def all(self, numbers: list[int]) -> list[int]:
        """The numbers of all processes, one after the other; equally many on each."""
        if self.world_size == 1:
            return numbers
        parts = [torch.empty(len(numbers), dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(parts, torch.tensor(numbers, dtype=torch.int64), group=self.counts)
        return [int(value) for part in parts for value in part]

    def gathered(self, values: list[Any]) -> list[Any]:
        """What all processes hold, one after the other; plain values only."""
        if self.world_size == 1:
            return values
        parts: list[Any] = [None] * self.world_size
        dist.all_gather_object(parts, values, group=self.counts)
        return [value for part in parts for value in part]

    def once_a_machine(self, make: Callable[[], Made]) -> Made:
        """What the first process of this machine makes, a copy of it on the others, on all processes of the training.

        Raises:
            GexError: one could not make it, with its sentence; TransientError: it may pass.
        """
        if self.world_size == 1:
            return make()
        machines = self.gathered([f"{platform.node()} {this_machine()}"])
        maker = machines.index(machines[self.rank])
        made, error = None, None
        if self.rank == maker:
            try:
                made = make()
            except GexError as found:
                error = found
        told = self.gathered([(made, None if error is None else (str(error), error.transient))])
        if error is not None:
            raise error
        for _, failure in told:
            if failure is not None:
                raise (TransientError if failure[1] else GexError)(failure[0])
        return cast(Made, made if self.rank == maker else told[maker][0])

    def sum(self, numbers: list[float]) -> list[float]:
        """Sums over all processes."""
        if self.world_size == 1:
            return numbers
        total = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(total, group=self.counts)
        return [float(value) for value in total]


@contextmanager
def joined(
    environment: Mapping[str, str] | None = None, *, use_gpu: bool = True, launch: str | None = None
) -> Iterator[Processes]:
    """This process with the others of its training; groups that are made here go when it ends well.

    After an error they stay: others may be in a collective that waits for this one, and to destroy a group of NCCL's
    is to wait for them.

    Without `use_gpu` it takes the CPU, whatever GPUs it sees: they may be somebody else's. `launch` is what
    `Processes.launch` says; without it torchrun's id of the job, or one that nobody else has.

    Raises:
        GexError: the environment names a place that cannot be, or fewer GPUs are here than processes want.
    """
    env = os.environ if environment is None else environment
    world_size, rank, local_rank = (int(env.get(name, default)) for name, default in _PLACE)
    # who starts processes by hand may not say how many are here
    num_here = max(int(env.get("LOCAL_WORLD_SIZE", "1")), local_rank + 1)
    device = _device(local_rank, num_here) if use_gpu else torch.device("cpu")
    if world_size == 1 and not dist.is_initialized():
        yield Processes(0, 1, device, None, use_gpu, launch or _launch(env))
        return
    own = not dist.is_initialized()  # Ray Train has made the group already
    if own:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, rank=rank, world_size=world_size, timeout=_PATIENCE)
    counts = dist.new_group(backend="gloo", timeout=_PATIENCE)
    yield Processes(dist.get_rank(), dist.get_world_size(), device, counts, use_gpu, launch or _launch(env))
    if own:
        dist.destroy_process_group()


_NO_RUN_ID = "none"  # torchrun's word
_PLACE = (("WORLD_SIZE", "1"), ("RANK", "0"), ("LOCAL_RANK", "0"))


def _launch(env: Mapping[str, str]) -> str:
    # --rdzv-id, which torchrun wants to be one job's alone. Without it there is none, and torchrun starts the first
    # process anew on the same machine, where it can be seen that the one before it has ended.
    run_id = env.get("TORCHELASTIC_RUN_ID", _NO_RUN_ID)
    return secrets.token_hex(8) if run_id == _NO_RUN_ID else run_id


def _told_to_go_on(error: GexError) -> GexError:
    """The error, with what to do once the storage that it names is mended."""
    if isinstance(error.__cause__, OSError):
        told = type(error)(f"{error}. Run the same command again to go on")
        told.__cause__ = error.__cause__
        return told
    return error


def _device(local_rank: int, num_here: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if num_here > torch.cuda.device_count():
        raise GexError(
            f"{num_here} processes are started on a machine with {torch.cuda.device_count()} GPUs; start one a GPU, "
            "or set CUDA_VISIBLE_DEVICES to nothing to train on the CPU"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
