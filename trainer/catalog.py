"""What a published data set holds, one row a sample: ``dataset.json`` and its receipts in, rows by number out.

Samples of a granularity are numbered by shard, in the manifest's order, then by row. The rows lie in Arrow files that
are mapped into memory: ten million of them are no Python objects, and worker processes share one copy. They hold
places of media, never media. Nothing of the data set is changed, no directory is listed.

The split into training and held-out samples is by source: no source is in both, and which side it is on depends on
its name and the seed only, so it stays there when the data set grows.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gex_pipeline.errors import GexError
from gex_pipeline.shards.manifest import Manifest, ShardEntry, published_manifest
from trainer.catalog_rows import HELD_OUT, MIXED, TRAINING, CatalogSample, Rows, source_number, write_rows
from trainer.order import Int64s

__all__ = ["Catalog", "CatalogPart", "CatalogSample", "Split", "read_catalog", "source_number"]


def read_catalog(dataset_uri: str, snapshot: int | None = None, granularities: Sequence[str] | None = None) -> Catalog:
    """The samples published up to a snapshot (all by default) of these granularities (all by default).

    Raises:
        GexError: nothing is published there, the snapshot or a granularity is not among what is, the snapshot was
            retired, a granularity is empty, or a receipt is missing, damaged or not the one that was published.
    """
    manifest = published_manifest(dataset_uri)
    numbers = [entry.snapshot for entry in manifest.snapshots]
    if snapshot is not None and snapshot not in numbers:
        raise GexError(f"{dataset_uri!r} has no snapshot {snapshot}; published are {_listed(numbers)}")
    if snapshot is not None:
        manifest.check_whole(snapshot, dataset_uri)
    names = manifest.granularity_names() if granularities is None else granularities
    shards = {name: _shards_of(manifest, dataset_uri, name, snapshot) for name in names}
    catalog = Catalog(Path(tempfile.mkdtemp(prefix="gex-catalog-")), dataset_uri)
    try:
        for name, entries in shards.items():
            catalog.rows[name] = write_rows(catalog.folder / f"{name}.arrow", dataset_uri, name, entries)
    except BaseException:
        catalog.close()
        raise
    return catalog


class Catalog:
    """The rows of all granularities; they lie in a scratch folder that goes with the catalogue, or when it closes."""

    def __init__(self, folder: Path, dataset_uri: str) -> None:
        self.folder, self.dataset_uri = folder, dataset_uri
        self.rows: dict[str, Rows] = {}
        self._remove: Any = weakref.finalize(self, _remove_in, os.getpid(), folder)

    def __getstate__(self) -> dict[str, Any]:
        # a copy in another process reads the same files and leaves them where they are
        return {"folder": self.folder, "dataset_uri": self.dataset_uri, "rows": self.rows, "_remove": None}

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the scratch folder; the catalogue cannot be read any more."""
        if self._remove is not None:
            self._remove()

    @property
    def is_own(self) -> bool:
        """Whether the scratch folder goes with this catalogue; not with a copy from another process."""
        return self._remove is not None

    def linked(self) -> Catalog:
        """The same rows in a scratch folder of its own, whose files share their bytes with those of this one.

        Raises:
            OSError: the files are not there, or cannot be linked.
        """
        catalog = Catalog(Path(tempfile.mkdtemp(prefix="gex-catalog-")), self.dataset_uri)
        try:
            for name, rows in self.rows.items():
                mine = catalog.rows[name] = replace(rows, path=catalog.folder / rows.path.name)
                for theirs, link in ((rows.path, mine.path), (rows.sources_path, mine.sources_path)):
                    link.hardlink_to(theirs)
        except BaseException:
            catalog.close()
            raise
        return catalog

    @property
    def names(self) -> tuple[str, ...]:
        """The granularities."""
        return tuple(self.rows)

    def shard_sizes(self, granularity: str) -> Int64s:
        """How many samples each shard holds."""
        return np.diff(self.of(granularity).starts)

    def num_samples(self, granularity: str) -> int:
        """Samples of all shards."""
        return int(self.of(granularity).starts[-1])

    def sample(self, granularity: str, index: int) -> CatalogSample:
        """One sample by its number.

        Raises:
            IndexError: there is no such sample.
        """
        return self.of(granularity).sample(index)

    def of(self, granularity: str) -> Rows:
        """The rows of a granularity.

        Raises:
            GexError: it was not read, or is not published.
        """
        if granularity not in self.rows:
            raise _unknown(granularity, self.dataset_uri, self.names)
        return self.rows[granularity]

    def split(self, held_out_share: float, seed: int = 0) -> Split:
        """Training and held-out samples. A sample of clips of several sources that fall on both sides is in neither."""
        sides = {name: rows.sides(held_out_share, seed) for name, rows in self.rows.items()}
        training = {name: self._select(name, side == TRAINING) for name, side in sides.items()}
        held_out = {name: self._select(name, side == HELD_OUT) for name, side in sides.items()}
        num_mixed = {name: int((side == MIXED).sum()) for name, side in sides.items()}
        return Split(CatalogPart(self, training), CatalogPart(self, held_out), num_mixed)

    def _select(self, granularity: str, taken: NDArray[np.bool_]) -> Int64s | None:
        return None if taken.all() else np.flatnonzero(taken)


@dataclass(frozen=True)
class CatalogPart:
    """Some of a catalogue's samples, numbered anew in the same order."""

    catalog: Catalog
    selected: dict[str, Int64s | None]  # numbers in the catalogue; None: all of them

    @property
    def names(self) -> tuple[str, ...]:
        """The granularities, with those of which no sample is in this part."""
        return self.catalog.names

    def num_samples(self, granularity: str) -> int:
        """Samples of a granularity in this part."""
        return int(self.shard_sizes(granularity).sum())

    def shard_sizes(self, granularity: str) -> Int64s:
        """How many of its samples lie in each shard; 0 is possible."""
        starts, selected = self.catalog.of(granularity).starts, self.selected[granularity]
        return np.diff(starts if selected is None else np.searchsorted(selected, starts))

    def sample(self, granularity: str, index: int) -> CatalogSample:
        """One sample by its number in this part.

        Raises:
            IndexError: there is no such sample.
        """
        selected = self.selected[granularity]
        if selected is not None and not 0 <= index < len(selected):  # NumPy would count a negative one from the end
            raise IndexError(f"sample {index} of {granularity}; there are {len(selected)}")
        return self.catalog.sample(granularity, index if selected is None else int(selected[index]))


@dataclass(frozen=True)
class Split:
    """Both parts, and how many samples of each granularity are in neither."""

    training: CatalogPart
    held_out: CatalogPart
    num_mixed: dict[str, int]


def _shards_of(manifest: Manifest, dataset_uri: str, name: str, snapshot: int | None) -> list[ShardEntry]:
    if name not in manifest.granularity_names():
        raise _unknown(name, dataset_uri, manifest.granularity_names())
    shards = [shard for shard in manifest.shards(name, snapshot) if shard.num_samples]
    if not shards:
        upto = "" if snapshot is None else f" up to snapshot {snapshot}"
        raise GexError(f"granularity {name} of {dataset_uri!r} has no samples{upto}; leave it out")
    return shards


def _unknown(granularity: str, dataset_uri: str, names: Sequence[str]) -> GexError:
    return GexError(f"{dataset_uri!r} has no granularity {granularity!r}; published are {_listed(names)}")


def _listed(names: Sequence[object]) -> str:
    return ", ".join(map(str, names)) or "none"


def _remove_in(pid: int, folder: Path) -> None:
    """Remove the folder, but not from a forked copy of the process that made it."""
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)
