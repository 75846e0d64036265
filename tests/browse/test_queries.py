"""Filters, orders and pages, against the same done by hand in Python over the records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gex_pipeline.shard_format import SampleRecord

Record = tuple[int, SampleRecord]
FILTERS: dict[str, tuple[dict[str, Any], Callable[[int, SampleRecord], bool]]] = {
    "nothing": ({}, lambda n, r: True),
    "granularity": ({"granularity": "IT"}, lambda n, r: r.granularity == "IT"),
    "snapshot": ({"snapshot": 1}, lambda n, r: n == 1),
    "source": ({"source": "source 3"}, lambda n, r: r.source_id == "source 3"),
    "words": ({"min.words": 2, "max.words": 3}, lambda n, r: 2 <= r.num_words <= 3),
    "duration": ({"min.duration": 2.5}, lambda n, r: r.duration_s >= 2.5),
    "no duration": ({"max.duration": 5, "granularity": "IT"}, lambda n, r: False),
    "score": (
        {"min.score.rouge1": 0.25, "max.score.rouge1": 0.5},
        lambda n, r: 0.25 <= r.scores.get("rouge1", 9) <= 0.5,
    ),
    "a score with an odd name": ({"max.score.odd/name.~": 0}, lambda n, r: r.scores.get("odd/name.~", 1) <= 0),
    "text": ({"q": "DOG"}, lambda n, r: "dog" in r.text.lower()),
    "all words": ({"q": "red dog"}, lambda n, r: "dog" in r.text.lower() and "red" in r.text.lower()),
    "a phrase": ({"q": '"red dog"'}, lambda n, r: "red dog" in r.text.lower()),
    "letters that are wild elsewhere": ({"q": "100%"}, lambda n, r: "100%" in r.text),
    "an underscore": ({"q": "r_s"}, lambda n, r: "r_s" in r.text),
    "other letters": ({"q": "ÜBER"}, lambda n, r: "über" in r.text),
    "tags": ({"q": "<b>bold"}, lambda n, r: "<b>bold" in r.text),
    "quotes": ({"q": "it's"}, lambda n, r: False),
    "parent": ({"parent": "shared 4"}, lambda n, r: "shared 4" in r.parents),
    "several": (
        {"granularity": "LVLT", "snapshot": 0, "q": "grass", "min.words": 3, "max.duration": 2.5},
        lambda n, r: n == 0 and r.granularity == "LVLT" and "grass" in r.text.lower() and r.num_words >= 3
        and r.duration_s <= 2.5,
    ),
}  # fmt: skip
PLACES: dict[str, Callable[[SampleRecord], Any]] = {
    "key": lambda record: record.key,
    "words": lambda record: record.num_words,
    "duration": lambda record: record.duration_s or None,
    "score.rouge1": lambda record: record.scores.get("rouge1"),
    "score.odd/name.~": lambda record: record.scores.get("odd/name.~"),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_finds_what_a_loop_over_all_samples_finds(crowd, name):
    site, records = crowd
    parameters, is_wanted = FILTERS[name]
    expected = sorted(record.key for number, record in records if is_wanted(number, record))
    assert site.json("/api/count", **parameters) == {"num": len(expected)}
    assert [sample["key"] for sample in site.all_samples(**parameters)] == expected
    if name not in ("no duration", "quotes"):
        assert len(expected) > 0


def test_the_beginning_of_a_key_finds_its_sample(crowd):
    site, records = crowd
    _, record = records[17]
    found = site.all_samples(q=record.key[:12])
    assert [sample["key"] for sample in found] == [record.key]
    (sample,) = found
    assert (sample["text"], sample["scores"], sample["kind"]) == (record.text, record.scores, "video")


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("quantity", PLACES)
def test_pages_give_every_sample_once_in_order_whatever_is_equal(crowd, quantity, sign):
    site, records = crowd
    place = PLACES[quantity]
    found = [sample["key"] for sample in site.all_samples(sort=sign + quantity, limit=37)]
    by_key = {record.key: place(record) for _, record in records}
    assert sorted(found) == sorted(by_key)
    values = [by_key[key] for key in found]
    known = [value for value in values if value is not None]
    assert values == [*known, *[None] * (len(values) - len(known))]  # without a value: last, in either order
    assert known == sorted(known, reverse=bool(sign))
    assert len(set(known)) < len(known) or quantity in ("key", "score.odd/name.~")


def test_pages_and_filters_go_together(crowd):
    site, records = crowd
    found = site.all_samples(sort="-duration", limit=9, q="dog", granularity="LVLT")
    expected = [record for _, record in records if record.granularity == "LVLT" and "dog" in record.text.lower()]
    assert sorted(sample["key"] for sample in found) == sorted(record.key for record in expected)
    assert [sample["duration_s"] for sample in found] == sorted((r.duration_s for r in expected), reverse=True)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"granularity": "LVLT", "sort": "-duration"},
        {"sort": "score.rouge1", "q": "dog"},  # equal places, and many without one
        {"sort": "-score.odd/name.~", "snapshot": 1},
    ],
)
def test_the_neighbours_of_a_sample_are_those_beside_it_in_the_pages(crowd, parameters):
    site, _ = crowd
    found = site.all_samples(**parameters, limit=200)
    sides = [None, *found, None]
    for number in (0, 1, 59, 60, len(found) // 2, len(found) - 2, len(found) - 1):
        of = {"of.granularity": found[number]["granularity"], "of.key": found[number]["key"]}
        expected = {"before": sides[number], "after": sides[number + 2]}
        assert site.json("/api/neighbours", **parameters, **of) == expected, number


def test_a_sample_outside_of_the_filters_has_no_neighbours(crowd):
    site, records = crowd
    key = next(record.key for _, record in records if record.granularity == "LVLT")
    of = {"of.granularity": "LVLT", "of.key": key}
    assert site.json("/api/neighbours", granularity="IT", **of) == {"before": None, "after": None}
    answer = site.ask("/api/neighbours?of.granularity=IT&of.key=x")
    assert (answer.status, answer.content) == (404, {"error": "there is no sample 'x' of granularity 'IT'"})


def test_a_histogram_counts_every_value(crowd):
    site, records = crowd
    for quantity, place in PLACES.items():
        if quantity == "key":
            continue
        for granularity in ("", "LVLT"):
            values = [place(record) for _, record in records if granularity in ("", record.granularity)]
            values = [value for value in values if value is not None]
            spread = site.json("/api/spread", quantity=quantity, granularity=granularity)
            assert (spread["low"], spread["high"], spread["num"]) == (min(values), max(values), len(values))
            assert sum(spread["bins"]) == len(values)
            first = spread["low"] + spread["width"]
            assert spread["bins"][0] == sum(value < first for value in values) or len(spread["bins"]) == 1
    assert site.json("/api/spread", quantity="duration", granularity="IT") is None


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sort": "score.none"}, "score.none"),
        ({"sort": "text"}, "neither words nor duration"),
        ({"sort": "scores[1]; DROP TABLE entries"}, "neither words nor duration"),
        ({"min.words": "many"}, "is not a number"),
        ({"min.words": "nan"}, "is not a number"),
        ({"max.key": "1"}, "neither words nor duration"),
        ({"snapshot": "-1"}, "is not a whole number"),
        ({"after": "here"}, "is not what a page gave"),
        ({"after": "0.5,x"}, "is not a whole number"),
        ({"limit": "all"}, "is not a whole number"),
    ],
)
def test_a_wrong_parameter_is_told_in_a_sentence(crowd, parameters, message):
    site, _ = crowd
    from urllib.parse import urlencode

    answer = site.ask(f"/api/samples?{urlencode(parameters)}")
    assert (answer.status, message in answer.content["error"]) == (400, True)


def test_the_page_knows_what_there_is_to_choose_from(crowd):
    site, _ = crowd
    found = site.json("/api/dataset")
    assert found["granularities"] == [{"name": "LVLT", "samples": 660}, {"name": "IT", "samples": 330}]
    assert (found["name"], found["snapshots"], found["is_output"]) == ("crowd", [0, 1], True)
    assert set(found["quantities"]) == {"words", "duration", "score.rouge1", "score.odd/name.~"}


def test_a_search_of_very_many_words_is_refused(site):
    """Each is looked for in every text: two thousand took 16 s over one sample."""
    answer = site.ask("/api/count?q=" + "+".join(["word"] * 33))
    assert (answer.status, "at most 32" in answer.content["error"]) == (400, True)
