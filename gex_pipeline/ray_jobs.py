"""Runs one edge over its planned shards as a Ray Data job; starts Ray, and has its workers score and verify.

Beside this module ray_worker, ray_submit, ray_usage and summarize's vLLM backend import ray, and nothing else does.
One row is one shard: a number goes in, small figures come out. Video bytes never enter the object store.
A shard that fails is a row too, so that one bad shard does not take the others with it.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from gex_pipeline import ray_node, ray_usage, run_log, timeline
from gex_pipeline.cores import num_cores
from gex_pipeline.errors import GexError, StuckError, TransientError, innermost
from gex_pipeline.ray_code import copied_code
from gex_pipeline.ray_scorer import Scorer, VideoScores, VideoToScore
from gex_pipeline.ray_worker import TRIES, Builder, verify_patiently
from gex_pipeline.recipe import RaySettings
from gex_pipeline.shard_job import ShardJob
from gex_pipeline.shards.findings import Finding, ShardCheck
from gex_pipeline.summarize.backends import Cluster
from gex_pipeline.summarize.pending import Pending
from gex_pipeline.validate.settings import ScorerSettings

_AHEAD = 4  # shards that wait for a core beside twice as many as there are cores
_ASK_S = 5.0  # a worker that is busy with what nobody waits for any more is not waited for
_SCORER_CPUS = 0.5
_ENGINE_CPUS = 1.3  # of one vLLM engine and the stages before and behind it
_CPUS_A_SCORER = 4  # it keeps one of them busy; the others are for what answers meanwhile, and its memory
_NAMED = 5
_STUCK_S = 6 * 3600.0  # without any shard finished: a shard of videos to re-encode may take an hour
_ENVIRONMENT = {
    # Workers that Ray kills for want of memory are counted apart from those that die, and by default without a bound.
    # Its pauses double from a second: so many take a minute, in which other shards of the node may end.
    "RAY_task_oom_retries": "6",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True)
class ShardFailure:
    """A shard that was not built; it stays planned."""

    shard: int
    message: str
    transient: bool


@contextmanager
def ray_session(settings: RaySettings) -> Iterator[None]:
    """Ray for the time of a run: a private one, or a connection to the cluster the recipe names.

    A Ray that is running already in this process is used and left running.

    Raises:
        GexError: there is no cluster at the recipe's address.
        TransientError: a private Ray did not start.
    """
    import ray

    address = job_address() or settings.address
    if address.startswith("ray://"):
        # Tried with Ray 2.60: a driver behind Ray Client has no core worker, which Ray Data asks for its objects.
        raise GexError(
            f"Ray Data does not run through Ray Client ({address}); on a machine of the cluster say address = "
            "'host:port', from elsewhere send the run there: gex run RECIPE --submit http://HOST:8265"
        )
    if ray.is_initialized():
        yield
        return
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == "local":
        # With its default of 1, ray.init waits for ever for a first worker that dies before it has registered.
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        # A private Ray has no business on the network: with this, every socket is on loopback.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        options |= {
            "num_cpus": settings.num_cpus or max(2, num_cores()),
            "object_store_memory": settings.object_store_bytes,
            "include_dashboard": False,
        }
    try:
        with ray_node.watched() if address == "local" else nullcontext(), ExitStack() as until_started:
            if address != "local" and settings.send_code and job_address() is None:
                options["runtime_env"] = code_environment(until_started.enter_context(copied_code()))
            _start_ray(address, options)
            until_started.close()
            ray_usage.leave_out_others()
            yield
    finally:
        ray.shutdown()


def job_address() -> str | None:
    """Inside a job that was submitted to a cluster: the address of that cluster, whatever the recipe says."""
    return os.environ.get("RAY_ADDRESS") if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else None


def cluster_of(settings: RaySettings) -> Cluster:
    """What a summarizer's backend has to know of the Ray that its engines will be in."""
    return Cluster(is_private=(job_address() or settings.address) == "local", adds_nodes=settings.autoscaling)


def code_environment(folder: Path) -> dict[str, Any]:
    """What workers are started with so that they run the packages in a folder."""
    return {"py_modules": [str(path) for path in sorted(folder.iterdir())]}


def _start_ray(address: str, options: dict[str, Any]) -> None:
    import ray

    try:
        with ray_node.sigterm_kept(ray._private.utils):
            ray.init(address=address, **options)
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        if isinstance(error, OSError) and "AF_UNIX" in first:
            raise GexError(f"Ray's sockets do not fit below TMPDIR ({first}); set TMPDIR to a shorter path") from error
        if address == "local" and isinstance(error, UnicodeEncodeError):
            raise GexError(
                f"Ray takes no folder whose name is not ASCII, as {tempfile.gettempdir()!r}; set TMPDIR to another one"
            ) from error
        if address == "local" and (type(error) is Exception or isinstance(error, RuntimeError)):
            # A node of which a process died while it came up; Ray has no class of its own for that.
            raise TransientError(f"Ray did not start ({first}). Run the same command again") from error
        if isinstance(error, (ConnectionError, ValueError)):
            raise GexError(
                f"no Ray cluster at {address!r}: {first}. One with tokens wants RAY_AUTH_MODE=token here, and "
                "RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN"
            ) from error
        raise


def run_shards(
    job: ShardJob, shards: Sequence[int], settings: RaySettings, on_done: Callable[[dict[str, Any]], None]
) -> list[ShardFailure]:
    """Build these shards on the cluster; calls `on_done` with each shard's figures as they come in.

    Returns the shards that failed; the others are published.

    Raises:
        TransientError: workers died too often over one shard, or Ray did; StuckError: no shard was finished for long.
    """
    import ray.data
    import ray.util.annotations
    from ray.data.exceptions import ExecutionTimeoutError

    _check_room(settings)
    _configure_data()
    rows = [{"shard": shard} for shard in shards]
    with warnings.catch_warnings():
        # Ray 2.60 announces a new spelling and does not have it yet. Without the bound, Ray Data starts a worker
        # that a decoder crashes again for ever.
        warnings.simplefilter("ignore", ray.util.annotations.RayDeprecationWarning)
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            Builder(job),
            num_cpus=settings.cpus_a_shard,
            memory=settings.memory_a_shard_bytes,
            concurrency=settings.max_shards,
            max_retries=TRIES,
        )
    failures = []
    missing = set(shards)
    try:
        for row in dataset.iter_rows():
            missing.discard(row["shard"])
            facts = {"run": job.plan_digest, "stage": "build", "granularity": job.granularity, **row}
            if row["error"]:
                failures.append(ShardFailure(row["shard"], row["error"], row["transient"]))
                run_log.write("shard not built", level=logging.ERROR, **facts)
            else:
                on_done(row)
                run_log.write("shard built", **facts)
    except (ray.exceptions.RayError, ExecutionTimeoutError) as error:
        is_stuck = isinstance(error, ExecutionTimeoutError)
        what = f"finished no shard for {_STUCK_S / 3600:g} hours" if is_stuck else f"broke off ({innermost(error)})"
        raise (StuckError if is_stuck else TransientError)(
            f"the Ray job of {job.granularity} {what}; {len(missing)} of {len(shards)} shards are missing, the "
            f"first {_names(missing)}; finished shards stay. Run the same command again to go on; where a worker dies "
            "at the same shard every time, [ray] memory_a_shard_bytes and max_shards give it more memory"
        ) from error
    return failures


def _names(shards: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(shards)[:_NAMED]))


def _check_room(settings: RaySettings) -> None:
    """Fail where a shard would wait for ever. On a cluster that adds nodes, Ray Data asks it for them.

    Raises:
        GexError: no node is large enough for one shard.
    """
    import ray

    needed = {"CPU": settings.cpus_a_shard, "memory": settings.memory_a_shard_bytes or 0}
    rooms = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if settings.autoscaling or any(all(room.get(name, 0) >= num for name, num in needed.items()) for room in rooms):
        return
    raise GexError(
        f"no node of the Ray cluster has {needed['CPU']:g} CPUs and {needed['memory']} bytes of memory, which [ray] "
        "cpus_a_shard and memory_a_shard_bytes ask for one shard; ask for less, or say autoscaling = true when the "
        "cluster adds nodes by itself"
    )


def _num_scorers(settings: RaySettings, engine_gpus: int = 0) -> int:
    """Scoring workers; where the recipe leaves it open, more on a larger machine, since one holds a GPU's engine up."""
    import ray

    if settings.scorers:
        return settings.scorers
    room = ray.cluster_resources()
    if settings.scorer_gpus or (engine_gpus and not room.get("GPU")):
        return 1  # quicker than an engine on CPUs, or a GPU's share that was asked for once
    return max(1, int(room.get("CPU", 0) / _CPUS_A_SCORER))


def _check_scorers(settings: RaySettings, engine_gpus: int = 0) -> None:
    """Fail where a scoring worker, or an engine beside them, would never start, and who asks it would wait.

    Raises:
        GexError: the nodes have no room for all of them.
    """
    import ray

    needed = {"CPU": _SCORER_CPUS, "GPU": settings.scorer_gpus}
    rooms = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    asked = _num_scorers(settings, engine_gpus)
    num = sum(min(int(room.get(name, 0) / of + 1e-9) for name, of in needed.items() if of) for room in rooms)
    if settings.autoscaling:
        return
    num_gpus, scorers_gpus = sum(room.get("GPU", 0) for room in rooms), asked * settings.scorer_gpus
    if num >= asked and num_gpus and scorers_gpus + engine_gpus > num_gpus:
        raise GexError(
            f"the Ray cluster has {num_gpus:g} GPUs; one vLLM engine takes {engine_gpus} (tensor_parallel_size) and "
            f"the scoring workers {scorers_gpus:g} beside it, which [ray] scorers and scorer_gpus ask for; ask for "
            "less (scorer_gpus = 0 scores on CPUs), or say autoscaling = true when the cluster adds nodes by itself"
        )
    num_cpus = sum(room.get("CPU", 0) for room in rooms)
    if num >= asked and engine_gpus and asked * _SCORER_CPUS + _ENGINE_CPUS > num_cpus:
        raise GexError(
            f"the Ray cluster has {num_cpus:g} CPUs; one vLLM engine and the stages around it take {_ENGINE_CPUS:g} "
            f"and {asked} scoring workers {asked * _SCORER_CPUS:g}; let fewer score ([ray] scorers), give a private "
            "Ray more ([ray] num_cpus), or say autoscaling = true when the cluster adds nodes by itself"
        )
    if num >= asked:
        return
    raise GexError(
        f"the Ray cluster has room for {num} of {asked} scoring workers with {needed['CPU']:g} CPUs and "
        f"{needed['GPU']:g} GPUs each, which [ray] scorers and scorer_gpus ask for; ask for less (scorer_gpus = 0 "
        "scores on CPUs), or say autoscaling = true when the cluster adds nodes by itself"
    )


class ScorerPool:
    """Workers that hold the scoring models, for the time of a stage. Use as a context manager.

    Pairs are scored in pieces of a fixed size in the order given, so that the same pairs get the same scores. Asking
    begins the work and waits for nothing.
    """

    _PIECE = 64

    def __init__(self, scores: ScorerSettings, settings: RaySettings, engine_gpus: int = 0) -> None:
        """Start the workers; an engine that answers meanwhile takes so many GPUs.

        Raises:
            GexError: the cluster has no room for them.
        """
        import ray

        _check_scorers(settings, engine_gpus)
        worker = ray.remote(num_cpus=_SCORER_CPUS, num_gpus=settings.scorer_gpus, max_restarts=2, max_task_retries=2)(
            Scorer
        )
        # Ray hides no GPU from a worker that takes none: left to itself it would score beside the engine, on its GPU.
        device = None if settings.scorer_gpus else "cpu"
        self._workers = [worker.remote(scores, device) for _ in range(_num_scorers(settings, engine_gpus))]
        self._turn = cycle(self._workers)

    def __enter__(self) -> ScorerPool:
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        with suppress(ray.exceptions.RayError):  # of workers that have died nobody knows what they spent
            timeline.add_cpu(sum(ray.get([worker.cpu_s.remote() for worker in self._workers], timeout=_ASK_S)))
        for worker in self._workers:
            ray.kill(worker)

    def score_texts(self, summaries: Sequence[str], long_texts: Sequence[str]) -> Pending[list[dict[str, float]]]:
        """Scores of each summary against its long text, in the order given."""
        return self._spread("score_texts", list(zip(summaries, long_texts, strict=True)))

    def score_videos(self, rows: Sequence[VideoToScore]) -> Pending[list[VideoScores]]:
        """CLIP cosines of each video with its long and its short text, in the order given."""
        return self._spread("score_videos", list(rows))

    def _spread(self, method: str, items: list[Any]) -> Pending[list[Any]]:
        import ray

        pieces = [items[start : start + self._PIECE] for start in range(0, len(items), self._PIECE)]
        calls = [getattr(worker, method).remote(piece) for piece, worker in zip(pieces, self._turn, strict=False)]

        def is_done() -> bool:
            return not calls or len(ray.wait(calls, num_returns=len(calls), timeout=0)[0]) == len(calls)

        def result() -> list[Any]:
            try:
                return [scores for piece in ray.get(calls) for scores in piece]
            except ray.exceptions.RayTaskError:
                raise  # the scorer's own error; it would come again
            except ray.exceptions.RayError as error:
                first = str(error).strip().partition("\n")[0]
                raise TransientError(f"the scoring workers died ({first}); parts that were written stay") from error

        return Pending(is_done, result)


def _configure_data() -> None:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = _STUCK_S
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def verify_shards(checks: Sequence[ShardCheck], settings: RaySettings) -> Iterator[list[Finding]]:
    """Verify these shards on a cluster, a task a shard; the same findings as on this machine's cores.

    The cluster's machines must reach the shards: a shared disk or an object store. The source clips that a shard is
    compared with lie on this machine, and travel with its check, which is made when its turn is near.
    """
    import ray

    if not checks:
        return
    with ray_session(settings):
        task = ray.remote(num_cpus=settings.cpus_a_shard, max_retries=TRIES)(verify_patiently)
        left = iter(checks)
        running: list[Any] = []
        try:
            while True:
                num_wanted = _AHEAD + int(2 * ray.cluster_resources().get("CPU", 0) / settings.cpus_a_shard)
                for check in islice(left, max(0, num_wanted - len(running))):
                    running.append(task.remote(replace(check, clips=check.clips and check.clips.carried())))
                if not running:
                    return
                done, running = ray.wait(running, timeout=_STUCK_S)
                if not done:
                    raise GexError(f"the Ray job hangs: no shard was verified within {_STUCK_S / 3600:g} hours")
                yield from ray.get(done)
        except ray.exceptions.RayError as error:
            raise GexError(f"the Ray job broke off: {innermost(error)}") from error


def raise_failures(granularity: str, failures: Sequence[ShardFailure], num_built: int) -> None:
    """Raise when shards failed, saying which, why, and that the others are safe."""
    if not failures:
        return
    first = failures[0]
    transient = all(failure.transient for failure in failures)
    message = (
        f"{len(failures)} shards of {granularity} were not built ({num_built} were and stay); "
        f"first: shard {first.shard}: {first.message}. Run the same command again to go on"
    )
    raise (TransientError if transient else GexError)(message)
