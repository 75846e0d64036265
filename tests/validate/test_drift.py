from __future__ import annotations

import math

import numpy as np
import pytest

from gex_pipeline.validate.bootstrap import difference_interval, mean_interval
from gex_pipeline.validate.drift import Values, compare, psi_by_chance, stability_index, standard_errors
from gex_pipeline.validate.tsne import plane_points

BINS = 10


def drawn(num: int, mean: float, seed: int, std: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, std, num)


def change(before: np.ndarray, new: np.ndarray, max_psi: float = 0.2):
    edges = np.quantile(before, np.linspace(0, 1, BINS + 1))[1:-1]
    counts = list(
        zip(*(np.bincount(np.searchsorted(edges, side), minlength=BINS) for side in (before, new)), strict=True)
    )
    sides = [
        Values(len(side), float(side.mean()), float(side.std(ddof=1)) if len(side) > 1 else 0.0)
        for side in (before, new)
    ]
    return compare(*sides, counts, max_psi)


def test_the_stability_index_is_that_of_the_formula():
    # Shares 0.9 and 0.1 against 0.5 and 0.5, a half added to every count.
    shares = [(90.5 / 101, 50.5 / 101), (10.5 / 101, 50.5 / 101)]
    expected = sum((q - p) * math.log(q / p) for p, q in shares)
    assert stability_index([(90, 50), (10, 50)]) == pytest.approx(expected)
    assert stability_index([(30, 60), (10, 20)]) == pytest.approx(0, abs=1e-3)
    assert math.isfinite(stability_index([(10, 0), (0, 10)]))


def test_standard_errors_are_those_of_welch_and_not_smaller_than_the_old_spread_makes_them():
    errors = standard_errors(Values(100, 10.0, 2.0), Values(25, 11.0, 3.0))
    assert errors == pytest.approx(1 / math.sqrt(4 / 100 + 9 / 25))
    errors = standard_errors(Values(100, 10.0, 2.0), Values(25, 11.0, 1.0))
    assert errors == pytest.approx(1 / math.sqrt(4 / 100 + 4 / 25))
    assert standard_errors(Values(3, 1.0, 0.0), Values(3, 2.0, 0.0)) is None


def test_chance_alone_exceeds_its_bound_about_once_in_a_thousand_times():
    """Two hundred pairs of small samples of one distribution: the PSI is large, the alarm is not raised."""
    found = [change(drawn(40, 0, seed), drawn(40, 0, 1000 + seed)) for seed in range(200)]
    assert sum(item.psi > 0.2 for item in found) > 100
    assert sum(item.is_alarm for item in found) <= 2
    # chi-squared, nine degrees of freedom, quantile 0.999: 27.88
    assert psi_by_chance(40, 40, 10) == pytest.approx(27.88 * 2 / 40, rel=0.01)


@pytest.mark.parametrize("num_new", [1, 2, 3, 5, 10, 30])
@pytest.mark.parametrize("kind", ["words", "seconds", "often zero"])
def test_a_few_new_values_of_the_same_kind_raise_no_alarm(kind, num_new):
    """Two to four of ten such snapshots were alarmed about: two new values are often much alike by chance."""
    random = np.random.default_rng(num_new)
    draw = {
        "words": lambda num: np.round(random.normal(12, 4, num)),
        "seconds": lambda num: random.lognormal(3, 1, num),
        "often zero": lambda num: random.normal(0.6, 0.1, num) * (random.random(num) > 0.3),
    }[kind]
    assert sum(change(draw(1000), draw(num_new)).is_alarm for _ in range(300)) <= 3


def test_a_shift_of_the_mean_raises_the_alarm_with_few_samples_and_a_trifle_not_with_many():
    few = change(drawn(40, 0, 1), drawn(40, 1.2, 2))
    assert few.is_alarm
    assert few.standard_errors > 3.29
    many = change(drawn(200_000, 0, 1), drawn(200_000, 0.05, 2))
    assert many.standard_errors > 10
    assert many.psi < 0.01
    assert not many.is_alarm
    assert change(drawn(200_000, 0, 1), drawn(200_000, 0.05, 2), max_psi=0.001).is_alarm


def test_a_change_of_spread_alone_raises_the_alarm():
    found = change(drawn(2000, 0, 1), drawn(2000, 0, 2, std=2.5))
    assert abs(found.standard_errors) < 3.29
    assert found.is_alarm


def test_a_constant_that_becomes_another_constant_is_drift_and_one_that_stays_is_not():
    same = compare(Values(50, 1.0, 0.0), Values(50, 1.0, 0.0), [(0, 0), (50, 50), (0, 0)], 0.2)
    other = compare(Values(50, 1.0, 0.0), Values(50, 0.0, 0.0), [(0, 50), (50, 0), (0, 0)], 0.2)
    assert (same.is_alarm, other.is_alarm) == (False, True)


def test_an_interval_holds_the_mean_as_often_as_it_says():
    held = 0
    for seed in range(300):
        low, high = mean_interval(drawn(50, 5.0, seed).tolist(), seed)
        held += low <= 5.0 <= high
    assert 0.90 <= held / 300 <= 0.98
    assert mean_interval([1.0, 2.0, 3.0], 7) == mean_interval([1.0, 2.0, 3.0], 7)


def test_differences_are_taken_task_by_task():
    """Tasks differ far more than the two candidates do; only pairs show that one is always a little better."""
    tasks = drawn(60, 0, 3, std=5.0)
    low, high = difference_interval((tasks + 0.1).tolist(), tasks.tolist(), 0)
    assert low == pytest.approx(0.1)
    assert high == pytest.approx(0.1)
    with pytest.raises(ValueError, match="found 1 and 2 values"):
        difference_interval([1.0], [1.0, 2.0], 0)
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([], 0)


def test_the_plane_keeps_groups_apart_and_is_the_same_every_time():
    centres = np.eye(3, 16, dtype=np.float32)
    noise = np.random.default_rng(0).normal(0, 0.05, (3, 12, 16)).astype(np.float32)
    vectors = (centres[:, None] + noise).reshape(36, 16)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    points = plane_points(vectors, seed=0)
    assert (points == plane_points(vectors, seed=0)).all()
    assert points.min() == 0
    assert points.max() == 1
    groups = points.reshape(3, 12, 2)
    widest = max(np.linalg.norm(group - group.mean(axis=0), axis=1).max() for group in groups)
    apart = [np.linalg.norm(groups[i].mean(axis=0) - groups[j].mean(axis=0)) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert widest < min(apart) / 2
    with pytest.raises(ValueError, match="at least 8 vectors, found 7"):
        plane_points(vectors[:7], seed=0)
