"""A training in several processes under Ray Train, started anew from its last checkpoint when one of them is lost.

The loop is the same as everywhere (trainer.train); here processes are placed, watched and replaced. What is wrong with
the recipe or the data ends the training at once, with the sentence that the process said; only what may pass is tried
again. Ray is running already. Figures and sentences of the first process are told here as they come; a signal to stop
that comes here is passed on to it, since Ray Train runs it in a thread, where signals never arrive.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from gex_pipeline.errors import GexError, TransientError
from gex_pipeline.layout import Layout
from gex_pipeline.run_lock import check_free
from trainer.run_settings import LaunchSettings
from trainer.stopping import StopSignals
from trainer.train import Outcome, train
from trainer.train_recipe import TrainRecipe

_LOOK_S = 1.0
_COMING_S = 60.0  # nodes of a cluster that is coming up as well
_GONE_S = 1800.0  # without nodes that were lost in training: Ray Train waits for them for ever, and without a word
_NAMED = 2  # errors that the sentence at the end tells, of many processes


def train_with_ray(recipe: TrainRecipe, say: Callable[[str], None] = lambda line: None) -> Outcome:
    """Train as `trainer.train.train` does, in as many processes as the recipe says.

    Told to stop in the main thread, it waits for the step and the checkpoint; told again, it ends at once.

    Raises:
        GexError: there is no room for the processes, or one says that training cannot go on; TransientError: processes
            were lost more often than the recipe allows.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    class Trainer(TorchTrainer):
        controller: Any = None

        def _register_sigint_handler(self, controller: Any) -> None:
            """Ray's own would take the place of ours and abort the processes at the first SIGINT."""
            self.controller = controller

    check_free(Layout(recipe.output))  # before it waits for resources that the other training has
    launch = recipe.launch
    resources = _resources(launch)
    _check_room(launch, resources, say)
    board = _board()
    trainer = Trainer(
        _one_process,
        train_loop_config=_config(recipe, board),
        scaling_config=ScalingConfig(
            num_workers=launch.num_processes, use_gpu=bool(launch.gpus_a_process), resources_per_worker=resources
        ),
        run_config=RunConfig(
            name="ray", storage_path=recipe.output, failure_config=FailureConfig(max_failures=launch.max_restarts)
        ),
    )
    error: Exception | None = None
    room = _Room(launch, resources, say)

    def look() -> None:
        if room.is_gone() and trainer.controller is not None:
            ray.kill(trainer.controller)

    with _told(board, say, look):
        try:
            trainer.fit()
        except (ray.exceptions.RayError, ray.train.TrainingFailedError) as lost:
            error = lost
    answer: dict[str, Any] = ray.get(board.answer.remote())
    if answer.get("failure"):
        raise (TransientError if answer["transient"] else GexError)(answer["failure"])
    if error is not None or "outcome" not in answer:
        raise _lost(error, room, launch)
    return Outcome(**answer["outcome"])


def _lost(error: Exception | None, room: _Room, launch: LaunchSettings) -> TransientError:
    """Why training ended without an answer of its processes."""
    if error is not None and room.is_given_up:
        return TransientError(
            f"{room.found} for {_GONE_S / 60:g} minutes; run the same command again when the nodes are back, or with "
            "fewer processes, to go on from the last checkpoint"
        )
    return TransientError(
        f"training lost its processes more than {launch.max_restarts} times ({_cause(error)}); run the same "
        "command again to go on from the last checkpoint"
    )


def _config(recipe: TrainRecipe, board: Any) -> dict[str, Any]:
    """What every process is given; the same for those that are started anew."""
    content = recipe.model_dump(mode="json", exclude_unset=True)
    return {"recipe": content, "board": board, "launch": secrets.token_hex(8)}


def _board() -> Any:
    """A board on this node: one on a node that is lost would take with it what was said there."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(_Board).remote()


def _resources(launch: LaunchSettings) -> dict[str, float]:
    """What one process takes."""
    resources = {"CPU": launch.cpus_a_process}
    return resources | {"GPU": float(launch.gpus_a_process)} if launch.gpus_a_process else resources


def _check_room(launch: LaunchSettings, resources: Mapping[str, float], say: Callable[[str], None]) -> None:
    """Fail where Ray Train would wait for ever without a word. Nodes of a cluster have a minute to come.

    Raises:
        GexError: the nodes have no room for all of them.
    """
    room, until_s = _Room(launch, resources, say), time.monotonic() + (0.0 if launch.address == "local" else _COMING_S)
    while not launch.autoscaling and not room.is_there():
        if time.monotonic() >= until_s:
            needed = " and ".join(f"{of:g} {name}s" for name, of in resources.items())
            raise GexError(
                f"{room.found} with {needed} each, which [launch] num_processes, cpus_a_process and gpus_a_process ask "
                "for; ask for less, or say autoscaling = true when the cluster adds nodes by itself"
            )
        room.tell()
        time.sleep(_LOOK_S)


class _Room:
    """Whether the nodes that live have room for all processes, looked at again and again; what is found is told."""

    def __init__(self, launch: LaunchSettings, resources: Mapping[str, float], say: Callable[[str], None]) -> None:
        self._launch, self._resources, self._say = launch, resources, say
        self._since_s: float | None = None
        self.found = ""
        self.is_given_up = False

    def is_there(self) -> bool:
        """Whether there is room now."""
        import ray

        rooms = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        num = sum(min(int(room.get(name, 0) / of + 1e-9) for name, of in self._resources.items()) for room in rooms)
        self.found = f"Ray has room for {num} of {self._launch.num_processes} processes"
        is_there = num >= self._launch.num_processes
        if is_there:
            self._since_s = None
        return is_there

    def tell(self) -> None:
        """Say that nodes are waited for; once."""
        if self._since_s is None:
            self._since_s = time.monotonic()
            self._say(f"{self.found}; waiting for nodes")

    def is_gone(self) -> bool:
        """Whether nodes that were lost have been away for so long that they are no more waited for."""
        if self.is_there():
            return False
        self.tell()
        long_ago = self._since_s is not None and time.monotonic() - self._since_s > _GONE_S
        self.is_given_up = long_ago and not self._launch.autoscaling
        return self.is_given_up


def _cause(error: Exception | None) -> str:
    """What the processes ended with at last, in a line: their own errors, not Ray's heading over them."""
    failures: Mapping[int, object] = getattr(error, "worker_failures", {}) or {0: error}
    # of an error of CUDA or NCCL the first line says what it is, the others how to look for it
    lines = ((type(one).__name__, str(one).strip().partition("\n")[0]) for one in failures.values())
    return "; ".join(f"{kind}: {line}" for kind, line in list(dict.fromkeys(lines))[:_NAMED])


@contextmanager
def _told(board: Any, say: Callable[[str], None], look: Callable[[], None]) -> Iterator[None]:
    """What the processes say, said here while they work; a signal that comes here is passed on to them.

    `look` is called again and again meanwhile.
    """
    import ray

    over = threading.Event()
    stop = StopSignals()

    def tell() -> None:
        for line in ray.get(board.lines.remote()):
            say(line)

    def watch() -> None:
        is_passed_on = False
        while not over.wait(_LOOK_S):
            if stop.received and not is_passed_on:
                ray.get(board.stop.remote(stop.received))
                is_passed_on = True
                say(f"{stop.received}: stopping after this step, with a checkpoint; once more ends it at once")
            tell()
            look()

    thread = threading.Thread(target=watch, name="gex-training", daemon=True)
    thread.start()
    try:
        with stop:
            yield
    finally:
        over.set()
        thread.join()
        tell()


class _Board:
    """An actor on which processes write what happens, since they may be gone when somebody asks."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._answer: dict[str, Any] = {}
        self._signal = ""
        self._told = asyncio.Event()

    async def say(self, line: str) -> None:
        self._lines.append(line)

    async def lines(self) -> list[str]:
        """The lines since the last call."""
        lines, self._lines = self._lines, []
        return lines

    async def settle(self, answer: dict[str, Any]) -> None:
        """How training ended; the first answer counts: what other processes say follows from it."""
        self._answer = self._answer or answer

    async def answer(self) -> dict[str, Any]:
        return self._answer

    async def stop(self, signal: str) -> None:
        """Training shall stop, since this signal came."""
        self._signal = signal
        self._told.set()

    async def stopped(self) -> str:
        """The signal with which training shall stop, as soon as it came."""
        await self._told.wait()
        return self._signal


def _one_process(config: dict[str, Any]) -> None:
    """What Ray Train runs in every process."""
    import ray
    import torch

    from trainer.processes import joined

    board = config["board"]
    if ray.get(board.answer.remote()):
        return  # started anew after an error that does not pass
    recipe = TrainRecipe.model_validate(config["recipe"])
    # where it was given none, Ray leaves a process all GPUs of the node to see
    use_gpu = bool(recipe.launch.gpus_a_process)

    def say(line: str) -> None:
        ray.get(board.say.remote(line))

    try:
        with joined(use_gpu=use_gpu, launch=config["launch"]) as processes:
            if processes.is_first and not use_gpu and torch.cuda.is_available():
                say("gpus_a_process = 0: training on the CPU though this node has GPUs")
            outcome = train(recipe, processes, say, _hearing(board) if processes.is_first else _deaf)
            if processes.is_first:
                ray.get(board.settle.remote({"outcome": asdict(outcome)}))
    except GexError as error:
        if not error.transient:
            ray.get(board.settle.remote({"failure": str(error), "transient": False}))
        raise


def _hearing(board: Any) -> Callable[[], str]:
    """Gives the signal that the board was told, without ever waiting for it."""
    import ray

    word = board.stopped.remote()  # comes by itself

    def hear() -> str:
        return str(ray.get(word)) if ray.wait([word], timeout=0)[0] else ""

    return hear


def _deaf() -> str:
    return ""
