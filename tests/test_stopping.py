"""Signals that end a command end it as Ctrl-C does; real signals, in this process or one of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from gex_pipeline.stopping import listening, sigterm_as_interrupt

ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def kept():
    """The handlers of the tests' process, whatever happens."""
    before = {number: signal.getsignal(number) for number in ALL}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process begun in the background ignores it
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "is_told", "code", "words"),
    [
        (signal.SIGTERM, True, 75, "told to stop by SIGTERM"),
        (signal.SIGHUP, True, 75, "told to stop by SIGHUP"),
        (signal.SIGINT, False, 130, "stopped"),
    ],
)
def test_a_signal_is_an_interrupt_that_is_told_apart(number, is_told, code, words):
    with sigterm_as_interrupt() as told:
        assert (told.by, told.to_stop) == (None, False)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert (told.by, told.to_stop, told.code) == (number, is_told, code)
        assert told.words == f"{words}; run the same command again to go on"


def test_a_command_that_was_not_told_leaves_the_handlers_as_they_were():
    before = [signal.getsignal(number) for number in ALL]
    with sigterm_as_interrupt():
        assert [signal.getsignal(number) for number in ALL] != before
    assert [signal.getsignal(number) for number in ALL] == before


def test_what_is_ignored_stays_ignored():
    """Under nohup a command outlives its terminal, and in the background of a script Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with sigterm_as_interrupt() as told:
        signal.raise_signal(signal.SIGHUP)
        told.check()
        signal.raise_signal(signal.SIGINT)
        assert told.by is None
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_signal_that_comes_again_does_not_break_the_end_in_order_also_after_the_command():
    """A second Ctrl-C left processes, the lock and a traceback behind."""
    done = []
    with sigterm_as_interrupt() as told:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            for number in ALL:
                signal.raise_signal(number)
            done.append("in order")
    signal.raise_signal(signal.SIGINT)  # while the interpreter ends
    assert (done, told.by) == (["in order"], signal.SIGINT)


HANGS = """
import signal, sys, time
from gex_pipeline import stopping
stopping.PATIENCE_S = 0.2
signal.signal(signal.SIGINT, signal.default_int_handler)
with stopping.sigterm_as_interrupt():
    try:
        signal.raise_signal(getattr(signal, sys.argv[1]))
    finally:
        time.sleep(0.5)
        signal.raise_signal(signal.SIGINT)
        time.sleep(20)
"""


@pytest.mark.parametrize(
    ("name", "code", "words"), [("SIGINT", 130, "stopped"), ("SIGHUP", 75, "told to stop by SIGHUP")]
)
def test_who_asks_again_after_a_while_ends_what_hangs(name, code, words):
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", HANGS, name]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=15, check=False)
    assert (done.returncode, done.stderr) == (code, f"\ngex: {words}; run the same command again to go on\n")


@pytest.mark.parametrize("number", ALL)
def test_what_is_held_back_comes_after_the_block_and_nobody_else_handles_it(number):
    others = []
    with sigterm_as_interrupt() as told, pytest.raises(KeyboardInterrupt), told.held_back():
        signal.raise_signal(number)
        others.append("went on")
    assert others == ["went on"]


def test_a_signal_that_was_held_back_wins_over_what_came_of_it():
    """SIGTERM to all processes while Ray started ended Ray, and the run said that Ray did not start."""
    with sigterm_as_interrupt() as told, pytest.raises(KeyboardInterrupt), told.held_back():
        signal.raise_signal(signal.SIGTERM)
        raise RuntimeError("Ray did not start")


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
