"""SIGTERM to a command ends it as Ctrl-C does; real signals, in this process."""

from __future__ import annotations

import signal
import threading
from contextlib import suppress

import pytest

from gex_pipeline.stopping import listening, sigterm_as_interrupt


@pytest.fixture(autouse=True)
def kept():
    """The handler of the tests' process, whatever happens."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process begun in the background ignores it
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_is_an_interrupt_that_is_told_apart():
    with sigterm_as_interrupt() as told:
        assert not told.to_stop
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert told.to_stop
    with sigterm_as_interrupt() as told, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert not told.to_stop


def test_what_is_held_back_comes_after_the_block_and_nobody_else_handles_it():
    others = []
    with sigterm_as_interrupt() as told:
        with pytest.raises(KeyboardInterrupt), told.held_back():
            signal.raise_signal(signal.SIGTERM)
            others.append("went on")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert others == ["went on"]


def test_a_handler_that_was_put_in_meanwhile_is_out_again():
    others = []
    with sigterm_as_interrupt() as told:
        with told.held_back():
            signal.signal(signal.SIGTERM, lambda number, _frame: others.append(number))
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert (others, told.to_stop) == ([], True)


def test_outside_of_a_command_and_of_its_thread_nobody_listens():
    assert listening() is None
    found = []
    with sigterm_as_interrupt() as told:
        assert listening() is told

        def elsewhere():
            with sigterm_as_interrupt() as other:
                found.append((listening(), other is told))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert listening() is told
    assert found == [(None, False)]


def test_a_signal_whose_exception_was_swallowed_stops_the_work_at_the_next_look():
    """A run that was told to stop while it read metadata went on to its end."""
    with sigterm_as_interrupt() as told:
        told.check()
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            told.check()
    with sigterm_as_interrupt() as told:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Prefect puts in its own at the start of a flow
        told.check()
        assert signal.getsignal(signal.SIGTERM) == told.handle
