"""Drift: the samples of the newest snapshot against everything published before it, by what receipts say of them.

Texts' lengths, durations and stored scores of every granularity. Loads no model and reads no media.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict
from typing import Any

from gex_pipeline.report.wording import markdown_table
from gex_pipeline.shards.samples import Samples, open_samples
from gex_pipeline.shards.target import open_target
from gex_pipeline.tables import Database
from gex_pipeline.validate.drift import Values, compare
from gex_pipeline.validate.settings import names_taken_otherwise
from gex_pipeline.validate.statistics import rounded

_WHOLE = "num_words"  # a count, whose bins begin between two values


def find_drift(samples: Samples, max_psi: float) -> list[dict[str, Any]]:
    """A row a granularity and quantity that both sides have, alarms first; none for a first snapshot.

    Scores are compared with those only that were taken by the same model and rule.
    """
    manifest = samples.target.manifest
    if manifest is None or len(manifest.snapshots) < 2:
        return []
    *before, newest = manifest.snapshots
    apart = [
        (entry.snapshot, name)
        for entry in before
        for name in names_taken_otherwise((entry.recipe, entry.software), (newest.recipe, newest.software))
    ]
    others, names = [number for number, _ in apart], [name for _, name in apart]
    samples.database.run("validation_values", newest=newest.snapshot, others=others, names=names)
    return compare_measured(samples.database, max_psi)


def compare_measured(database: Database, max_psi: float) -> list[dict[str, Any]]:
    """The rows of `find_drift` over the table ``measured``."""
    rows = []
    for row in database.rows("validation_drift"):
        starts = _starts(row["quantiles"], is_whole=row["quantity"] == _WHOLE)
        found = database.rows(
            "validation_bins", granularity=row["granularity"], quantity=row["quantity"], starts=starts
        )
        counts = {item["bin"]: (item["before"], item["new"]) for item in found}
        change = compare(
            Values(row["num_sources_before"], row["mean_before"], row["std_before"]),
            Values(row["num_sources_new"], row["mean_new"], row["std_new"]),
            [counts.get(number, (0, 0)) for number in range(len(starts))],
            max_psi,
        )
        del row["quantiles"]
        rows.append({name: rounded(value) for name, value in (row | asdict(change)).items()})
    return sorted(rows, key=lambda row: (not row["is_alarm"], -row["psi"]))


def drift_of(output_uri: str, max_psi: float) -> list[dict[str, Any]]:
    """`find_drift` over an output.

    Raises:
        GexError: nothing is published there, or it cannot be read.
    """
    with open_samples(open_target([output_uri])) as samples:
        return find_drift(samples, max_psi)


def in_words(row: dict[str, Any]) -> str:
    """One row as a sentence."""
    errors = "" if row["standard_errors"] is None else f", {row['standard_errors']:+.1f} standard errors"
    return (
        f"{row['granularity']} {row['quantity']}: mean {row['mean_new']:.4g} after {row['mean_before']:.4g}{errors}, "
        f"PSI {row['psi']:.2f}"
    )


def drift_markdown(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table."""
    columns = ("granularity", "quantity", "before", "new", "standard errors", "PSI", "")
    told = []
    for row in rows:
        errors = "-" if row["standard_errors"] is None else f"{row['standard_errors']:+.1f}"
        means = (f"{row['mean_before']:.4g}", f"{row['mean_new']:.4g}")
        alarm = "**drift**" if row["is_alarm"] else ""
        told.append((row["granularity"], row["quantity"], *means, errors, f"{row['psi']:.2f}", alarm))
    return markdown_table(columns, told, numbers=(2, 3, 4, 5))


def _starts(quantiles: list[float], *, is_whole: bool) -> list[float]:
    """Lower edges of bins, out of the old values' minimum, deciles and maximum.

    A bin holds about a tenth of the old values; a value that more of them have has a bin of its own, so that those
    below or above it are told from it: a cap, a floor, a constant.
    """
    deciles = quantiles[1:-1]
    edges = {value + 0.5 if is_whole else value for value in deciles}
    for value in (value for value, num in Counter(quantiles).items() if num > 1):
        edges |= {value - 0.5, value + 0.5} if is_whole else {value, math.nextafter(value, math.inf)}
    return [-math.inf, *sorted(edges)]  # the first bin holds everything under the first edge
