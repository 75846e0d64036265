"""How figures look on a terminal: tables, bytes, hours, the end of a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from gex_pipeline import storage
from gex_pipeline.layout import Layout
from gex_pipeline.progress import ACTING, printable
from gex_pipeline.shards.manifest import Account, Manifest


def say(text: str = "") -> None:
    """One line for the person."""
    sys.stdout.write(f"{printable(text)}\n")


def say_note(text: str) -> None:
    """One line on the error stream, of what is worth knowing."""
    sys.stderr.write(printable(f"gex: note: {text}\n"))


def say_now(line: str) -> None:
    """One line of a long work, seen at once also where the output is a file."""
    say(line)
    sys.stdout.flush()


def say_json(content: Any) -> None:
    """The same for a program."""
    sys.stdout.write(as_json(content, indent=1) + "\n")


def as_json(content: Any, indent: int | None = None) -> str:
    """JSON with letters as they are, but for those that act on a terminal."""
    text = json.dumps(content, indent=indent, ensure_ascii=False)
    return ACTING.sub(lambda found: json.dumps(found[0])[1:-1], text)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int] = ()) -> None:
    """Print columns; those in `numbers` flush right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, heading in enumerate(headings):
        right = index in numbers
        grid.add_column(printable(heading), justify="right" if right else "left", overflow="fold", no_wrap=right)
    for row in rows:
        grid.add_row(*map(printable, row))
    console = Console(file=sys.stdout, highlight=False, markup=False)
    console.width = 160  # the same in a log and in any window; a reason is never broken up
    sys.stdout.flush()  # and written by ourselves: where nobody reads any more, rich would end the process
    with console.capture() as printed:
        console.print(grid)
    sys.stdout.write(printed.get())


def human_bytes(count: float) -> str:
    """1536 → 1.5 kB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def human_time(seconds: float) -> str:
    """Seconds, minutes or hours of video, whichever reads best."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h"


def reasons(counts: dict[str, int], between: str = ", ") -> str:
    """``12 too_few_clips, 1 media_missing``; a dash when there are none."""
    return between.join(f"{count:,} {reason}" for reason, count in counts.items()) or "-"


def show_accounts(accounts: Sequence[Account]) -> None:
    """The balance, a row a stage."""
    rows = [
        (
            f"{account.granularity} {account.stage}",
            f"{account.num_in:,} {account.unit}",
            f"{account.num_used:,}" + (f" (+{account.num_known:,} known)" if account.num_known else ""),
            reasons(account.excluded, "\n"),
            reasons(account.rejected, "\n"),
            "balanced" if account.difference == 0 else f"OFF BY {account.difference:,}",
        )
        for account in accounts
    ]
    table(("stage", "in", "used", "excluded", "rejected", "account"), rows, numbers=(1, 2))


def warn_of_nothing(accounts: Sequence[Account], output_uri: str) -> None:
    """Say where a stage could use nothing and rejected something: mostly one wrong setting, and seldom the data."""
    for account in accounts:
        if account.num_used or account.num_known or not account.rejected:
            continue
        stage, what = f"{account.granularity} {account.stage}", f"{account.num_in:,} {account.unit}"
        if account.excluded:
            rejected, excluded = reasons(account.rejected), reasons(account.excluded)
            found = f"none of {what} was used (rejected: {rejected}; excluded: {excluded})"
        else:
            found = f"all {what} were rejected ({reasons(account.rejected)})"
        say(f"warning  {stage}: {found}; 'gex retry {output_uri}' says why, and tries them again after a repair")


def show_granularities(manifest: Manifest) -> None:
    """One line a granularity, all snapshots together."""
    rows = []
    for name in manifest.granularity_names():
        totals = [entry.granularities[name].totals for entry in manifest.snapshots if name in entry.granularities]
        samples = sum(total["samples"] for total in totals)
        words = sum(total["words"] for total in totals)
        seconds = sum(total["duration_s"] for total in totals)
        rows.append(
            (
                name,
                f"{samples:,}",
                f"{sum(total['shards'] for total in totals):,}",
                human_time(seconds) if seconds else "-",
                human_bytes(sum(total["bytes"] for total in totals)),
                f"{words / samples:.1f}" if samples else "-",
            )
        )
    table(("granularity", "samples", "shards", "video", "bytes", "mean words"), rows, numbers=(1, 2, 3, 4, 5))


def show_end(manifest: Manifest, output_uri: str) -> None:
    """What a run ends with: balance, granularities, where things are, what to type next."""
    layout = Layout(output_uri)
    show_accounts(manifest.snapshots[-1].accounts)
    show_granularities(manifest)
    warn_of_nothing(manifest.snapshots[-1].accounts, output_uri)
    has_report = storage.exists(layout.report("report.html"))
    if has_report:
        say(f"report   {layout.report('report.html')}")
    for name in manifest.granularity_names():
        shards = manifest.shards(name)
        if shards:
            say(f"shards   {output_uri}/{shards[0].path}" + (f"  (and {len(shards) - 1} more)" if shards[1:] else ""))
    say(f"next     gex status {output_uri}" + ("    or open the report in a browser" if has_report else ""))
