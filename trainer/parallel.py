"""How a model is fitted to its processes: checkpointed activations, compiled layers, DDP or FSDP2, in this order.

The model itself knows one device. What comes back is called like the model; `unwrapped` is the model whose names and
weights checkpoints know. Names of parameters do not change by anything done here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from trainer.iam import ApproximationBlock
from trainer.processes import Processes
from trainer.run_settings import ParallelSettings

_MOST_SHAPES = 256


class Parallel:
    """A module made ready for its processes."""

    def __init__(
        self, module: nn.Module, settings: ParallelSettings, processes: Processes, *, some_unused: bool
    ) -> None:
        """`some_unused`: whether there are steps in which a trained parameter takes no part."""
        self.unwrapped = module
        self.settings = settings
        layers = list(_layers(module))
        if settings.activation_checkpointing:
            for layer in layers:
                _recompute(layer)
        if settings.compile:
            # all layers are one code, of which torch compiles eight shapes and then quietly no more; a granularity has
            # one for each kind of layer, with a gradient and without
            torch._dynamo.config.recompile_limit = _MOST_SHAPES
            for layer in [*layers, *_blocks(module)]:
                # shapes are few (a granularity each) and fixed: every one gets code of its own
                layer.compile(dynamic=False)
        self.called: nn.Module = module
        self.is_sharded = processes.world_size > 1 and settings.strategy == "fsdp"
        if self.is_sharded:
            _shard(module, layers, processes)
        elif processes.world_size > 1:
            on_gpu = processes.device.type == "cuda"
            self.called = DistributedDataParallel(
                module,
                device_ids=[processes.device.index] if on_gpu else None,
                find_unused_parameters=some_unused,
                gradient_as_bucket_view=True,
            )

    @property
    def no_sync(self) -> Callable[[], AbstractContextManager[Any]]:
        """A region in which gradients stay with their process."""
        if isinstance(self.called, DistributedDataParallel):
            without_sync: Callable[[], AbstractContextManager[Any]] = self.called.no_sync
            return without_sync
        return self._without_sharded_sync if self.is_sharded else nullcontext

    @contextmanager
    def _without_sharded_sync(self) -> Iterator[None]:
        sharded: Any = self.unwrapped
        sharded.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            sharded.set_requires_gradient_sync(True)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """The layers of both towers."""
    for name, part in module.named_modules():
        if name.endswith("encoder.layers") and isinstance(part, nn.ModuleList):
            yield from part


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    return (part for part in module.modules() if isinstance(part, ApproximationBlock))


def _recompute(layer: nn.Module) -> None:
    """Let a layer forget its activations; a frozen one has none to forget."""
    if any(parameter.requires_grad for parameter in layer.parameters()):
        forward = layer.forward

        # a function of our own: torch compiles no frame of which `checkpoint` is the outermost
        def recomputed(*args: Any, **kwargs: Any) -> Any:
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)

        layer.forward = recomputed


def _shard(module: nn.Module, layers: Sequence[nn.Module], processes: Processes) -> None:
    """FSDP2: a layer's weights are whole only while it is at work; what is in no layer, while the module is.

    The modules of the IAM are entered at several places in a step, so they belong to the second kind. Everything is
    parted again after a forward pass, so that the module has its own parameters after an evaluation too.
    """
    mesh = torch.distributed.init_device_mesh(processes.device.type, (processes.world_size,))
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    fully_shard(module, mesh=mesh, reshard_after_forward=True)
