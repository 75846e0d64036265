"""What all flows have in common: how a stage is tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from gex_pipeline.errors import GexError

P = ParamSpec("P")
R = TypeVar("R")


def stage(name: str, run_name: str | None = None) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A task that is tried again when its error may pass; results are small and not kept by Prefect."""
    return task(
        name=name,
        task_run_name=run_name,
        retries=3,
        retry_delay_seconds=exponential_backoff(backoff_factor=5),
        retry_jitter_factor=0.3,
        retry_condition_fn=_may_pass,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


def _may_pass(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a failed task is worth another try: only errors that say so of themselves."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, GexError) and error.transient
