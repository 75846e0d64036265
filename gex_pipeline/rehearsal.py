"""Samples made first in a child process: what ends it costs the clip, and not the process that builds the shard.

A decoder is a large C program, and a damaged file can crash it. A shard over which workers have died is built with a
`Rehearsal`: the sample whose child process crashes is made without the clip that crashes it alone, or is lost whole.
Twice the work, so not for every shard. What the child makes is thrown away; only how it ended counts. A child that was
killed from outside (memory) blames nobody.
"""

from __future__ import annotations

import multiprocessing
import signal
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from gex_pipeline import registry, storage
from gex_pipeline.errors import GexError, Reason, RejectedError, State
from gex_pipeline.operations.base import Group, Lost, Made, Member, Operation, Workspace, as_piece
from gex_pipeline.shard_job import ShardJob, make_sample

_CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL})
_END_S = 5.0


@dataclass(frozen=True)
class _Child:
    process: BaseProcess
    connection: Connection


class Rehearsal:
    """Makes samples as `make_sample` does, each in a child process first. Use as a context manager."""

    def __init__(self, job: ShardJob) -> None:
        self._job = job
        self._child: _Child | None = None

    def __enter__(self) -> Rehearsal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.connection.close()  # which ends it
            self._child.process.join(_END_S)
            self._child.process.kill()

    def make(self, operation: Operation, group: Group, work: Workspace) -> Made:
        """The sample, without the members that crash a process; nothing, where it cannot be said which do."""
        crash = self._crash_of(group)
        if crash is None:
            return make_sample(operation, group, work)
        lost = tuple(blamed for member in group.members if (blamed := self._blamed(group, member)) is not None)
        rest = replace(group, members=tuple(m for m in group.members if m.id not in {one.member.id for one in lost}))
        if lost and rest.members and self._crash_of(rest) is None:
            made = make_sample(operation, rest, work)
            return replace(made, lost=(*lost, *made.lost))
        return Made(None, lost=(*lost, *(_lost(member, f"making its sample {crash}") for member in rest.members)))

    def _blamed(self, group: Group, member: Member) -> Lost | None:
        alone = self._crash_of(replace(group, members=(member,)))
        return None if alone is None else _lost(member, f"it {alone}")

    def _crash_of(self, group: Group) -> str | None:
        """What happened to the child process that made the sample; None when it did not crash."""
        child = self._child = self._child or _start(self._job)
        try:
            child.connection.send(group)
            child.connection.recv()
        except (EOFError, ConnectionError):
            child.process.join()
            child.connection.close()
            self._child = None
            number = -(child.process.exitcode or 0)
            # any other end comes again where the sample is made for good, and is told there
            return f"crashed a process ({signal.Signals(number).name})" if number in _CRASHES else None
        return None


def _lost(member: Member, detail: str) -> Lost:
    return Lost(member, State.rejected, Reason.undecodable, detail)


def _start(job: ShardJob) -> _Child:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_rehearse, args=(theirs, job), name="gex-rehearsal", daemon=True)
    process.start()
    theirs.close()  # else its end would not be noticed
    return _Child(process, ours)


def _rehearse(connection: Any, job: ShardJob) -> None:
    """The child: make each sample that comes, and look at every frame of a clip that comes alone."""
    operation: Operation = registry.load_operation(job.recipe.granularity[job.granularity].operation)(
        job.recipe, job.granularity
    )
    with suppress(EOFError, ConnectionError):
        while True:
            group: Group = connection.recv()
            with storage.scratch_folder(f"gex-{job.granularity}-rehearsal-") as folder:
                work = Workspace(job.recipe, job.granularity, job.layout, folder)
                made = make_sample(operation, group, work)
                if made.record is None and len(group.members) == 1:
                    _decode(group.members[0], work)
            connection.send(True)


def _decode(member: Member, work: Workspace) -> None:
    """Decode every frame of a clip of which no sample is made by itself; whether it can be is not asked here."""
    from gex_pipeline.media.join import probe_pieces

    every_frame = work.recipe.video.model_copy(update={"check": "decode"})
    with suppress(GexError, RejectedError), work.fetch(member, 0) as path:
        probe_pieces([as_piece(member, path)], every_frame)
