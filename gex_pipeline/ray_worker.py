"""The worker's side of a Ray job: one shard built or verified, tried again where the failure may pass, and counted.
A shard over which workers have died is built with care: a clip that crashes its decoder becomes a loss.

In: a row with a shard's number. Out: a row of small figures, or of the failure. What is counted goes to Ray's metrics,
which a cluster offers to Prometheus as ``ray_gex_*``; where Ray exports none, nothing happens.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from gex_pipeline.errors import GexError, TransientError
from gex_pipeline.rehearsal import Rehearsal
from gex_pipeline.shard_job import ShardJob, ShardResult, build_shard
from gex_pipeline.shards.findings import Finding, ShardCheck

TRIES = 3
_WARY_FROM = 2  # deaths of the worker: one may be the machine's or a person's
_OURS = Path(__file__).parent
_NOTHING = {"int": 0, "float": 0.0, "str": ""}  # in a row of a shard that failed, by type
_COUNTED = {
    "gex_shards_built": "shards that were built",
    "gex_shards_failed": "shards that were not built, and stay planned",
    "gex_samples": "samples in built shards",
    "gex_lost_parents": "clips or samples that built shards could not use, by reason",
    "gex_bytes": "bytes of built shards",
    "gex_bytes_read": "bytes of media that were read for built shards",
    "gex_seconds": "seconds that building took, of all workers together",
    "gex_cpu_seconds": "seconds of processor that building took",
}


class Builder:
    """Builds one shard a row."""

    def __init__(self, job: ShardJob) -> None:
        self._job = job

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """A shard's figures, or its failure."""
        shard = int(row["shard"])
        try:
            result = _with_patience(lambda: self._build(shard))
        except GexError as error:
            return self._failed(shard, str(error), transient=error.transient)
        except Exception as error:  # noqa: BLE001  the shard's boundary: a failed shard, not a failed job
            return self._failed(shard, _mistake(error), transient=False)
        _count(self._job.granularity, result)
        return {**vars(result), "error": "", "transient": False}

    def _build(self, shard: int) -> ShardResult:
        if _num_deaths() < _WARY_FROM:
            return build_shard(self._job, shard)
        with Rehearsal(self._job) as rehearsal:
            return build_shard(self._job, shard, rehearsal.make)

    def _failed(self, shard: int, error: str, *, transient: bool) -> dict[str, Any]:
        _counter("gex_shards_failed").inc(1, {"granularity": self._job.granularity})
        figures = {field.name: _NOTHING[str(field.type)] for field in fields(ShardResult)}
        return {**figures, "shard": shard, "error": error, "transient": transient}


def _mistake(error: Exception) -> str:
    """What nobody foresaw, in which sample and where: in an operation that is not built in, where its code was run."""
    frames = traceback.extract_tb(error.__traceback__)
    others = [frame.filename for frame in frames if not Path(frame.filename).is_relative_to(_OURS)]
    frame = [frame for frame in frames if not others or frame.filename == others[0]][-1]
    place = f"{Path(frame.filename).name}, line {frame.lineno}, in {frame.name}"
    notes = "; ".join([*getattr(error, "__notes__", ()), place])
    return f"{type(error).__name__}: {error} ({notes}); mend it there"


def verify_patiently(check: ShardCheck) -> list[Finding]:
    """A shard's findings; its source clips have travelled with the check."""
    from gex_pipeline.shards.checks import verify_shard

    findings: list[Finding] = _with_patience(lambda: verify_shard(check))
    return findings


def _num_deaths() -> int:
    """How many workers died over this task before; nothing public of Ray's says so."""
    from ray._private.worker import global_worker

    return int(global_worker.core_worker.get_current_task_attempt_number())


def _with_patience(build: Callable[[], Any]) -> Any:
    for attempt in range(TRIES):
        try:
            return build()
        except TransientError:
            if attempt == TRIES - 1:
                raise
            time.sleep(2.0**attempt)
    raise AssertionError("unreachable")


def _count(granularity: str, result: ShardResult) -> None:
    figures = {
        "gex_shards_built": 1,
        "gex_samples": result.num_samples,
        "gex_bytes": result.num_bytes,
        "gex_bytes_read": result.bytes_read,
        "gex_seconds": result.seconds,
        "gex_cpu_seconds": result.cpu_s,
    }
    for name, amount in figures.items():
        if amount:  # Ray takes no increment of 0
            _counter(name).inc(amount, {"granularity": granularity})
    for reason, num in json.loads(result.lost).items():
        _counter("gex_lost_parents", "reason").inc(num, {"granularity": granularity, "reason": reason})


@cache
def _counter(name: str, *more_tags: str) -> Any:
    from ray.util.metrics import Counter

    return Counter(name, description=_COUNTED[name], tag_keys=("granularity", *more_tags))
