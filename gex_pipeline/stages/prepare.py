"""Before bytes move: is everything there that the recipe needs, and what do the metadata say?"""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.util import find_spec

from gex_pipeline import ingest, storage
from gex_pipeline.errors import MissingExtraError, RecipeError
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
    from gex_pipeline.summarize.backends import backend

    ffmpeg_binary()
    settings = [summarizer_of(recipe, name) for name, node in recipe.granularity.items() if hasattr(node, "summarizer")]
    for summarizer in settings:
        backend(summarizer).check_ready(summarizer)
    scores = recipe.scores
    if settings and (scores.sentence_model or scores.bertscore_model or scores.clip_model):
        for package in ("torch", "sentence_transformers", "bert_score"):
            if find_spec(package) is None:
                raise MissingExtraError(package.replace("_", "-"), "score")
    _check_gate_names(recipe)


def _check_gate_names(recipe: Recipe) -> None:
    """A gate on a score that is never taken would never close."""
    from gex_pipeline.ray_jobs import CLIP_VIDEO_NAMES
    from gex_pipeline.validate.scorers import TextScorers

    names = [*TextScorers(recipe.scores).names(), *(CLIP_VIDEO_NAMES if recipe.scores.clip_model else ())]
    for granularity, settings in recipe.granularity.items():
        for table in ("gates", "publication"):
            # The default gate stands for scores that are taken; only what the recipe says must be possible.
            for score in getattr(settings, table, {}) if table in settings.model_fields_set else ():
                if score not in names:
                    raise RecipeError(
                        f"granularity.{granularity}.{table}: [scores] takes no {score!r}; it takes: {', '.join(names)}"
                    )


def _account_uri(run: Run) -> str:
    return storage.join(run.layout.output_uri, "tables", "parts", f"ingest-{run.snapshot:06d}", "account.json")


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
        found = ingest.ingest(database, run)
        ingest.publish_clips(database, run)
    progress().advance(found.account.num_in)
    # Written last: with the account there, the tables are complete.
    storage.publish_bytes(json.dumps(asdict(found.account)).encode(), _account_uri(run))
    return found.account


def read_ingest_account(run: Run) -> Account | None:
    """The account of this run's ingest, or None while it is not finished."""
    uri = _account_uri(run)
    return Account(**json.loads(storage.read_bytes(uri))) if storage.exists(uri) else None
