"""Work that others do while this process goes on: begun in one order, and taken up in the same."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")
Other = TypeVar("Other")
_MOST_BEGUN = 100  # pieces of work; who begins them holds what they are about


@dataclass(frozen=True)
class Pending(Generic[Value]):
    """A value that may still be in the making."""

    is_done: Callable[[], bool]
    result: Callable[[], Value]  # waits for it

    def then(self, change: Callable[[Value], Other]) -> Pending[Other]:
        """The value that `change` makes of it, when it is asked for."""
        return Pending(self.is_done, lambda: change(self.result()))


def done(value: Value) -> Pending[Value]:
    """A value that is there."""
    return Pending(lambda: True, lambda: value)


def in_turn(begun: Iterable[Pending[Value]], waited: Callable[[float], object] | None = None) -> Iterator[Value]:
    """The values in the order they were begun. More is begun as long as the first of them is not done.

    Seconds that nothing more was begun since values were not there are told to `waited`.
    """
    waiting: deque[Pending[Value]] = deque()

    def first() -> Value:
        started_s = time.monotonic()
        value = waiting.popleft().result()
        if waited:
            waited(time.monotonic() - started_s)
        return value

    for one in begun:
        waiting.append(one)
        while waiting and (waiting[0].is_done() or len(waiting) > _MOST_BEGUN):
            yield first()
    while waiting:
        yield first()
