"""How a batch comes to a device; what is computed with it, other tests say."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from trainer.steps import Prepared, Sender
from trainer.tokens import TextTokens


class Column:
    """Stands for a tensor on a machine that has a GPU: notes what is done with it, and on which stream."""

    def __init__(self, name, notes, is_pinned=False):
        self.name, self.notes, self._is_pinned = name, notes, is_pinned

    def is_pinned(self):
        return self._is_pinned

    def pin_memory(self):
        self.notes.append(f"pin {self.name}")
        return Column(self.name, self.notes, True)

    def to(self, device, *, non_blocking):
        assert non_blocking
        assert self._is_pinned
        self.notes.append(f"copy {self.name} to {device} on {self.notes.stream}")
        return Column(f"{self.name} there", self.notes)

    def record_stream(self, stream):
        self.notes.append(f"keep {self.name} for {stream.name}")


class Stream:
    def __init__(self, name, notes):
        self.name, self.notes = name, notes

    def wait_stream(self, other):
        self.notes.append(f"{self.name} waits for {other.name}")


class Notes(list):
    stream = "computing"


@pytest.fixture
def notes(monkeypatch):
    found = Notes()

    @contextmanager
    def on(stream):
        found.stream, before = stream.name, found.stream
        yield
        found.stream = before

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("beside", found))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("computing", found))
    monkeypatch.setattr(torch.cuda, "stream", on)
    return found


def test_a_batch_is_sent_beside_what_the_gpu_computes_and_waited_for_by_what_comes_then(notes):
    """It was queued behind the step that was under way; tokens lay in memory for which the host waits as well."""
    texts = TextTokens(*(Column(name, notes) for name in ("ids", "mask", "truncated")))
    batch = Prepared(
        3, "LVLT", Column("frames", notes, True), texts=texts, num_truncated=2, same_BG=Column("same", notes)
    )
    sent = Sender(torch.device("cuda", 0))(batch)
    assert notes[:2] == ["copy frames to cuda:0 on beside", "keep frames there for computing"]
    for name in ("ids", "mask", "truncated", "same"):
        at = notes.index(f"pin {name}")
        assert notes[at + 1 : at + 3] == [f"copy {name} to cuda:0 on beside", f"keep {name} there for computing"]
    assert notes[-1] == "computing waits for beside"
    assert len(notes) == 2 + 4 * 3 + 1
    assert [column.name for column in (sent.frames_BT3HW, *sent.texts, sent.same_BG)] == [
        f"{name} there" for name in ("frames", "ids", "mask", "truncated", "same")
    ]
    assert (sent.step, sent.granularity, sent.labels_B, sent.num_truncated) == (3, "LVLT", None, 2)


def test_labels_are_sent_as_well(notes):
    sent = Sender(torch.device("cuda", 0))(
        Prepared(0, "COIN", Column("frames", notes, True), labels_B=Column("k", notes))
    )
    assert (sent.labels_B.name, sent.texts, sent.same_BG) == ("k there", None, None)


def test_on_the_cpu_a_batch_stays_what_it_is():
    batch = Prepared(0, "COIN", torch.zeros(2, 1, 3, 4, 4, dtype=torch.uint8), labels_B=torch.tensor([1, 0]))
    assert Sender(torch.device("cpu"))(batch) is batch
