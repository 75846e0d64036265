"""The training loop: one recipe in; checkpoints, figures and a model out. One process, torchrun or Ray Train run it.

    torchrun --nproc-per-node 4 -m trainer.train recipe.toml

What a step computes follows from the recipe and the number of the step. A training that is stopped anywhere goes on
from its last checkpoint when it is started again; told to stop (SIGTERM, SIGINT), it writes one first.

Paper: GEXIA §3.2 and §4.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from trainer.build import Built, build
from trainer.checkpoint import Checkpoints, Progress, TrainingState
from trainer.ema import Ema
from trainer.figures import StepLog
from trainer.held_out import Figures, evaluate_held_out
from trainer.history import check_held_out
from trainer.hold import Hold, holding
from trainer.loader import Loader, Rank, agree_over
from trainer.model import parameter_groups
from trainer.optim import GuardedOptimiser, check_precision
from trainer.parallel import Parallel
from trainer.pretrained import CONFIG
from trainer.processes import Processes, joined
from trainer.publish import begin_output, check_output, publish_trained
from trainer.record import Figure, Record
from trainer.run_data import RunData, open_data
from trainer.sinks import open_record
from trainer.steps import Prepared, task_of
from trainer.stopping import EXIT_CODES, StopSignals, told_to_stop
from trainer.telling import as_held_out, untaught
from trainer.train_recipe import TrainRecipe, load_train_recipe


@dataclass(frozen=True)
class Outcome:
    """How a training ended."""

    num_steps: int
    first_step: int
    """The step this run began with; the number of steps, where there was nothing left to do."""
    duration_s: float
    stopped_by: str = ""
    """The signal that told it to stop before its end, SIGTERM or SIGINT."""
    figures: Figures = field(default_factory=dict)
    """Of the held-out samples at the end."""
    model: str = ""
    """Where the trained model is."""

    @property
    def exit_code(self) -> int:
        """Of the command that trained: what is not done is not taken for done by whoever started it."""
        return EXIT_CODES[self.stopped_by]

    def describe(self) -> str:
        """One sentence for a person."""
        if self.stopped_by:
            return "stopped, with a checkpoint; run the same command again to go on"
        return f"{self.num_steps - self.first_step} steps in {self.duration_s:.0f} s; the model is at {self.model}"


def say_on_stderr(line: str) -> None:
    """Tell a person."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def train(
    recipe: TrainRecipe,
    processes: Processes,
    say: Callable[[str], None] = lambda line: None,
    hear: Callable[[], str] = lambda: "",
) -> Outcome:
    """Train to the end, or until told to stop; the same on all processes.

    `hear` gives the name of a signal that somebody else was sent and passes on; it is asked after every step.

    Raises:
        GexError: the data, the model or the output is not as it must be; RecipeError: the recipe contradicts them.
    """
    started_s = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(_in_memory(recipe))
        hold = stack.enter_context(holding(recipe.output, processes))
        recipe = check_output(recipe, processes)
        data = stack.enter_context(open_data(recipe.data, recipe.task, processes))
        say = say if processes.is_first else lambda line: None
        if recipe.data.snapshot is not None:
            say(f"{recipe.data.dataset}, snapshot {recipe.data.snapshot}")
        for sentence in data.describe():
            say(sentence)
        say(processes.describe_device())
        built = build(recipe, data, processes)
        check_held_out(recipe.data, built.earlier)
        run = TrainingRun(recipe, data, built, processes)
        hold.check()  # reading data and weights may have taken long
        with processes.writing():
            begin_output(recipe, processes)
        first = run.resume()
        if first == run.num_steps and storage.exists(recipe.place("model", CONFIG)):
            say("nothing left to do: all steps are done")
            return Outcome(run.num_steps, first, time.monotonic() - started_s, model=recipe.place("model"))
        for sentence in [f"going on from step {first} of {run.num_steps}"] if first else built.told:
            say(sentence)
        with processes.writing():
            record = stack.enter_context(open_record(recipe, processes, range(first, run.num_steps), say))
        stop = stack.enter_context(StopSignals())

        def told() -> str:
            # one that lost its hold stops after the step, and says so where it would write
            return stop.received or hear() or (signal.SIGTERM.name if hold.is_lost else "")

        stopped_by = _steps(run, range(first, run.num_steps), record, hold, say, told)
        figures: Figures = {}
        model = ""
        if not stopped_by:
            figures = run.evaluate()
            hold.check()
            if first < run.num_steps:
                # with the checkpoint there, the line is there too: a model that is exported later writes no second one
                if figures:
                    _write(run, record, run.num_steps - 1, as_held_out(figures))
                _save(run, record, run.num_steps, figures)
            with processes.writing(), run.averaged():
                model = publish_trained(recipe, run.built, data, figures, processes)
        return Outcome(run.num_steps, first, time.monotonic() - started_s, stopped_by, figures, model)


@contextmanager
def _in_memory(recipe: TrainRecipe) -> Iterator[None]:
    """A GPU that is too small, as a sentence: as often as it is tried, it stays too small."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        found = ". ".join(str(error).split(". ")[:2]).rstrip(".")  # then follows how memory is shared out
        size, is_on = recipe.parallel.piece_size, str(recipe.parallel.activation_checkpointing).lower()
        raise GexError(
            f"a step does not fit into the GPU's memory ({found}); in [parallel] lower piece_size (now "
            f"{'not set: all of a batch at once' if size is None else size}) or set activation_checkpointing = true "
            f"(now {is_on}), or lower data.batch_size (now {recipe.data.batch_size})"
        ) from error


def _steps(
    run: TrainingRun, steps: range, record: Record, hold: Hold, say: Callable[[str], None], hear: Callable[[], str]
) -> str:
    """Take the steps; the signal that told to stop, with a checkpoint there, or empty at the end."""
    warned: set[str] = set()
    recipe, log = run.recipe, StepLog(run.recipe, run.built, run.processes)
    with run.loader(steps) as loader:
        upcoming = run.next(loader, log)
        for step in steps:
            upcoming = run.step(step, upcoming, loader, log)
            if record.due(step) or step + 1 == steps.stop:
                figures = log.figures(run.data.order.place_of(step).epoch)
                _write(run, record, step, figures)
                _warn(figures, warned, say)
            if step + 1 == steps.stop:
                return ""
            found: Figures = {}
            if recipe.evaluation.every_steps and (step + 1) % recipe.evaluation.every_steps == 0:
                with log.rates.excluded():
                    found = run.evaluate()
                    _write(run, record, step, as_held_out(found))
            # a process that is ahead waits here for the others, at every step: that is part of how fast they train
            told = told_to_stop(run.processes, hear())
            if told or (step + 1) % recipe.checkpoints.every_steps == 0 or (found and recipe.checkpoints.best):
                with log.rates.excluded():
                    hold.check()
                    _save(run, record, step + 1, found)
            if told:
                return told
    return ""


def _write(run: TrainingRun, record: Record, step: int, figures: Mapping[str, Figure]) -> None:
    """Write the figures of a step."""
    with run.processes.writing():
        record.write(step, figures)


def _save(run: TrainingRun, record: Record, step: int, figures: Figures) -> None:
    """Write a checkpoint of which `step` is the next step, after the figures of the steps before it."""
    with run.processes.writing():
        record.keep()
    with run.processes.writing():
        run.save(step, figures)


def _warn(figures: Mapping[str, Figure], warned: set[str], say: Callable[[str], None]) -> None:
    """Say once of every granularity that nothing is learned from it."""
    for name, sentence in untaught(figures).items():
        if name not in warned:
            warned.add(name)
            say(f"warning: {sentence}")


class TrainingRun:
    """The parts of one training, put together."""

    def __init__(self, recipe: TrainRecipe, data: RunData, built: Built, processes: Processes) -> None:
        self.recipe, self.data, self.built, self.processes = recipe, data, built, processes
        self.num_steps = recipe.optim.epochs * data.order.steps_per_epoch
        check_precision(recipe.optim, processes.device)
        built.module.to(processes.device).train()
        # a shared block that is not run at all, or a branch that is frozen, takes no part in a step
        some_unused = any(not one.n_iter_video or not one.n_iter_text for one in recipe.data.granularities.values())
        self.parallel = Parallel(built.module, recipe.parallel, processes, some_unused=some_unused)
        groups = parameter_groups(
            built.module,
            learning_rate_towers=recipe.optim.learning_rate_towers,
            learning_rate=recipe.optim.learning_rate,
            weight_decay=recipe.optim.weight_decay,
        )
        self.optimiser = GuardedOptimiser(groups, recipe.optim, num_steps=self.num_steps)
        decay = recipe.optim.ema_decay
        self.ema = None if decay is None else Ema(built.module, decay)
        self.state = TrainingState(built.module, self.optimiser.adamw, self.ema)
        self.checkpoints = Checkpoints(
            recipe.place("checkpoints"),
            keep=recipe.checkpoints.keep,
            metric=recipe.checkpoints.best,
            higher_is_better=recipe.checkpoints.higher_is_better,
        )
        self.task = task_of(recipe, built, self.parallel, processes)

    def resume(self) -> int:
        """Take up the newest checkpoint; the step to begin with."""
        progress = self.checkpoints.resume(self.state)
        if progress is None:
            return 0
        before, now = progress.counters.get("num_samples"), self.data.num_samples
        if before != now:
            raise GexError(
                f"the training at {self.recipe.output} began with {before} samples, and its data are {now} now: a "
                "snapshot was retired, or annotations were changed. Begin another one: name another output"
            )
        self.optimiser.restore_counters(progress.counters)
        return progress.step

    def loader(self, steps: range) -> Loader:
        """The batches of these steps."""
        several = self.processes.world_size > 1
        agree = agree_over(self.processes.counts) if several else None
        on_gpu = self.processes.device.type == "cuda"
        place = Rank(self.processes.rank, self.processes.world_size, agree, pin_memory=on_gpu)
        return Loader(self.recipe.data, self.data.training, self.data.order, steps, place)

    def next(self, loader: Loader, log: StepLog) -> Prepared | None:
        """The next batch on the device; none when there are no more steps."""
        with log.rates.waiting():
            batch = next(loader, None)
        return None if batch is None else self.task.prepare(batch)

    def step(self, step: int, batch: Prepared | None, loader: Loader, log: StepLog) -> Prepared | None:
        """Take one step; the batch of the next one.

        Raises:
            GexError: there is no batch, or too many steps in a row were not finite.
        """
        if batch is None:
            raise GexError(f"the data ended before step {step}")
        loss = self.task.backward(batch)
        # fetched and sent while the device is still at work on this step
        upcoming = self.next(loader, log)
        figures = self.optimiser.step(step, loss)
        if not figures.skipped:
            self.built.model.bound_logit_scale()
            if self.ema is not None:
                self.ema.update()
        log.add(batch, figures)
        return upcoming

    def averaged(self) -> Any:
        """A region in which the model has its averaged weights, where there are any."""
        return nullcontext() if self.ema is None else self.ema.swapped_in()

    def evaluate(self) -> Figures:
        """Figures of the held-out samples."""
        with self.averaged():
            return evaluate_held_out(self.recipe, self.data, self.built, self.processes)

    def save(self, step: int, figures: Figures) -> None:
        """Write a checkpoint of which `step` is the next step."""
        progress = Progress(
            step=step,
            seed=self.recipe.seed,
            recipe=self.recipe.model_dump(mode="json"),
            counters={**self.optimiser.counters(), "num_samples": self.data.num_samples},
            metrics=dict(figures),
        )
        self.checkpoints.save(self.state, progress)


@contextmanager
def _one_sentence() -> Iterator[None]:
    """An error as a line of this process, and not as a traceback."""
    try:
        yield
    except GexError as error:
        sys.stderr.write(f"process {os.environ.get('RANK', '0')}: {error}\n")
        sys.stderr.flush()
        code = 75 if error.transient else 1
        if dist.is_initialized():
            os._exit(code)  # Python's own end would destroy the groups, and wait for others that wait for this process
        sys.exit(code)


def main(argv: Sequence[str] | None = None) -> None:
    """What torchrun starts."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.exit("usage: torchrun --nproc-per-node N -m trainer.train RECIPE")
    with _one_sentence(), joined() as processes:
        outcome = train(load_train_recipe(arguments[0]), processes, say_on_stderr)
        if processes.is_first:
            say_on_stderr(outcome.describe())
        processes.wait()  # torchrun ends the others at once when one ends with a code that is not 0
    # a torchrun that may start processes anew would do so, and undo the stop; where it is told itself it ends with 1
    if os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") == "0":
        sys.exit(outcome.exit_code)


if __name__ == "__main__":
    main()
