from __future__ import annotations

import numpy as np
import pytest
from torch.utils.data import DataLoader

from trainer import loader, sequence
from trainer.workers import WorkersStoppedError, end_workers, next_batch, worker_options


def batches(*errors):
    """An iterator as torch's is when it meets these errors, and then gives 7."""

    class Batches:
        def __init__(self):
            self.left = list(errors)

        def __iter__(self):
            return self

        def __next__(self):
            if self.left:
                raise self.left.pop(0)
            return 7

    return Batches()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("DataLoader worker (pid 7) exited unexpectedly\nmore"), "DataLoader worker .pid 7. exited"),
        # a worker that was killed after it said that a batch is there, before the batch's memory was handed over
        (EOFError(), "a worker exited while it gave a batch .EOFError."),
        (ConnectionResetError(104, "Connection reset by peer"), "while it gave a batch .*reset by peer"),
    ],
)
def test_workers_that_die_stop_with_a_sentence_however_torch_says_it(error, message):
    with pytest.raises(WorkersStoppedError, match=message) as stopped:
        next_batch(batches(error), 2, 10)
    assert not stopped.value.timed_out


def test_waiting_goes_on_until_the_time_is_over():
    late = RuntimeError("DataLoader timed out after 2 seconds")
    assert next_batch(batches(late, late), 1, 10) == 7
    with pytest.raises(WorkersStoppedError, match=r"^nothing came for 0 s$") as stopped:
        next_batch(batches(late), 1, 0)
    assert stopped.value.timed_out


@pytest.mark.parametrize("error", [RuntimeError("Caught ValueError in DataLoader worker"), EOFError("Caught EOFError")])
def test_a_mistake_in_a_worker_keeps_its_traceback(error):
    with pytest.raises(type(error), match="Caught"):
        next_batch(batches(error), 2, 10)


def test_without_workers_an_error_is_what_it_is():
    with pytest.raises(EOFError):
        next_batch(batches(EOFError()), 0, 10)


def collated(samples):
    """By both loaders; whether it lies in shared memory in the process that does it."""
    training = loader.collate(samples).frames_BT3HW
    reads = [sequence._Read(number, sample.frames, "", "") for number, sample in enumerate(samples)]
    measured = sequence._collate(sequence.Reading(2, 4), reads)[0].frames_BT3HW
    return [(frames.is_shared(), frames) for frames in (training, measured)]


def test_a_worker_collates_frames_into_shared_memory():
    """They were put together in the worker's own memory and copied from there: a batch was written twice."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 2, 3, 4, 4), dtype=np.uint8)
    samples = [loader._Loaded(0, "SVST", one, "a text", [1], f"{number}", []) for number, one in enumerate(frames)]
    batches = iter(DataLoader(samples, batch_size=3, collate_fn=collated, **worker_options(1, 1)))
    found = next_batch(batches, 1, 60.0)
    end_workers(batches)
    for is_shared, collated_BT3HW in found:
        assert is_shared and np.array_equal(collated_BT3HW.numpy(), frames)
    assert not any(is_shared for is_shared, _ in collated(samples))
