"""Numbers as a person reads them: thousands, hours, sizes, positions in a video."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

NARROW_SPACE = "\u202f"
NOTHING = "\u2013"
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def count(value: int) -> str:
    """12 345, with narrow spaces."""
    return f"{value:,}".replace(",", NARROW_SPACE)


def number(value: float | None) -> str:
    """About three digits that matter."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return count(round(value))
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(digits, 6)}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "\u2212")


def exact(value: float, decimals: int) -> str:
    """As many decimals as are asked for, thousands with narrow spaces."""
    return f"{value:,.{decimals}f}".replace(",", NARROW_SPACE).replace("-", "\u2212")


def score(value: float | None) -> str:
    """A score with three decimals."""
    return NOTHING if value is None else f"{value:.3f}".replace("-", "\u2212")


def duration(value_s: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if value_s >= 3600:
        return f"{number(value_s / 3600)} h"
    return f"{number(value_s / 60)} min" if value_s >= 60 else f"{number(value_s)} s"


def size(value_bytes: int) -> str:
    """Decimal units."""
    left = float(value_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if left < 1000 or unit == "TB":
            break
        left /= 1000
    return f"{number(left)} {unit}"


def position(value_s: float) -> str:
    """A position in a video: 1:02.5, hours where there are any."""
    tenths = math.floor(max(value_s, 0.0) * 10 + 0.5)  # halves upwards, as the page of gex shards browse has them
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest // 10:02d}" + (f".{rest % 10}" if rest % 10 else "")
    return f"{hours}:{minutes:02d}:{seconds}" if hours else f"{minutes}:{seconds}"


def moment(iso: str) -> str:
    """An ISO 8601 time as a date with its time."""
    try:
        time = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    zone = f" {time.tzname()}" if time.tzinfo else ""
    return f"{time.day} {_MONTHS[time.month - 1]} {time.year}, {time:%H:%M}{zone}"


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]], numbers: Collection[int] = ()) -> str:
    """A table in Markdown, the columns of these numbers to the right; no cell breaks out of its place."""
    rules = ["---:" if number in numbers else "---" for number in range(len(columns))]
    cells = [[" ".join(str(cell).split()).replace("|", "\\|") for cell in row] for row in (columns, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (cells[0], rules, *cells[1:]))
