"""Numbers of one score over a data set: scores in, mean, spread, percentiles and a histogram out. numpy only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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


def histogram(values: Iterable[float | None], bins: int | Sequence[float]) -> dict[str, list[float] | list[int]]:
    """`counts` (k) and `edges` (k + 1) over `bins`: a number of bins of equal width, or the edges themselves.

    None and NaN are left out, and so is what lies outside given edges. A bin is half-open, the last one closed.
    Both lists are empty when there is no value and only a number of bins was given.
    """
    known = _known(values)
    if known.size == 0 and isinstance(bins, int):
        return {"counts": [], "edges": []}
    counts, edges = np.histogram(known, bins=bins)
    return {"counts": [int(count) for count in counts], "edges": [float(edge) for edge in edges]}


def _known(values: Iterable[float | None]) -> npt.NDArray[np.float64]:
    numbers = np.array([value for value in values if value is not None], dtype=np.float64)
    return numbers[~np.isnan(numbers)]
