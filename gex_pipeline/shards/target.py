"""What a shard tool looks at: arguments in, the shards they name out. Light: no torch, ray, duckdb or ffmpeg.

A target is an output (its ``dataset.json`` lists the shards), which may be named as it was at a snapshot
(``OUTPUT@3``), or tars of any WebDataset by path, glob or brace range. Of an output the manifest is the truth: a tar
on disk that it does not name is no part of the target.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.shard_format import MANIFEST_NAME
from gex_pipeline.shards.manifest import Manifest, ShardEntry, read_manifest

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_AT = re.compile(r"(.+)@(\d+)")
_MAX_EXPANDED = 1_000_000


@dataclass(frozen=True)
class ShardRef:
    """One shard to look at; the fields after `name` are those of an output's shard."""

    uri: str
    name: str  # as people see it: relative to the output, or the tar's file name
    granularity: str = ""
    snapshot: int | None = None
    number: int | None = None
    entry: ShardEntry | None = None
    receipt_uri: str | None = None


@dataclass(frozen=True)
class Target:
    """The shards that a command looks at; `manifest` is None for tars without an output."""

    uri: str  # the output; empty for tars
    manifest: Manifest | None
    shards: tuple[ShardRef, ...]
    snapshot: int | None = None

    @property
    def notes(self) -> list[str]:
        """What has to be said of the target before anything is: an old snapshot is not what it was."""
        retired = self.manifest.retired(self.snapshot) if self.manifest and self.snapshot is not None else []
        if not retired:
            return []
        which = f"snapshot{'s' if len(retired) > 1 else ''} {', '.join(map(str, retired))}"
        return [f"{self.uri} at snapshot {self.snapshot} is without {which}, retired since"]


def open_target(arguments: Sequence[str], snapshot: int | None = None, granularity: str | None = None) -> Target:
    """The target that these arguments name, with only the shards up to `snapshot` and of `granularity`.

    Raises:
        GexError: there is nothing, or a filter names what is not there.
    """
    if len(arguments) == 1:
        place, at = split_snapshot(arguments[0])
        uri = storage.absolute(place.removesuffix(f"/{MANIFEST_NAME}"))
        manifest = read_manifest(uri) if not uri.endswith(".tar") else None
        if manifest is not None:
            if snapshot not in (None, at) and at is not None:
                raise GexError(f"{arguments[0]!r} names snapshot {at}, and --snapshot {snapshot}; say one of them")
            return _of_output(uri, manifest, snapshot if at is None else at, granularity)
    if snapshot is not None or granularity is not None:
        raise GexError(f"{' '.join(arguments)!r} is not an output: only an output has snapshots and granularities")
    shards = [shard for argument in arguments for shard in _tars(argument)]
    return Target("", None, tuple(_named(dict.fromkeys(shards))))


def split_snapshot(argument: str) -> tuple[str, int | None]:
    """``OUTPUT@3`` as (OUTPUT, 3); without a number, or when a file has that very name, all snapshots."""
    match = _AT.fullmatch(argument)
    if match is None or storage.exists(storage.join(argument, MANIFEST_NAME)):
        return argument, None
    return match[1], int(match[2])


def _of_output(uri: str, manifest: Manifest, snapshot: int | None, granularity: str | None) -> Target:
    numbers = [entry.snapshot for entry in manifest.snapshots]
    if snapshot is not None and snapshot not in numbers:
        raise GexError(f"{uri!r} has no snapshot {snapshot}; it has {', '.join(map(str, numbers)) or 'none'}")
    if snapshot is not None:
        manifest.check_whole(snapshot, uri)
    names = manifest.granularity_names()
    if granularity is not None and granularity not in names:
        raise GexError(f"{uri!r} has no granularity {granularity!r}; it has {', '.join(names) or 'none'}")
    shards = tuple(
        ShardRef(
            uri=storage.join(uri, shard.path),
            name=shard.path,
            granularity=name,
            snapshot=entry.snapshot,
            number=shard.number,
            entry=shard,
            receipt_uri=storage.join(uri, shard.receipt),
        )
        for name in names
        if granularity in (None, name)
        for entry in manifest.snapshots
        if (snapshot is None or entry.snapshot <= snapshot) and name in entry.granularities
        for shard in entry.granularities[name].shards
    )
    return Target(uri, manifest, shards, snapshot)


def _tars(argument: str) -> list[str]:
    """The tars that one argument names.

    Raises:
        GexError: there is none.
    """
    found = []
    for pattern in _expanded(argument):
        files = storage.list_files(storage.absolute(pattern))
        if not files and not pattern.endswith(".tar"):
            files = storage.list_files(storage.join(storage.absolute(pattern), "*.tar"))
        if not files:
            raise GexError(
                f"{pattern!r} is neither an output (no {MANIFEST_NAME} in it) nor a tar, nor does it hold tars"
            )
        found += [file.uri for file in files]
    return found


def _expanded(argument: str) -> Iterator[str]:
    """``a-{000..012}.tar`` as the thirteen names it stands for; the width is that of the first number."""
    match = _RANGE.search(argument)
    if match is None:
        yield argument
        return
    first, last = int(match[1]), int(match[2])
    if not first <= last < first + _MAX_EXPANDED:
        raise GexError(f"{match[0]} in {argument!r} is not a range from a number to a larger one")
    for number in range(first, last + 1):
        yield from _expanded(f"{argument[: match.start()]}{number:0{len(match[1])}d}{argument[match.end() :]}")


def _named(uris: dict[str, None]) -> Iterator[ShardRef]:
    """Shards under their file names; under their whole URIs where two have one name."""
    names = Counter(storage.name_of(uri) for uri in uris)
    for uri in uris:
        name = storage.name_of(uri)
        yield ShardRef(uri, name if names[name] == 1 else uri)
