from __future__ import annotations

import json
import math

import pytest

from gex_pipeline.validate.statistics import STATISTICS, summarise


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
