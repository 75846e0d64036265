"""What a run spends, when and where: a row a stage and a row a shard, in ``tables/timeline-{snapshot}``.

Rows are written in parts while the run goes on, so that one that was killed keeps what it had done, and become a
table of the snapshot when it is published. Processor time is that of GEX's own processes; what Ray held for a stage
is counted apart, since that is what a cluster costs. Bytes read are those of media.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import pyarrow as pa

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.ray_usage import Held, is_ray_running
from gex_pipeline.receipts import write_table
from gex_pipeline.run_state import Run, mark
from gex_pipeline.tables import Database

NAME = "timeline"
PUBLISH = "publish"
_PART_ROWS = 1000
_PART_SECONDS = (10.0, 300.0)  # between parts: a fifth of the stage until now, but not less and not more than these
_PART_SHARE = 0.2

TIMELINE_SCHEMA = pa.schema(
    [
        ("stage", pa.string()),
        ("granularity", pa.string()),  # null where a stage is of all
        ("shard", pa.int64()),  # null in the row of a stage
        ("host", pa.string()),
        ("started_s", pa.float64()),  # Unix time
        ("seconds", pa.float64()),
        ("cpu_s", pa.float64()),  # of a stage: without its shards
        ("held_cpu_s", pa.float64()),  # by Ray, of stages alone
        ("held_gpu_s", pa.float64()),
        ("num_samples", pa.int64()),
        ("bytes_read", pa.int64()),
        ("bytes_written", pa.int64()),
        ("is_complete", pa.bool_()),
    ]
)


class _Stage:
    """The stage that is going on: its beginning, and the rows that are not written yet."""

    def __init__(self, run: Run, name: str, granularity: str | None) -> None:
        self.run, self.name, self.granularity = run, name, granularity
        self.started_s, self._clock_s, self._cpu_s = time.time(), time.monotonic(), time.process_time()
        self._rows: list[dict[str, Any]] = []
        self._written_s = self._clock_s
        self.workers_cpu_s = 0.0
        self.held: Held | None = None

    def row(self, *, is_complete: bool) -> dict[str, Any]:
        """The row of the stage itself, as of now."""
        return {
            "stage": self.name,
            "granularity": self.granularity,
            "host": platform.node(),
            "started_s": self.started_s,
            "seconds": time.monotonic() - self._clock_s,
            "cpu_s": time.process_time() - self._cpu_s + self.workers_cpu_s,
            "held_cpu_s": self.held.cpu_s if self.held else 0.0,
            "held_gpu_s": self.held.gpu_s if self.held else 0.0,
            "is_complete": is_complete,
        }

    def add_shard(self, result: Mapping[str, Any]) -> None:
        """A finished shard's figures, written once there are many or some time has gone."""
        figures = {field.name: result[field.name] for field in TIMELINE_SCHEMA if field.name in result}
        whose = {"stage": self.name, "granularity": self.granularity}
        self._rows.append({**figures, **whose, "bytes_written": result["num_bytes"], "is_complete": True})
        now_s, (least_s, most_s) = time.monotonic(), _PART_SECONDS
        patience_s = min(max((now_s - self._clock_s) * _PART_SHARE, least_s), most_s)
        if len(self._rows) >= _PART_ROWS or now_s - self._written_s > patience_s:
            self.write()

    def write(self, *more: dict[str, Any]) -> None:
        """The rows so far as a part. Bookkeeping ends no run: what cannot be written is tried again with the next."""
        uri = self.run.layout.part(NAME, self.run.snapshot, f"part-{time.time_ns()}")
        self._rows += more
        self._written_s = time.monotonic()
        with suppress(GexError):
            write_table(uri, pa.Table.from_pylist(self._rows, TIMELINE_SCHEMA), {})
            self._rows = []


_CURRENT: ContextVar[_Stage | None] = ContextVar("stage", default=None)


@contextmanager
def stage(run: Run, name: str, granularity: str | None = None) -> Iterator[None]:
    """Note which stage the run has come to, and what it spends until the block ends, in whatever way."""
    mark(run, f"{granularity} {name}" if granularity else name)
    current = _Stage(run, name, granularity)
    token = _CURRENT.set(current)
    is_complete = False
    with ExitStack() as stack:
        if is_ray_running():
            current.held = stack.enter_context(Held())
        try:
            yield
            is_complete = True
        finally:
            _CURRENT.reset(token)
            # That of publishing is in the table it publishes; afterwards the run has no parts any more.
            if name != PUBLISH:
                current.write(current.row(is_complete=is_complete))


def add_shard(result: Mapping[str, Any]) -> None:
    """A shard that the stage going on has built."""
    if (current := _CURRENT.get()) is not None:
        current.add_shard(result)


def add_cpu(seconds: float) -> None:
    """Processor time of workers that are no shards."""
    if (current := _CURRENT.get()) is not None:
        current.workers_cpu_s += seconds


def publish_timeline(run: Run) -> None:
    """The parts as the snapshot's table; of the stage going on what it has spent until now."""
    if (current := _CURRENT.get()) is not None:
        current.write(current.row(is_complete=True))
    parts = [file.uri for file in storage.list_files(run.layout.part_glob(NAME, run.snapshot))]
    if not parts:
        return
    with Database() as database:
        database.view_parquet("parts", parts)
        database.publish_table("parts", run.layout.table(NAME, run.snapshot), "started_s, stage, granularity, shard")
