"""The tools of ``gex shards``: one function a tool, arguments in, exit code out. Calls, then prints."""

from __future__ import annotations

import argparse
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

from gex_pipeline import storage
from gex_pipeline.cli import show_shards
from gex_pipeline.cli.show import say, say_json, say_note
from gex_pipeline.cli.show_shards import say_json_rows
from gex_pipeline.errors import GexError
from gex_pipeline.progress import LineProgress, Progress, shown_by
from gex_pipeline.shards import looking
from gex_pipeline.shards.findings import Finding, ShardCheck
from gex_pipeline.shards.samples import Samples, find_rows, one_row, open_samples
from gex_pipeline.shards.target import Target, open_target, split_snapshot

_SHOWN = 20


def ls(arguments: argparse.Namespace) -> int:
    """List the shards."""
    with _opened(arguments) as samples:
        rows = looking.list_shards(samples)
    _print(arguments, {"shards": rows}, lambda _: show_shards.listing(rows))
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Show one sample."""
    with _opened(arguments) as samples, open_samples(_everything(arguments)) as everything:
        found = looking.show_sample(samples, everything, arguments.key)
    _print(arguments, found, show_shards.sample)
    return 0


def find(arguments: argparse.Namespace) -> int:
    """Find samples by a condition."""
    limit = arguments.limit or (None if arguments.json else _SHOWN)
    with _opened(arguments) as samples:
        num, rows = find_rows(samples, arguments.predicate, limit)
    _print(arguments, {"num": num, "samples": rows}, show_shards.found)
    return 0


def stats(arguments: argparse.Namespace) -> int:
    """Count what the samples are like."""
    with _opened(arguments) as samples:
        content = looking.statistics(samples)
    if arguments.plot is not None:
        from gex_pipeline.report.shard_pictures import histograms_picture

        if not content["histograms"]:
            raise GexError("there is no sample to draw")
        storage.publish_bytes(histograms_picture(content), str(arguments.plot))
    _print(arguments, content, show_shards.statistics)
    return 0


def sample(arguments: argparse.Namespace) -> int:
    """Write samples picked by chance."""
    from gex_pipeline.shards.export import pick

    with _opened(arguments) as samples:
        return _write(arguments, samples, pick(samples, arguments.num, arguments.seed))


def export(arguments: argparse.Namespace) -> int:
    """Write one sample."""
    with _opened(arguments) as samples:
        return _write(arguments, samples, [one_row(samples, arguments.key)])


def _write(arguments: argparse.Namespace, samples: Samples, rows: list[dict[str, Any]]) -> int:
    from gex_pipeline.shards.export import export as write

    files = write(samples, rows, arguments.to)
    content: dict[str, Any] = {"keys": [row["key"] for row in rows], "files": files}
    _print(arguments, content, lambda _: say("\n".join(files)))
    return 0


def sheet(arguments: argparse.Namespace) -> int:
    """Draw a contact sheet."""
    from gex_pipeline.report.shard_pictures import samples_sheet
    from gex_pipeline.shards.export import pick

    with _opened(arguments) as samples:
        if arguments.where:
            _, rows = find_rows(samples, arguments.where, arguments.samples)
        else:
            rows = pick(samples, arguments.samples, arguments.seed)
        picture = samples_sheet(samples, rows, " ".join(arguments.target))
    if picture is None:
        raise GexError("none of these samples has a video or picture that can be shown")
    storage.publish_bytes(picture, str(arguments.out))
    content: dict[str, Any] = {"file": storage.absolute(str(arguments.out)), "keys": [row["key"] for row in rows]}
    _print(arguments, content, lambda _: say(str(content["file"])))
    return 0


def browse(arguments: argparse.Namespace) -> int:
    """Serve a page to look through the samples, until it is stopped."""
    from gex_pipeline.browse import server
    from gex_pipeline.browse.index import open_index

    _target(arguments)  # a granularity that is not there is told before anything is read
    title = " ".join(arguments.target)
    with (
        server.listen(arguments.host, arguments.port) as listening,
        open_index(_everything(arguments), arguments.granularity) as index,
    ):
        _say_notes([*_everything(arguments).notes, *index.notes])
        address = server.address_of(listening, arguments.host)
        if not server.is_loopback(listening):
            _say_notes(["anyone who can reach this address can read the whole data set"])

        def begun() -> None:
            _print(arguments, {"address": address}, lambda _: say(f"{title} at {address} (Ctrl-C ends it)"))
            sys.stdout.flush()
            if arguments.open:  # beside the server: a browser in the terminal ends only when it is left
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

        server.serve(index, title, listening, arguments.host, begun)
    return 0


def diff(arguments: argparse.Namespace) -> int:
    """Compare two targets; 1 when they differ."""
    targets = []
    for argument in (arguments.before, arguments.after):
        uri, snapshot = split_snapshot(argument)
        targets.append(open_target([uri], snapshot, arguments.granularity))
    with looking.compare(targets[0], targets[1]) as found:
        _say_notes([*targets[0].notes, *targets[1].notes, *found.notes])
        if arguments.json:
            names = ("granularities", "same_shards", "shards", "notes")
            say_json_rows({name: getattr(found, name) for name in names}, "changed", found.changed())
        else:
            show_shards.difference(found)
        return 1 if found.num_changed else 0


def verify(arguments: argparse.Namespace) -> int:
    """Check everything; 1 when something is wrong."""
    from gex_pipeline.shards import verify as verifying

    target = _target(arguments)
    runner: Callable[[Sequence[ShardCheck]], Iterable[list[Finding]]] = partial(
        verifying.on_cores, num_workers=arguments.jobs
    )
    if arguments.ray is not None:
        from gex_pipeline.ray_jobs import verify_shards
        from gex_pipeline.recipe import RaySettings

        runner = partial(verify_shards, settings=RaySettings(address=arguments.ray))
    with shown_by(LineProgress() if sys.stderr.isatty() else Progress()):
        findings = verifying.verify(target, _everything(arguments), runner, is_deep=arguments.deep)
    num_wrong = sum(finding.num for finding in findings if not finding.is_note)
    content = {
        "output": target.uri or None,
        "shards": len(target.shards),
        "wrong": num_wrong,
        "notes": sum(finding.num for finding in findings) - num_wrong,
        "findings": [asdict(finding) for finding in findings],
    }
    _print(arguments, content, show_shards.findings)
    return 1 if num_wrong else 0


def retire(arguments: argparse.Namespace) -> int:
    """Take snapshots out of a data set."""
    from gex_pipeline.stages.retire import retire_snapshots

    found = retire_snapshots(
        arguments.output, arguments.older_than_days, arguments.snapshot or (), dry_run=arguments.dry_run
    )
    _print(arguments, asdict(found), lambda _: say(found.words))
    return 0


def _target(arguments: argparse.Namespace) -> Target:
    return open_target(arguments.target, arguments.snapshot, arguments.granularity)


def _everything(arguments: argparse.Namespace) -> Target:
    """The target without its filter by granularity: where parents are looked up."""
    return open_target(arguments.target, arguments.snapshot)


@contextmanager
def _opened(arguments: argparse.Namespace) -> Iterator[Samples]:
    """The samples of the target; what could not be read is said on the error stream."""
    with open_samples(_target(arguments)) as samples:
        _say_notes([*samples.target.notes, *samples.notes])
        yield samples


def _say_notes(notes: Iterable[str]) -> None:
    for note in notes:
        say_note(note)


def _print(arguments: argparse.Namespace, content: Any, for_people: Callable[[Any], None]) -> None:
    if arguments.json:
        say_json(content)
    else:
        for_people(content)
