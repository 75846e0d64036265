"""Small recipes and metadata for tests; the steps of a run up to the plan or its end, without Ray and Prefect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gex_pipeline import ingest
from gex_pipeline.planning import plan_node, publish_plan, use_clips
from gex_pipeline.recipe import Recipe, make_recipe
from gex_pipeline.run_state import Run, begin, open_run
from gex_pipeline.shard_job import ShardJob, build_shard
from gex_pipeline.shards.manifest import Snapshot
from gex_pipeline.stages import build, prepare, publish
from gex_pipeline.tables import Database

FILES = {"kind": "files", "uri": "clips/{YoutubeID}-{Start_timestamp}.mp4"}
LVLT = {"operation": "integrate", "from": "SVST", "min_clips": 2}


def clip_row(source: str = "v1", start: Any = "0", end: Any = "1", caption: Any = "a dog runs", **more: Any) -> dict:
    return {"YoutubeID": source, "Start_timestamp": start, "End_timestamp": end, "Caption": caption, **more}


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def recipe_of(folder: Path, source: dict | None = None, granularity: dict | None = None, **more: Any) -> Recipe:
    content = {
        "name": "test",
        "output": "output",
        "source": {"clips": "clips.jsonl", "media": FILES, **(source or {})},
        "granularity": {"SVST": {}, "LVLT": LVLT} if granularity is None else granularity,
        **more,
    }
    return make_recipe(content, base=str(folder))


def run_ingest(recipe: Recipe) -> tuple[Any, list[dict], list[dict]]:
    """What ingest says, the clips it took, and the losses, both in a fixed order."""
    with Database(threads=1) as database:
        found = ingest.ingest(database, open_run(recipe))
        clips = database.query("SELECT * FROM clips_new ORDER BY source_id, start_s, clip_id")
        losses = database.query("SELECT * FROM ingest_losses ORDER BY reason, id, row")
    assert found.account.difference == 0
    assert found.account.num_used == len(clips)
    assert sum(found.account.excluded.values()) + sum(found.account.rejected.values()) == len(losses)
    return found, clips, losses


def plan(run: Run, granularity: str) -> tuple[ShardJob, list[int]]:
    """Ingest if that was not done, plan one granularity, write both; the job of its shards and their numbers."""
    with Database(threads=1) as database:
        if not Path(run.layout.table("clips", run.snapshot)).exists():
            ingest.ingest(database, run)
            ingest.publish_clips(database, run)
        use_clips(database, run)
        node = run.recipe.graph.nodes[granularity]
        plan_node(database, run, node)
        publish_plan(database, run, node)
    plan_uri = run.layout.table(f"plan-{granularity}", run.snapshot)
    shards = set(pq.read_table(plan_uri)["shard"].to_pylist())
    return ShardJob(run.recipe, granularity, plan_uri, run.run_id), sorted(shards)


def run_here(recipe: Recipe) -> Snapshot | None:
    """A whole run of a recipe without summaries, in this process; changes of the recipe are accepted."""
    run = begin(open_run(recipe, accept_changes=True))
    prepare.ingest_clips(run)
    for node in publish.built_nodes(run):
        uri = run.layout.table(f"plan-{node.name}", run.snapshot)
        for planned in build.plan_shards(run, node):
            build_shard(ShardJob(recipe, node.name, uri, run.run_id), planned.shard)
    return publish.publish(run)
