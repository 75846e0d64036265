from __future__ import annotations

import signal
import threading

import pytest

from trainer import stopping
from trainer.processes import joined
from trainer.stopping import EXIT_CODES, StopSignals, told_to_stop

HANDLED = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def _as_they_were():
    """Whatever a test leaves, the next one has handlers that do not end it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process begun in the background ignores it
    before = {number: signal.getsignal(number) for number in HANDLED}
    yield
    assert {number: signal.getsignal(number) for number in HANDLED} == before


@pytest.mark.parametrize("number", HANDLED)
def test_the_first_signal_is_kept_and_the_same_one_at_once_is_no_second(number, monkeypatch):
    """GNU timeout sends SIGTERM twice, and under systemd torchrun's processes get one from each."""
    monkeypatch.setattr(stopping, "_ONE_WORD_S", 1000)
    with StopSignals() as stop:
        assert stop.received == ""
        signal.raise_signal(number)
        signal.raise_signal(number)
        assert stop.received == number.name


def test_a_signal_that_comes_again_later_acts_as_it_always_does(monkeypatch):
    monkeypatch.setattr(stopping, "_ONE_WORD_S", 0)
    with StopSignals() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.received == "SIGTERM"


def test_in_another_thread_no_signal_is_taken():
    before = [signal.getsignal(number) for number in HANDLED]
    during = []

    def enter():
        with StopSignals() as stop:
            during.extend([[signal.getsignal(number) for number in HANDLED], stop.received])

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert during == [before, ""]


@pytest.mark.parametrize(("name", "code"), [("", 0), ("SIGTERM", 75), ("SIGINT", 130)])
def test_what_was_heard_is_told_by_name_and_has_a_code(name, code):
    with joined({}) as processes:
        assert told_to_stop(processes, name) == name
    assert EXIT_CODES[name] == code
