"""Whether new values look like those before them: counts and moments in, distances and an alarm out. Pure arithmetic.

The population stability index (PSI) sums (q - p) ln(q / p) over bins that hold a tenth of the old values each. It says
how much changed, whatever the number of values; chance alone gives it a size, too, when values are few. So there is
an alarm when the PSI is over the threshold and chance cannot explain it: when means differ by more than
`MAX_ERRORS` standard errors, or the PSI is over what chance gives it once in a thousand times. Values of one source are
alike, so chance is reckoned with as many values as there are sources.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MAX_ERRORS = 3.29  # of a difference of means: once in a thousand times by chance
_UPPER_NORMAL = 3.0902  # quantile 0.999 of the normal distribution
_HALF = 0.5  # added to every bin: an empty one would make the index infinite


@dataclass(frozen=True)
class Values:
    """Moments of one side."""

    num: int  # of values that know nothing of each other: of sources, where these have several
    mean: float
    std: float  # of a sample, divided by num - 1


@dataclass(frozen=True)
class Change:
    """How one quantity changed."""

    standard_errors: float | None  # of the difference of means, new - before; None where nothing varies
    psi: float
    psi_by_chance: float  # exceeded once in a thousand times where nothing changed
    is_alarm: bool


def compare(before: Values, new: Values, counts: Sequence[tuple[int, int]], max_psi: float) -> Change:
    """Compare two sides; `counts` are those before and new in each bin."""
    errors = standard_errors(before, new)
    index, chance = stability_index(counts), psi_by_chance(before.num, new.num, len(counts))
    is_real = index > chance or (errors is not None and abs(errors) > MAX_ERRORS)
    return Change(errors, index, chance, index > max_psi and is_real)


def standard_errors(before: Values, new: Values) -> float | None:
    """The difference of means in its standard errors; None where neither side varies.

    Welch's, but not smaller than the old spread makes it: a few new values have hardly a spread of their own.
    """
    welch = before.std**2 / before.num + new.std**2 / new.num
    error = math.sqrt(max(welch, before.std**2 * (1 / before.num + 1 / new.num)))
    return (new.mean - before.mean) / error if error else None


def stability_index(counts: Sequence[tuple[int, int]]) -> float:
    """The PSI of bins' counts before and new; 0 where both sides are the same."""
    before = [old + _HALF for old, _ in counts]
    new = [count + _HALF for _, count in counts]
    shares = [(p / sum(before), q / sum(new)) for p, q in zip(before, new, strict=True)]
    return sum((q - p) * math.log(q / p) for p, q in shares)


def psi_by_chance(num_before: int, num_new: int, num_bins: int) -> float:
    """Quantile 0.999 of the PSI where both sides come from one distribution: a scaled chi-squared (Yurdakul 2018)."""
    freedom = num_bins - 1
    if freedom < 1:
        return 0.0
    # Wilson and Hilferty's approximation
    spread = 2 / (9 * freedom)
    quantile = freedom * (1 - spread + _UPPER_NORMAL * math.sqrt(spread)) ** 3
    return (1 / num_before + 1 / num_new) * quantile
