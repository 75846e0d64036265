"""What a run knows of itself: the recipe, the next snapshot, what is published, what was begun.

`open_run` decides whether there is anything to do and whether begun work can go on. A run is named by
a digest of recipe and inputs; receipts carry it, so work begun under other inputs is never taken over.
`find_recipe` reads a recipe file, or the recipe an output was made with.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.granularity import SOURCE_OPERATION
from gex_pipeline.layout import Layout
from gex_pipeline.recipe import Recipe, load_recipe, make_recipe
from gex_pipeline.shards.manifest import Account, Manifest, read_manifest

NOTHING_NEW = "nothing new"


@dataclass(frozen=True)
class Retry:
    """Which rejects of earlier snapshots a run tries again."""

    reasons: tuple[str, ...]
    granularities: tuple[str, ...] = ()  # none: all


@dataclass(frozen=True)
class Run:
    """One run over one output."""

    recipe: Recipe
    manifest: Manifest  # what is published already
    inputs: tuple[dict[str, Any], ...]  # the metadata files found: uri, num_bytes, modified_s
    run_id: str
    seen_before: bool = False  # whether a run over these very inputs has found nothing new
    retry: Retry | None = None  # rejects to try again

    @property
    def layout(self) -> Layout:
        """Where the output lies."""
        return Layout(self.recipe.output_uri)

    @property
    def snapshot(self) -> int:
        """The number this run publishes under."""
        return len(self.manifest.snapshots)

    @property
    def is_current(self) -> bool:
        """Whether nothing can be new: the inputs are those of the last snapshot, or were looked through since."""
        snapshots = self.manifest.snapshots
        return self.retry is None and bool(snapshots) and (self.seen_before or snapshots[-1].inputs == self.inputs)

    def previous_tables(self, name: str) -> list[str]:
        """The tables of this name in the published snapshots."""
        wanted = {f"tables/{name}-{entry.snapshot:06d}.parquet" for entry in self.manifest.snapshots}
        return [
            storage.join(self.layout.output_uri, path)
            for entry in self.manifest.snapshots
            for path in entry.tables
            if path in wanted
        ]

    def published_receipts(self, granularity: str) -> list[str]:
        """The receipts of a granularity's published shards."""
        return [storage.join(self.layout.output_uri, shard.receipt) for shard in self.manifest.shards(granularity)]


def input_files(recipe: Recipe) -> tuple[dict[str, Any], ...]:
    """The metadata files the recipe names, with what tells whether they changed.

    Raises:
        GexError: a pattern finds nothing.
    """
    clips = recipe.source.clips
    patterns = [clips] if isinstance(clips, str) else list(clips)
    if recipe.source.media.kind == "tars":
        patterns.append(recipe.source.media.uri)
    files = []
    for pattern in patterns:
        found = storage.list_files(recipe.locate(pattern))
        if not found:
            raise GexError(f"no file matches {recipe.locate(pattern)!r}")
        files += [vars(file) for file in found]
    return tuple(files)


def find_recipe(place: str) -> Recipe:
    """The recipe in a file, or the one that the output at a folder or URI was made with.

    Raises:
        RecipeError: the file is no recipe.
        GexError: the folder or URI holds no output, or one that cannot be gone on with from here.
    """
    if "://" in place or Path(place).is_dir():
        return _stored_recipe(storage.absolute(place))
    return load_recipe(place)


def _stored_recipe(output_uri: str) -> Recipe:
    """The recipe of the run that was begun last; relative paths start from the folder its file was in."""
    state, manifest = read_state(Layout(output_uri)), read_manifest(output_uri)
    if state is None:
        what = "was copied without run.json" if manifest else "holds no data set, and no run was begun there"
        raise GexError(f"{output_uri} {what}; name the recipe file instead")
    content = {**state["recipe"], "output": output_uri}
    content["granularity"] = {
        name: {key: value for key, value in table.items() if (key, value) != ("operation", SOURCE_OPERATION)}
        for name, table in content["granularity"].items()
    }
    recipe = make_recipe(content, base=state.get("base", "."))
    if manifest and manifest.snapshots and manifest.snapshots[-1].recipe_hash != recipe.hash:
        raise GexError(f"the recipe in {output_uri}/run.json is not the one of the last snapshot; name the recipe file")
    return recipe


def open_run(recipe: Recipe, retry: Retry | None = None) -> Run:
    """Look at the output and the inputs; writes nothing.

    Raises:
        GexError: the output was made with another recipe.
    """
    inputs = input_files(recipe)
    manifest = read_manifest(recipe.output_uri) or Manifest(recipe.name)
    if manifest.snapshots and manifest.snapshots[-1].recipe_hash != recipe.hash:
        changed = ", ".join(_changes(manifest.snapshots[-1].recipe, recipe.resolved()))
        raise GexError(
            f"{recipe.output_uri} was made with another recipe (differs in: {changed or 'defaults of this version'}). "
            "Published samples are never rewritten: choose another output, or set the recipe back"
        )
    identity = [recipe.hash, inputs, len(manifest.snapshots), *([asdict(retry)] if retry else ())]
    run_id = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    state = read_state(Layout(recipe.output_uri)) or {}
    seen_before = state.get("run_id") == run_id and state.get("stage") == NOTHING_NEW
    return Run(recipe, manifest, inputs, run_id, seen_before, retry)


def _changes(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        skipped = ("name", "output", "ray") if not path else ()
        keys = [key for key in dict.fromkeys([*old, *new]) if key not in skipped]
        return [change for key in keys for change in _changes(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))]
    return [] if old == new else [path]


def begin(run: Run) -> Run:
    """Mark the run as begun in the output; tables begun under other inputs are removed.

    Raises:
        GexError: the output cannot be written.
    """
    storage.check_writable(run.layout.output_uri)
    state = read_state(run.layout)
    if state is None or state.get("run_id") != run.run_id:
        # The account of ingest is among the parts: left behind, it would vouch for tables that are gone.
        _remove_tables(run)
    _write_state(run, {"stage": "begun"})
    return replace(run)


def end_without_snapshot(run: Run, accounts: Sequence[Account] = ()) -> None:
    """Note that the inputs hold nothing new, and remove the tables that said so; their accounts are kept."""
    _remove_tables(run)
    _write_state(run, {"stage": NOTHING_NEW, "accounts": [asdict(account) for account in accounts]})


def _remove_tables(run: Run) -> None:
    """Remove the tables of a snapshot that is not published."""
    for pattern in (f"tables/*-{run.snapshot:06d}.parquet", f"tables/parts/*-{run.snapshot:06d}/*"):
        for file in storage.list_files(f"{run.layout.output_uri}/{pattern}"):
            storage.remove(file.uri)


def mark(run: Run, stage: str) -> None:
    """Note which stage the run has come to, for `gex status`."""
    _write_state(run, {"stage": stage})


def _write_state(run: Run, extra: dict[str, Any]) -> None:
    state = {
        "run_id": run.run_id,
        "snapshot": run.snapshot,
        "recipe": run.recipe.resolved(),
        "base": str(Path(run.recipe.base).absolute()),
        "host": platform.node(),
        "pid": os.getpid(),
        "updated": datetime.now(UTC).isoformat(timespec="seconds"),
        **extra,
    }
    storage.publish_bytes(json.dumps(state, indent=1).encode() + b"\n", run.layout.run_state)


def read_state(layout: Layout) -> dict[str, Any] | None:
    """What the last run noted, or None."""
    if not storage.exists(layout.run_state):
        return None
    try:
        content = json.loads(storage.read_bytes(layout.run_state))
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
