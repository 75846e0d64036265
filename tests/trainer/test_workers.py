from __future__ import annotations

import pytest

from trainer.workers import WorkersStoppedError, next_batch


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
