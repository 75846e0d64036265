"""A training in several processes under Ray Train, started anew from its last checkpoint when one of them is lost.

The loop is the same as everywhere (trainer.train); here processes are placed, watched and replaced. What is wrong with
the recipe or the data ends the training at once, with the sentence that the process said; only what may pass is tried
again. Ray is running already. Figures and sentences of the first process are told here as they come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from gex_pipeline.errors import GexError, TransientError
from trainer.train import Outcome, train
from trainer.train_recipe import TrainRecipe

_LOOK_S = 1.0


def train_with_ray(recipe: TrainRecipe, say: Callable[[str], None] = lambda line: None) -> Outcome:
    """Train as `trainer.train.train` does, in as many processes as the recipe says.

    Raises:
        GexError: a process says that training cannot go on; TransientError: processes were lost more often than the
            recipe allows.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    launch = recipe.launch
    board = ray.remote(num_cpus=0)(_Board).remote()
    resources = {"CPU": launch.cpus_a_process}
    if launch.gpus_a_process:
        resources["GPU"] = launch.gpus_a_process
    trainer = TorchTrainer(
        _one_process,
        train_loop_config={"recipe": recipe.model_dump(mode="json", exclude_unset=True), "board": board},
        scaling_config=ScalingConfig(
            num_workers=launch.num_processes, use_gpu=bool(launch.gpus_a_process), resources_per_worker=resources
        ),
        run_config=RunConfig(
            name="ray", storage_path=recipe.output, failure_config=FailureConfig(max_failures=launch.max_restarts)
        ),
    )
    error: Exception | None = None
    with _told(board, say):
        try:
            trainer.fit()
        except (ray.exceptions.RayError, ray.train.TrainingFailedError) as lost:
            error = lost
    answer: dict[str, Any] = ray.get(board.answer.remote())
    if answer.get("failure"):
        raise (TransientError if answer["transient"] else GexError)(answer["failure"])
    if error is not None or "outcome" not in answer:
        first = str(error).strip().partition("\n")[0]
        raise TransientError(
            f"training lost its processes more than {launch.max_restarts} times ({first}); run the same command again "
            "to go on from the last checkpoint"
        )
    return Outcome(**answer["outcome"])


class _Board:
    """An actor on which processes write what happens, since they may be gone when somebody asks."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._answer: dict[str, Any] = {}

    def say(self, line: str) -> None:
        self._lines.append(line)

    def lines(self) -> list[str]:
        """The lines since the last call."""
        lines, self._lines = self._lines, []
        return lines

    def settle(self, answer: dict[str, Any]) -> None:
        """How training ended; the first answer counts: what other processes say follows from it."""
        self._answer = self._answer or answer

    def answer(self) -> dict[str, Any]:
        return self._answer


def _one_process(config: dict[str, Any]) -> None:
    """What Ray Train runs in every process."""
    import ray

    from trainer.processes import joined

    board = config["board"]
    if ray.get(board.answer.remote()):
        return  # started anew after an error that does not pass
    recipe = TrainRecipe.model_validate(config["recipe"])
    with joined() as processes:
        try:
            outcome = train(recipe, processes, lambda line: ray.get(board.say.remote(line)))
        except GexError as error:
            if not error.transient:
                ray.get(board.settle.remote({"failure": str(error), "transient": False}))
            raise
        if processes.is_first:
            ray.get(board.settle.remote({"outcome": asdict(outcome)}))


@contextmanager
def _told(board: Any, say: Callable[[str], None]) -> Iterator[None]:
    """What the processes say, said here while they work."""
    import ray

    over = threading.Event()

    def tell() -> None:
        for line in ray.get(board.lines.remote()):
            say(line)

    def watch() -> None:
        while not over.wait(_LOOK_S):
            tell()

    thread = threading.Thread(target=watch, name="gex-training", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        tell()
