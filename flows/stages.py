"""What all flows have in common: how a stage is tried again, how a failure is told, what a parameter may be."""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypeVar

from prefect import State, Task
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext
from prefect.states import Failed
from prefect.tasks import exponential_backoff
from prefect.utilities.annotations import opaque
from pydantic import AfterValidator, BaseModel, Field

from gex_pipeline import run_log
from gex_pipeline.errors import GexError, StuckError
from gex_pipeline.granularity import Node
from gex_pipeline.run_state import Run
from gex_pipeline.stopping import listening

P = ParamSpec("P")
R = TypeVar("R")


def _filled(value: str) -> str:
    if "{{" in value:
        raise ValueError(
            f"{value!r} is a place for a variable that was not set when the deployment was made; "
            "set it and deploy again, or give the parameter to the run"
        )
    return value


# Prefect keeps "{{ $NAME }}" as it stands when NAME is not set. The pattern tells the server to refuse such a run.
Filled = Annotated[str, AfterValidator(_filled), Field(json_schema_extra={"pattern": r"^([^{]|\{[^{])*\{?$"})]


def need_variables(names: list[str]) -> dict[str, Any]:
    """A step of prefect.yaml: ends a deployment whose variables are not set before it is made.

    Raises:
        ValueError: one is not set.
    """
    unset = [name for name in names if not os.environ.get(name)]
    if unset:
        raise ValueError(f"set {' and '.join(unset)}, and deploy again; docs/operating.md says what they are")
    return {}


def stage(name: str, run_name: str | None = None) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A task that is tried again when its error may pass; results are small and not kept by Prefect."""

    return lambda function: _Stage(
        _naming_itself(function, name, is_run_named=run_name is not None),
        name=name,
        task_run_name=run_name,
        retries=3,
        retry_delay_seconds=exponential_backoff(backoff_factor=5),
        retry_jitter_factor=0.3,
        retry_condition_fn=_may_pass,
        cache_policy=NO_CACHE,
        persist_result=False,
    )


class _Stage(Task[P, R]):
    """A task whose arguments Prefect takes as they are: by itself it looks for futures in every shard of a `Run`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call: Callable[..., Any] = super().__call__
        return call(*map(opaque, args), **{name: opaque(value) for name, value in kwargs.items()})


def _naming_itself(function: Callable[P, R], name: str, *, is_run_named: bool) -> Callable[P, R]:
    """`function`, whose errors carry the name of the task run as a note, and whose begin and end are logged."""

    @wraps(function)
    def named(*args: P.args, **kwargs: P.kwargs) -> R:
        facts = _facts(name, args)
        started_s = time.monotonic()
        try:
            if (told := listening()) is not None:
                told.check()
            run_log.install()
            run_log.write("begin", **facts)
            result = function(*args, **kwargs)
        except GexError as error:
            context = TaskRunContext.get()
            error.add_note(context.task_run.name if context and is_run_named else name)
            run_log.write(str(error), level=logging.ERROR, **facts, seconds=round(time.monotonic() - started_s, 3))
            raise
        run_log.write("end", **facts, seconds=round(time.monotonic() - started_s, 3))
        return result

    return named


def _facts(name: str, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """What a stage's lines of the log have in common."""
    facts = {"stage": name}
    for argument in arguments:
        if isinstance(argument, Run):
            facts["run"] = argument.run_id
        elif isinstance(argument, Node):
            facts["granularity"] = argument.name
    return facts


def flags_of(parameters: BaseModel, names: Mapping[str, str]) -> list[str]:
    """The parameters that are not as by default, as flags of the command that does the same; `names` has the flags."""
    fields = type(parameters).model_fields
    words = []
    for field, flag in names.items():
        value = getattr(parameters, field)
        if value == fields[field].default:
            continue
        if isinstance(value, bool):
            words += [flag]
            continue
        for one in value if isinstance(value, tuple) else (value,):
            words += [flag, f"{one:g}" if isinstance(one, float) else str(one)]
    return words


def failed(error: GexError, *command: str) -> State[Any]:
    """The final state of a flow: in which stage it failed, why, and which command goes on.

    Whoever called the flow gets the error itself.
    """
    stage_name = next(iter(getattr(error, "__notes__", ())), "")
    where = f"stage '{stage_name}' failed: " if stage_name else ""
    _last_failure[:] = [error]
    return Failed(message=f"{where}{str(error).rstrip('. ')}. To go on: {shlex.join(command)}", data=error)


_last_failure: list[GexError] = []


def failure_of(state: State[Any]) -> BaseException:
    """The error that a flow of this process ended with.

    A server whose database is busy can answer with the state as it has it, and that is without its data.
    """
    error: BaseException = state.result(raise_on_failure=False)
    if not isinstance(error, GexError):
        return next((last for last in _last_failure if str(last).rstrip(". ") in (state.message or "")), error)
    return error


def _may_pass(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a failed task is worth another try in this run: only errors that say so of themselves."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, GexError) and error.transient and not isinstance(error, StuckError)
