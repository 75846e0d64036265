"""What a run knows of itself: the recipe, the next snapshot, what is published, what was begun.

`open_run` decides whether there is anything to do and whether begun work can go on. A run is named by a digest of
recipe and inputs, which receipts carry. A begun snapshot goes on under its own inputs (`as_begun`) where all its clips
are still there as they were (`stages.prepare` looks); what came since is for the next one.
`find_recipe` reads a recipe file, or the recipe an output was made with. `run.json` says besides how many snapshots
were told of (drift, report), so that a run which ends between publishing and telling leaves that to the next one.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gex_pipeline import storage
from gex_pipeline.errors import GexError, RecipeChangedError, RecipeError
from gex_pipeline.granularity import SOURCE_OPERATION
from gex_pipeline.inputs import input_files, noted
from gex_pipeline.layout import Layout
from gex_pipeline.recipe import Recipe, deciding, load_recipe, make_recipe
from gex_pipeline.recipe_changes import changes_in, check_same_nodes
from gex_pipeline.retry import Retry
from gex_pipeline.run_lock import Lease, read_holder
from gex_pipeline.shards.manifest import Account, Manifest, read_manifest

NOTHING_NEW = "nothing new"
_DONE = "done"
_REFUSED = "refused"  # by gates or balance: the same inputs would be refused again


@dataclass(frozen=True)
class Run:
    """One run over one output."""

    recipe: Recipe
    manifest: Manifest  # what is published already
    inputs: tuple[dict[str, Any], ...]  # the files found, as `input_files` has them
    run_id: str
    seen_before: bool = False  # whether a run over these very inputs has found nothing new
    retry: Retry | None = None  # rejects to try again
    changes: tuple[str, ...] = ()  # in what the recipe differs from that of the last snapshot, in words
    num_told: int = 0  # published snapshots that were told of: drift looked for, report written
    is_begun: bool = False  # whether a run, this one or another, has begun the next snapshot and not ended it
    begun_inputs: tuple[dict[str, Any], ...] = ()  # of the snapshot that was begun and planned, where they are others
    is_behind: bool = False  # whether these are not the files of today, but those the snapshot was begun with
    lease: Lease | None = field(default=None, compare=False, repr=False)  # its hold; one that only looks has none

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
        if self.retry is not None or not snapshots:
            return False
        return self.seen_before or (snapshots[-1].inputs == noted(self.inputs, self.recipe) and not self.changes)

    @property
    def is_told(self) -> bool:
        """Whether no published snapshot waits for its report."""
        return self.num_told >= len(self.manifest.snapshots)

    @property
    def of_last_snapshot(self) -> Run:
        """The run as it was when it published the newest snapshot."""
        return replace(self, manifest=replace(self.manifest, snapshots=self.manifest.snapshots[:-1]), retry=None)

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
    if not {"recipe", "base"} <= state.keys():  # the folder we are in may hold files of the same names
        raise GexError(
            f"{output_uri}/run.json is of an earlier version, which did not note the recipe's folder; name the recipe "
            "file instead"
        )
    try:
        return _remade({**state["recipe"], "output": output_uri}, state["base"])
    except RecipeError as error:
        raise GexError(
            f"the recipe in {output_uri}/run.json is one that this version refuses ({error}); name the recipe file "
            "instead"
        ) from error


def recipe_of(run: Run, snapshot: int) -> Recipe:
    """The recipe that a published snapshot was made with.

    Raises:
        GexError: this version refuses it, or takes it for another one than the version that made the snapshot.
    """
    entry = run.manifest.snapshots[snapshot]
    if entry.recipe_hash == run.recipe.hash:
        return run.recipe
    refused = "its hash is another one here, as after a change of a default"
    try:
        recipe = _remade({**entry.recipe, "output": run.recipe.output_uri}, run.recipe.base)
        if recipe.hash == entry.recipe_hash:  # the samples carry it
            return recipe
    except RecipeError as error:
        refused = str(error)
    made_by = entry.software.get("gex-pipeline", "unknown")
    raise GexError(
        f"snapshot {snapshot} was made by version {made_by} of gex-pipeline, with a recipe that this version does not "
        f"build by ({refused})"
    )


def _remade(content: dict[str, Any], base: str) -> Recipe:
    """A recipe out of what was stored of it."""
    granularities = {
        name: {key: value for key, value in table.items() if (key, value) != ("operation", SOURCE_OPERATION)}
        for name, table in content.get("granularity", {}).items()
    }
    return make_recipe({**content, "granularity": granularities}, base=base)


def open_run(recipe: Recipe, retry: Retry | None = None, *, accept_changes: bool = False) -> Run:
    """Look at the output and the inputs; writes nothing.

    Raises:
        GexError: a pattern finds no metadata, or `dataset.json` is gone from an output that was published.
        RecipeChangedError: the last snapshot was made with another recipe, and neither this call nor a run that was
            begun has accepted this one.
        RecipeError: the recipe makes another thing of a granularity that is published, or what is to be tried again
            is no reason or granularity.
    """
    if retry is not None:
        retry.check(recipe)
    inputs = input_files(recipe)
    found_manifest, found_state = read_output(recipe.output_uri)
    manifest, state = found_manifest or Manifest(recipe.name), found_state or {}
    last = manifest.snapshots[-1] if manifest.snapshots else None
    changes: tuple[str, ...] = ()
    if last and last.recipe_hash != recipe.hash:
        check_same_nodes(recipe, manifest)
        found = changes_in(deciding(last.recipe), deciding(recipe.resolved()))
        changes = tuple(found) or ("defaults of this version",)
        if not accept_changes and state.get("recipe_hash") != recipe.hash:
            raise RecipeChangedError(
                f"{recipe.output_uri} was made with another recipe: {'; '.join(changes)}. Published samples are never "
                "rewritten: what is new from now on would be made with this one. Say so with --accept-changes, choose "
                "another output, or set the recipe back"
            )
    run_id, earlier = _run_id(recipe, inputs, manifest, retry), tuple(state.get("inputs", ()))
    is_other = run_id != state.get("run_id") == _run_id(recipe, earlier, manifest, retry)
    begun_inputs = earlier if is_other and _may_have_built(recipe.output_uri, state, manifest) else ()
    seen_before = state.get("run_id") == run_id and state.get("stage") == NOTHING_NEW
    told, is_begun = num_told(state, manifest), is_unfinished(state, manifest)
    return Run(recipe, manifest, inputs, run_id, seen_before, retry, changes, told, is_begun, begun_inputs)


def as_begun(run: Run) -> Run:
    """The run under the inputs that its snapshot was begun with, which takes over what was built of it."""
    run_id = _run_id(run.recipe, run.begun_inputs, run.manifest, run.retry)
    return replace(run, inputs=run.begun_inputs, run_id=run_id, begun_inputs=(), is_behind=True)


def _may_have_built(output_uri: str, state: dict[str, Any], manifest: Manifest) -> bool:
    """Whether a snapshot was begun, and planned, that can be published: what is built of it is worth keeping."""
    if not is_unfinished(state, manifest) or state.get("stage") == _REFUSED:
        return False
    snapshot = len(manifest.snapshots)
    is_read = storage.exists(Layout(output_uri).ingest_account(snapshot))  # else the metadata would be read again
    return is_read and bool(storage.list_files(f"{output_uri}/tables/plan-*-{snapshot:06d}.parquet"))


def _run_id(recipe: Recipe, inputs: Sequence[dict[str, Any]], manifest: Manifest, retry: Retry | None) -> str:
    # What is retired changes what there is to retry, and so the plan.
    retired = [snapshot.snapshot for snapshot in manifest.snapshots if snapshot.retired]
    identity = [recipe.hash, inputs, len(manifest.snapshots), *([asdict(retry)] if retry else ())]
    identity += [{"retired": retired}] if retired else []
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def read_output(output_uri: str) -> tuple[Manifest | None, dict[str, Any] | None]:
    """What is published at an output, and what its last run noted.

    Raises:
        GexError: something was published, and `dataset.json` is gone. Without it a run would take its own shards for
            begun ones, whose accounts are gone since publishing.
    """
    manifest, state = read_manifest(output_uri), read_state(Layout(output_uri))
    if manifest is None and state is not None and _has_published(state):
        manifest = read_manifest(output_uri)  # a run may have published between the two looks
        if manifest is None:
            raise GexError(f"dataset.json is gone from {output_uri}, which was published; put it back from a copy")
    return manifest, state


def _has_published(state: dict[str, Any]) -> bool:
    """Whether what a run noted came after a snapshot: its own, or one before it."""
    return int(state.get("told", 0)) > 0 or int(state.get("snapshot", 0)) > 0


def num_told(state: dict[str, Any] | None, manifest: Manifest | None) -> int:
    """How many of the published snapshots were told of."""
    published = len(manifest.snapshots) if manifest else 0
    if not state:
        return published
    return min(published, int(state.get("told", published)))


def is_unfinished(state: dict[str, Any] | None, manifest: Manifest | None) -> bool:
    """Whether a run has begun a snapshot that is not published, and has not found that nothing is new."""
    published = len(manifest.snapshots) if manifest else 0
    return state is not None and state.get("snapshot", -1) >= published and state.get("stage") != NOTHING_NEW


def is_left_open(run: Run) -> bool:
    """Whether a run ended before it had published, or told of, what it began. One that is at work leaves nothing."""
    if run.is_told and not run.is_begun:
        return False
    holder = read_holder(run.layout)
    return holder is None or holder.has_ended


def stored_retry(state: dict[str, Any]) -> Retry | None:
    """What the run that was begun last tries again; None for one that does not."""
    stored = state.get("retry")
    return Retry(tuple(stored["reasons"]), tuple(stored["granularities"])) if stored else None


def command_to_finish(state: dict[str, Any], output_uri: str) -> str:
    """The command that goes on with a run that was begun."""
    retry = stored_retry(state)
    return shlex.join(retry.command(output_uri) if retry else ["gex", "run", output_uri])


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
    return run


def end_without_snapshot(run: Run, accounts: Sequence[Account] = ()) -> None:
    """Note that the inputs hold nothing new, and remove the tables that said so; their accounts are kept."""
    _remove_tables(run)
    _write_state(run, {"stage": NOTHING_NEW, "accounts": [asdict(account) for account in accounts]})


def _remove_tables(run: Run) -> None:
    """Remove the tables of a snapshot that is not published; what vouches for them goes first."""
    check_held(run)
    for pattern in (f"tables/parts/*-{run.snapshot:06d}/*", f"tables/*-{run.snapshot:06d}.parquet"):
        found = storage.list_files(f"{run.layout.output_uri}/{pattern}")
        storage.for_each(storage.remove, [file.uri for file in found])


def mark(run: Run, stage: str) -> None:
    """Note which stage the run has come to, for `gex status`."""
    _write_state(run, {"stage": stage})


def mark_refused(run: Run) -> None:
    """Note that this snapshot cannot be published as it is: with other inputs it is begun again."""
    _write_state(run, {"stage": _REFUSED})


def mark_done(run: Run) -> None:
    """Note that the snapshot of this run is published and told of."""
    _write_state(run, {"stage": _DONE, "told": run.snapshot + 1})


def mark_told(run: Run) -> None:
    """Note that what an earlier run published is told of; all else stays as it is noted."""
    state = read_state(run.layout) or {}
    if state.get("snapshot") == run.snapshot - 1:
        state["stage"] = _DONE
    _publish_state(run, {**state, "told": run.snapshot})


def _write_state(run: Run, extra: dict[str, Any]) -> None:
    state = {
        "run_id": run.run_id,
        "snapshot": run.snapshot,
        "recipe": run.recipe.resolved(),
        "recipe_hash": run.recipe.hash,
        "base": str(Path(run.recipe.base).absolute()),
        "host": platform.node(),
        "pid": os.getpid(),
        "updated": datetime.now(UTC).isoformat(timespec="seconds"),
        "retry": asdict(run.retry) if run.retry else None,
        "inputs": run.inputs,
        "told": run.num_told,
        **extra,
    }
    _publish_state(run, state)


def _publish_state(run: Run, state: dict[str, Any]) -> None:
    check_held(run)
    storage.publish_bytes(json.dumps(state, indent=1).encode() + b"\n", run.layout.run_state)


def check_held(run: Run) -> None:
    """Fail where another run has taken the output over: shards are published for the run that `run.json` names.

    Raises:
        GexError: it has.
    """
    if run.lease is not None:
        run.lease.check()


def read_state(layout: Layout) -> dict[str, Any] | None:
    """What the last run noted, or None."""
    if not storage.exists(layout.run_state):
        return None
    try:
        content = json.loads(storage.read_bytes(layout.run_state))
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
