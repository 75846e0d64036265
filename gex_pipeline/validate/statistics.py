"""Numbers of one score over a data set: scores in, mean, spread and percentiles out. numpy only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

STATISTICS = ("num", "mean", "std", "min", "p05", "median", "p95", "max")


def summarise(values: Iterable[float | None]) -> dict[str, float | None]:
    """`STATISTICS` of the values, None and NaN left out; `std` is that of the population (divided by n).

    Without any value `num` is 0 and the rest None: NaN is no JSON, and would pass a gate that compares with it.
    """
    known = _known(values)
    if known.size == 0:
        return {name: 0 if name == "num" else None for name in STATISTICS}
    p05, median, p95 = (float(value) for value in np.percentile(known, (5, 50, 95)))
    return {
        "num": int(known.size),
        "mean": float(known.mean()),
        "std": float(known.std()),
        "min": float(known.min()),
        "p05": p05,
        "median": median,
        "p95": p95,
        "max": float(known.max()),
    }


def rounded(value: Any) -> Any:
    """A figure with the digits that are written down; what is no float stays as it is."""
    return round(value, 6) if isinstance(value, float) else value


def _known(values: Iterable[float | None]) -> npt.NDArray[np.float64]:
    numbers = np.array([value for value in values if value is not None], dtype=np.float64)
    return numbers[~np.isnan(numbers)]
