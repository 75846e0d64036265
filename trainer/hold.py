"""The hold of a training on its output, so that no second one writes there: `run.lock`, as of a run.

The first process has it, and answers for all. One that is started in the place of a lost one by the same launch takes
it over at once; who reads the output is not asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from gex_pipeline.layout import Layout
from gex_pipeline.run_lock import Lease, held
from trainer.processes import Processes


class Hold:
    """A training's hold on its output."""

    def __init__(self, processes: Processes, lease: Lease | None) -> None:
        """The lease is the first process's."""
        self._processes, self._lease = processes, lease

    @property
    def is_lost(self) -> bool:
        """Whether this process has found it lost; asks nobody."""
        return self._lease is not None and self._lease.is_lost

    def check(self) -> None:
        """Make sure of it before something is written; all processes call it.

        Raises:
            GexError: another training has taken the output over.
        """
        with self._processes.writing():
            if self._lease is not None:
                self._lease.check()


@contextmanager
def holding(output: str, processes: Processes) -> Iterator[Hold]:
    """Hold an output; all processes call it.

    Raises:
        GexError: another training holds it, or it cannot be written to.
    """
    with ExitStack() as stack:
        lease: Lease | None = None
        with processes.writing():
            if processes.is_first:
                lease = stack.enter_context(held(Layout(output), processes.launch, in_place_of_same=True))
        yield Hold(processes, lease)
