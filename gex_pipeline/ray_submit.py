"""Sends ``gex run`` to a cluster as a Ray job, follows it and ends as it ends.

In: the address of the cluster's dashboard and a recipe. This package and the recipe file travel with the job, which
runs on the head node and uses the cluster it is on, whatever the recipe's address says. The job's name follows from
what is run: asked for while it runs, it is followed and not started twice; a client that is gone leaves it running.
The dashboard has no log from a place on, but the whole alone, so it is asked for seldom where a job runs long; one that
does not answer is asked again for minutes, since the job goes on without it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from gex_pipeline import storage
from gex_pipeline.errors import GexError, MissingExtraError, TransientError
from gex_pipeline.model_places import scores_of, summarizer_of
from gex_pipeline.ray_code import copied_code
from gex_pipeline.recipe import Recipe, load_recipe

T = TypeVar("T")

_LOOK_S = 1.0
_READ_S = (1.0, 30.0)  # between readings of the log: a twentieth of the time since the first, within these
_READ_SHARE = 0.05
_PATIENCE_S = 300.0  # with a dashboard that does not answer; the head of a cluster takes minutes to be started again
_ANSWER_S = 60.0  # until a byte of an answer comes; of itself Ray's client waits for ever
_NO_ANSWER = (RuntimeError, OSError)  # another status than 200, for which Ray has no class of its own; no answer at all
_RECIPE = "recipe.toml"
_PASSED_ON = ("PREFECT_API_URL",)  # nothing secret: what a job is started with stands in the dashboard


def submit(address: str, place: str, flags: Sequence[str], say: Callable[[str], None]) -> int:
    """Run a recipe as a job of the cluster whose dashboard is at `address`; returns the job's exit code.

    Raises:
        RecipeError: the recipe is wrong; GexError: there is no such cluster, or the job could not be started;
        MissingExtraError: Ray's job client is not installed; TransientError: the dashboard stopped to answer.
    """
    sent = sent_recipe(place)
    there = _RECIPE if sent else storage.absolute(place)
    entrypoint = shlex.join(["python", "-m", "gex_pipeline.cli.main", "run", there, *flags])
    identity = [entrypoint, sent.decode() if sent else "", storage.absolute(place)]
    name = f"gex-{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]}"
    client = _client(address)
    try:
        known = [job for job in client.list_jobs() if (job.submission_id or "").startswith(f"{name}-")]
        job = next((one.submission_id for one in known if not one.status.is_terminal()), None)
        if job is None:
            job = _start(client, f"{name}-{len(known)}", entrypoint, sent)
            say(f"job {job} is started; 'ray job stop {job} --address {address}' ends it")
        else:
            say(f"job {job} is running already; following it")
    except _NO_ANSWER as error:
        raise _silent(address, error) from error
    return _follow(client, job, say)


def sent_recipe(place: str) -> bytes | None:
    """The recipe file's content when the job can have a copy; None when it has to read it where it lies."""
    if "://" in place or Path(place).is_dir():
        return None
    recipe = load_recipe(place)  # a wrong one is told here and at once
    return None if _has_relative_paths(recipe) else Path(place).read_bytes()


def _has_relative_paths(recipe: Recipe) -> bool:
    clips = recipe.source.clips
    media = recipe.source.media.model_dump()
    named = [recipe.output, *([clips] if isinstance(clips, str) else clips)]
    named += [media[name] for name in ("uri", "root") if name in media]
    return any("://" not in one and not one.startswith("/") for one in named) or _has_models_beside_it(recipe)


def _has_models_beside_it(recipe: Recipe) -> bool:
    """Whether a model or a chat template of the recipe is found by a path from its folder."""
    summarizers = {name: node.summarizer for name, node in recipe.granularity.items() if hasattr(node, "summarizer")}
    placed = {name: summarizer_of(recipe, name) for name in summarizers}
    return placed != summarizers or scores_of(recipe) != recipe.scores


def _client(address: str) -> Any:
    try:
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise MissingExtraError("ray[default]", "cluster") from error

    class Client(JobSubmissionClient):  # type: ignore[misc]  # Ray has no types
        """Ray's, which every request to a dashboard goes through."""

        def _do_request(self, *request: Any, **more: Any) -> Any:
            return super()._do_request(*request, **{"timeout": _ANSWER_S, **more})

    try:
        return Client(address)
    except AuthenticationError as error:
        raise GexError(
            f"the Ray cluster at {address!r} wants a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the "
            "file with it"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise GexError(f"no Ray dashboard at {address!r}: {_first(error)}") from error
    except OSError as error:  # it is there, and says nothing or that it cannot
        raise _silent(address, error) from error


def _silent(address: str, error: Exception) -> TransientError:
    return TransientError(
        f"the Ray dashboard at {address!r} did not answer ({_first(error)}). Run the same command again; it "
        "follows the job if that was started"
    )


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _start(client: Any, name: str, entrypoint: str, sent: bytes | None) -> str:
    with copied_code() as folder:
        if sent:
            (folder / _RECIPE).write_bytes(sent)
        environment = {variable: os.environ[variable] for variable in _PASSED_ON if variable in os.environ}
        try:
            job: str = client.submit_job(
                entrypoint=entrypoint,
                submission_id=name,
                runtime_env={"working_dir": str(folder), "env_vars": environment},
                entrypoint_num_cpus=0,
            )
        except RuntimeError as error:
            raise GexError(f"the job was not started: {str(error).strip().splitlines()[-1]}") from error
    return job


def _follow(client: Any, job: str, say: Callable[[str], None]) -> int:
    """Say what the job says until it has ended."""
    num_said, started_s, due_s = 0, time.monotonic(), 0.0
    while True:
        details = _patiently(partial(client.get_job_info, job), job)
        has_ended = details.status.is_terminal()
        if has_ended or time.monotonic() >= due_s:
            said = _patiently(partial(client.get_job_logs, job), job)
            complete = said if has_ended else said[: said.rfind("\n") + 1]
            if new := complete[num_said:].rstrip("\n"):
                say(new)
            num_said = len(complete)
            now_s, (least_s, most_s) = time.monotonic(), _READ_S
            due_s = now_s + min(max((now_s - started_s) * _READ_SHARE, least_s), most_s)
        if has_ended:
            break
        time.sleep(_LOOK_S)
    if str(details.status) in ("SUCCEEDED", "JobStatus.SUCCEEDED"):
        return 0
    if details.driver_exit_code is None:
        say(f"job {job} ended without an exit code: {details.message}")
    return details.driver_exit_code or 1


def _patiently(ask: Callable[[], T], job: str) -> T:
    """What the dashboard says of a job, asked again while it does not answer.

    Raises:
        TransientError: it has not answered for minutes.
    """
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return ask()
        except _NO_ANSWER as error:
            if time.monotonic() >= until_s:
                raise TransientError(
                    f"the Ray dashboard has not said for {_PATIENCE_S / 60:g} minutes how job {job} goes "
                    f"({_first(error)}). The job goes on where the cluster does; run the same command again to "
                    "follow it"
                ) from error
        time.sleep(_LOOK_S)
