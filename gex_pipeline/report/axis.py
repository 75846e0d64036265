"""Shared axes of small multiples: a range of values in, bin edges, a scale and ticks out. Draws nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gex_pipeline.report import wording

_LOG_FROM_RATIO = 8  # a range this wide is unreadable on a linear axis
_TICK_DECIMALS = 9
_SAME_WITHIN = 1e-7  # values this near to each other are one value: their ticks would be, too


@dataclass(frozen=True)
class Axis:
    """Edges of half-open bins (the last one closed), equally wide on the axis unless the values are whole."""

    edges: tuple[float, ...]
    is_log: bool
    ticks: tuple[float, ...]

    @property
    def num_bins(self) -> int:
        """Bins between the edges."""
        return len(self.edges) - 1

    @property
    def labels(self) -> tuple[str, ...]:
        """The ticks as they are written: exactly, and on a linear axis all with the decimals that the finest needs."""
        decimals = [len(f"{tick:.{_TICK_DECIMALS}f}".rstrip("0").partition(".")[2]) for tick in self.ticks]
        if not self.is_log:
            decimals = [max(decimals, default=0)] * len(decimals)
        return tuple(wording.exact(tick, num) for tick, num in zip(self.ticks, decimals, strict=True))

    def position(self, value: float) -> float:
        """Where a value stands between the first edge (0) and the last (1); the ends for what lies outside."""
        low, high = self.edges[0], self.edges[-1]
        value = min(max(value, low), high)
        if self.is_log:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)


def value_axis(low: float, high: float, num_bins: int, *, whole: bool = False, linear: bool = False) -> Axis:
    """An axis over [low, high], logarithmic where the range is wide unless it has to be `linear`.

    `whole` values stand in the middle of bins.
    """
    if whole:
        low, high = low - 0.5, high + 0.5
    elif high - low < _SAME_WITHIN:
        low, high = (low * 0.9, high * 1.1) if low > 1e-3 else (low - 1, high + 1)
    is_log = not linear and low > 0 and high / low >= _LOG_FROM_RATIO
    if is_log:
        edges = [low * (high / low) ** (number / num_bins) for number in range(num_bins + 1)]
    else:
        edges = [low + (high - low) * number / num_bins for number in range(num_bins + 1)]
    if whole:
        edges = [math.floor(edge) + 0.5 for edge in edges]
    edges[0], edges[-1] = low, high
    unique = tuple(sorted({round(edge, 9) for edge in edges}))
    # Rounding must not push the smallest value out of the first bin.
    unique = (min(unique[0], low), *unique[1:-1], max(unique[-1], high))
    return Axis(unique, is_log, _log_ticks(low, high) if is_log else _linear_ticks(low, high))


def _linear_ticks(low: float, high: float) -> tuple[float, ...]:
    span = high - low
    magnitude = 10.0 ** math.floor(math.log10(span / 4))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if span / (factor * magnitude) <= 5)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return tuple(round(number * step, _TICK_DECIMALS) for number in range(first, last + 1))


def _log_ticks(low: float, high: float) -> tuple[float, ...]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [round(factor * 10.0**decade, _TICK_DECIMALS) for decade in decades for factor in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= tick <= high]
    if len(inside) <= 7:
        return tuple(inside)
    return tuple(tick for tick in inside if math.isclose(math.log10(tick) % 1, 0, abs_tol=1e-9))
