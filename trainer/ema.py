"""An exponential moving average of the weights that train: the model in, a second set of weights out.

The averages have the type of the weights, which is 32 bits or wider, and lie where the weights lie. Frozen weights and
buffers are not averaged. The average starts at the weights the model has when it is made. Without more these would keep
a share of decay^updates: of a decay of 0.9999 nine tenths after a thousand updates, and the average of a short training
would be what it began with. So the share that stays rises with the updates up to the decay, as in TensorFlow's
ExponentialMovingAverage; after 89,990 of them it is 0.9999. Does not choose when to update: after every step that was
not skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """The average, by the names of the model's parameters."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """`decay` is the share of the average that stays at each update, once there were many.

        Raises:
            ValueError: a weight is held in half precision, in which an average stands still.
        """
        self.decay = decay
        self.num_updates = 0
        """How often it was moved; who takes up the averages of another one takes up this number, too."""
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        for name, parameter in self._parameters.items():
            if parameter.dtype in (torch.bfloat16, torch.float16):
                raise ValueError(f"{name} is held in {parameter.dtype}; an average needs float32")
        self._averages = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._is_swapped = False

    def update(self) -> None:
        """Move the average towards the weights.

        Raises:
            RuntimeError: the average is in the model's place.
        """
        if self._is_swapped:
            raise RuntimeError("the model holds the average; leave swapped_in() before the next update")
        stays = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        with torch.no_grad():
            torch._foreach_lerp_(list(self._averages.values()), list(self._parameters.values()), 1 - stays)
        self.num_updates += 1

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The model with the average as its weights; afterwards it has its own again, to the bit.

        Raises:
            RuntimeError: the average is in the model's place already.
        """
        if self._is_swapped:
            raise RuntimeError("the model holds the average already")
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state_dict(self) -> dict[str, Tensor]:
        """The averages themselves, not copies.

        Raises:
            RuntimeError: the average is in the model's place.
        """
        if self._is_swapped:
            raise RuntimeError("the model holds the average; leave swapped_in() before its state is read")
        return dict(self._averages)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state_dict` gave.

        Raises:
            ValueError: names or shapes are not those of the model.
        """
        own = {name: tuple(average.shape) for name, average in self.state_dict().items()}
        other = {name: tuple(average.shape) for name, average in state.items()}
        if own != other:
            first = next(name for name in [*own, *other] if own.get(name) != other.get(name))
            raise ValueError(f"the average of {first} has shape {other.get(first)}; expected {own.get(first)}")
        for name, average in self._averages.items():
            average.copy_(state[name].detach())

    def _swap(self) -> None:
        # one tensor at a time, in place: wrappers and graphs keep their addresses, and no second copy is needed
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                own = parameter.clone()
                parameter.copy_(self._averages[name])
                self._averages[name].copy_(own)
        self._is_swapped = not self._is_swapped
