"""Before bytes move: is everything there that the recipe needs, and what do the metadata say?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec

from gex_pipeline import ingest, storage
from gex_pipeline.clip_places import view_known_now
from gex_pipeline.errors import MissingExtraError, RecipeError
from gex_pipeline.inputs import are_all_in
from gex_pipeline.model_places import summarizer_of
from gex_pipeline.progress import progress
from gex_pipeline.recipe import Recipe
from gex_pipeline.run_state import Run
from gex_pipeline.shards.manifest import Account
from gex_pipeline.tables import Database


def check_tools(recipe: Recipe) -> None:
    """Look for ffmpeg, models, packages and keys before anything starts; loads none of the models.

    Raises:
        GexError: one sentence saying what is missing and how to get it.
    """
    from gex_pipeline.media.ffmpeg import ffmpeg_binary
    from gex_pipeline.ray_jobs import cluster_of
    from gex_pipeline.summarize.backends import backend

    ffmpeg_binary()
    settings = [summarizer_of(recipe, name) for name, node in recipe.granularity.items() if hasattr(node, "summarizer")]
    for summarizer in settings:
        backend(summarizer, cluster_of(recipe.ray)).check_ready(summarizer)
    scores = recipe.scores
    if settings and (scores.sentence_model or scores.bertscore_model or scores.clip_model):
        for package in ("torch", "sentence_transformers", "bert_score"):
            if find_spec(package) is None:
                raise MissingExtraError(package.replace("_", "-"), "score")
    check_gate_names(recipe)


def check_gate_names(recipe: Recipe) -> None:
    """A gate on a score that is never taken would never close. Loads no model and nothing heavy.

    Raises:
        RecipeError: the gate, and the scores that are taken.
    """
    written = list(_written_gates(recipe))
    if not written:
        return
    from gex_pipeline.ray_scorer import CLIP_VIDEO_NAMES
    from gex_pipeline.validate.scorers import TextScorers

    names = [*TextScorers(recipe.scores).names(), *(CLIP_VIDEO_NAMES if recipe.scores.clip_model else ())]
    for table, score in written:
        if score not in names:
            taken = ", ".join(names) or "none"
            raise RecipeError(f"granularity.{table}: [scores] takes no {score!r}; it takes: {taken}")


def _written_gates(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Table and score of every gate that must be possible: the default one stands for scores that are taken.

    It is known by its value: the recipe that an output stores has every default written out.
    """
    for granularity, settings in recipe.granularity.items():
        for table in ("gates", "publication"):
            field = type(settings).model_fields.get(table)
            gates = getattr(settings, table, {})
            if field is not None and gates != field.get_default(call_default_factory=True):
                yield from ((f"{granularity}.{table}", score) for score in gates)


def ingest_clips(run: Run) -> Account:
    """Read all metadata into the snapshot's ``clips`` table, once.

    Raises:
        RecipeError: columns or predicate do not fit the metadata.
        GexError: the metadata cannot be read.
    """
    if (account := read_ingest_account(run)) is not None:
        return account
    progress().stage("ingest", None, "rows")
    with Database() as database:
        found = ingest.ingest(database, run, keep_index=True)
        ingest.publish_clips(database, run)
    progress().advance(found.account.num_in)
    for note in found.notes:
        progress().note(f"note     {note}")
    storage.publish_bytes(json.dumps(asdict(found.account)).encode(), run.layout.ingest_account(run.snapshot))
    return found.account


def num_begun_clips_changed(run: Run) -> int:
    """How many clips that the snapshot was begun with are not in the metadata of today as they were then.

    None are where its files are all there unchanged: then nothing is read.

    Raises:
        RecipeError: columns or predicate do not fit the metadata.
        GexError: the metadata cannot be read.
    """
    if are_all_in(run.begun_inputs, run.inputs):
        return 0
    progress().stage("compare with what was begun", None, "")
    with Database() as database:
        ingest.ingest(database, run, keep_index=True)
        database.view_parquet("begun_clips", [run.layout.table("clips", run.snapshot)])
        plans = storage.list_files(f"{run.layout.output_uri}/tables/plan-*-{run.snapshot:06d}.parquet")
        database.view_parquet("begun_plans", [plan.uri for plan in plans])
        view_known_now(database)
        num_changed = database.rows("ingest_begun_changed")[0]["num_changed"]
        return int(num_changed + database.rows("ingest_begun_moved")[0]["num_moved"])


def read_ingest_account(run: Run) -> Account | None:
    """The account of this run's ingest, or None while it is not finished."""
    uri = run.layout.ingest_account(run.snapshot)
    return Account(**json.loads(storage.read_bytes(uri))) if storage.exists(uri) else None
