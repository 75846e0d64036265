"""Values in the making: in the order they were begun, while more is begun."""

from __future__ import annotations

from collections.abc import Iterator

from gex_pipeline.summarize import pending
from gex_pipeline.summarize.pending import Pending, done, in_turn


def begin(events: list[str], when_done: dict[int, str]) -> Iterator[Pending[int]]:
    """Five values; each is done when this has happened, at once where nothing is said."""

    def result(number: int) -> int:
        events.append(f"took {number}")
        return number

    for number in range(5):
        events.append(f"begun {number}")
        until = when_done.get(number, f"begun {number}")
        yield Pending(lambda until=until: until in events, lambda number=number: result(number))


def test_values_come_in_order_each_as_soon_as_it_and_those_before_it_are_there() -> None:
    events: list[str] = []
    assert list(in_turn(begin(events, {1: "begun 3"}))) == [0, 1, 2, 3, 4]
    assert " ".join(events) == "begun 0 took 0 begun 1 begun 2 begun 3 took 1 took 2 took 3 begun 4 took 4"


def test_no_more_is_begun_than_can_be_held(monkeypatch) -> None:
    monkeypatch.setattr(pending, "_MOST_BEGUN", 2)
    events: list[str] = []
    waited: list[float] = []
    assert list(in_turn(begin(events, dict.fromkeys(range(5), "never")), waited.append)) == [0, 1, 2, 3, 4]
    assert " ".join(events) == ("begun 0 begun 1 begun 2 took 0 begun 3 took 1 begun 4 took 2 took 3 took 4")
    assert len(waited) == 5


def test_what_is_made_of_a_value_is_made_when_it_is_asked_for() -> None:
    changed: list[int] = []
    later = done(3).then(lambda value: changed.append(value) or value + 1)
    assert later.is_done()
    assert changed == []
    assert (later.result(), changed) == (4, [3])
