"""How sure a mean and a difference of means are: values in, percentile bootstrap intervals out. numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
_RESAMPLES = 4000
_AT_ONCE = 200_000  # numbers drawn together


def mean_interval(values: Sequence[float], seed: int) -> tuple[float, float]:
    """The interval that holds `CONFIDENCE` of the means of resampled `values`; the same for the same seed.

    Raises:
        ValueError: there are no values.
    """
    if not len(values):
        raise ValueError("expected at least one value")
    known = np.asarray(values, dtype=np.float64)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(_resampled_means(known, seed), (tail, 100 - tail))
    return float(low), float(high)


def difference_interval(values: Sequence[float], others: Sequence[float], seed: int) -> tuple[float, float]:
    """The same of mean(values) - mean(others), which belong to the same tasks in the same order.

    Raises:
        ValueError: there are no values, or they are not pairs.
    """
    if len(values) != len(others):
        raise ValueError(f"expected pairs, found {len(values)} and {len(others)} values")
    return mean_interval((np.asarray(values, np.float64) - np.asarray(others, np.float64)).tolist(), seed)


def _resampled_means(values: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.float64]:
    draw = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // values.size)
    means = []
    for start in range(0, _RESAMPLES, step):
        picked = draw.integers(values.size, size=(min(step, _RESAMPLES - start), values.size))
        means.append(values[picked].mean(axis=1))
    return np.concatenate(means)
