from __future__ import annotations

import json
import math

import pytest

from gex_pipeline.validate.statistics import STATISTICS, histogram, summarise


def test_values_equal_those_computed_by_hand():
    # population standard deviation of 1, 2, 3, 4, 10 is sqrt((9 + 4 + 1 + 0 + 36) / 5)
    assert summarise([4, 1, 10, 3, 2]) == pytest.approx(
        {"num": 5, "mean": 4, "std": math.sqrt(10), "min": 1, "p05": 1.2, "median": 3, "p95": 8.8, "max": 10}
    )


def test_none_and_nan_are_left_out():
    assert summarise([1.0, None, math.nan, 3.0]) == summarise([1.0, 3.0])


def test_one_value_has_no_spread():
    assert summarise([0.5])["std"] == 0.0
    assert summarise([0.5])["p95"] == 0.5


@pytest.mark.parametrize("values", [[], [None], [math.nan]])
def test_without_values_there_is_a_count_of_zero_and_nothing_that_is_no_json(values):
    found = summarise(values)
    assert tuple(found) == STATISTICS
    assert found["num"] == 0
    assert all(found[name] is None for name in STATISTICS if name != "num")
    json.dumps(found, allow_nan=False)


def test_a_histogram_counts_every_known_value_once():
    found = histogram([0.0, 0.5, 1.0, None, math.nan, 1.0], 2)
    assert found == {"counts": [1, 3], "edges": [0.0, 0.5, 1.0]}


def test_given_edges_are_kept_and_what_lies_outside_is_left_out():
    assert histogram([-1, 0.1, 0.9, 7], [0, 0.5, 1]) == {"counts": [1, 1], "edges": [0, 0.5, 1]}
    assert histogram([], [0, 1]) == {"counts": [0], "edges": [0, 1]}


def test_equal_values_and_no_values_have_a_histogram():
    assert sum(histogram([0.3] * 4, 5)["counts"]) == 4
    assert histogram([], 5) == {"counts": [], "edges": []}
