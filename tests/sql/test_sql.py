"""SQL by folders: input rows, a recipe's lines, expected rows. A folder is a case; its name is the claim.

`case.toml` says what is asked (`ask`) and the parameters; `*.jsonl` and `*.csv` are tables in (by file name) and
out (`expected*.jsonl`). Rows are compared without their order, unless `ordered = true`. What is compared are the
columns the expected rows name, so a case says nothing about how a statement gets there.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gex_pipeline import ingest
from gex_pipeline.planning import plan_node
from gex_pipeline.recipe import make_recipe
from gex_pipeline.run_state import Run, open_run
from gex_pipeline.shard_format import make_key
from gex_pipeline.shards.manifest import Manifest
from gex_pipeline.tables import Database

CASES = sorted(path.parent for path in Path(__file__).parent.glob("cases/*/case.toml"))
EMPTY = {
    "plan": "id VARCHAR, group_value VARCHAR",
    "excluded": "id VARCHAR, state VARCHAR, reason VARCHAR",
    "summary_losses": "id VARCHAR, state VARCHAR, reason VARCHAR",
    "build_losses": "id VARCHAR, state VARCHAR, reason VARCHAR",
    "receipts": "granularity VARCHAR, shard BIGINT, key VARCHAR, parents VARCHAR[], media_uri VARCHAR",
    "parents": "id VARCHAR",
    "samples": "key VARCHAR, tar VARCHAR, granularity VARCHAR, text VARCHAR, source_text_digest VARCHAR, "
    "parents VARCHAR[], segments STRUCT(clip_id VARCHAR, source_id VARCHAR, offset_s DOUBLE, duration_s DOUBLE, "
    "start_s DOUBLE, end_s DOUBLE, text VARCHAR)[]",
    "clips": "clip_id VARCHAR, source_id VARCHAR, start_s DOUBLE, end_s DOUBLE, text VARCHAR",
    "losses": "granularity VARCHAR, stage VARCHAR, state VARCHAR, reason VARCHAR, detail VARCHAR, id VARCHAR, "
    'source_id VARCHAR, "row" VARCHAR, snapshot BIGINT, "table" VARCHAR',
    "retried": "granularity VARCHAR, id VARCHAR, reason VARCHAR, snapshot BIGINT",
    "summaries": "key VARCHAR, text VARCHAR, source_digest VARCHAR",
}


def read_rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]


def asked(case: Path) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    settings = tomllib.loads((case / "case.toml").read_text(encoding="utf-8"))
    kind = settings["ask"]
    if kind == "macro":
        return settings, {"expected": ask_macro(case, settings)}
    if kind == "ingest":
        return settings, ask_ingest(case, settings)
    if kind == "group":
        return settings, ask_groups(case, settings)
    return settings, {"expected": ask_statement(case, settings)}


def ask_macro(case: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """One scalar macro over the texts of the expected rows themselves."""
    with Database(threads=1) as database:
        database.run(settings["macro"])
        return [
            {"in": row["in"], "out": database.query(f"SELECT {settings['macro']}($t) AS o", {"t": row["in"]})[0]["o"]}
            for row in read_rows(case / "expected.jsonl")
        ]


def ask_ingest(case: Path, settings: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    source = {"clips": "clips.*", "media": {"kind": "files", "uri": "clips/{YoutubeID}.mp4"}} | settings.get(
        "source", {}
    )
    content = {"name": "t", "output": "none", "source": source, "granularity": {"SVST": {}}}
    with Database(threads=1) as database:
        found = ingest.ingest(database, open_run(make_recipe(content, base=str(case))))
        clips = database.query("SELECT * FROM clips_new")
        losses = database.query("SELECT * FROM ingest_losses")
    assert found.account.difference == 0
    return {"expected": clips, "expected-losses": losses}


def ask_groups(case: Path, settings: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What `integrate` makes of the clips in parents.jsonl: groups, and what is left out."""
    content = {
        "name": "t",
        "output": "none",
        "seed": settings.get("seed", 0),
        "source": {"clips": "x.csv", "media": {"kind": "videos", "uri": "x"}},
        "granularity": {"SVST": {}, "LVLT": {"operation": "integrate", "from": "SVST", **settings["integrate"]}},
    }
    recipe = make_recipe(content, base=str(case))
    with Database(threads=1) as database:
        use_clips(database, read_rows(case / "parents.jsonl"))
        planned = plan_node(database, Run(recipe, Manifest("t"), (), "run"), recipe.graph.nodes["LVLT"])
        groups = database.query(
            "SELECT list(id ORDER BY position) AS ids, any_value(group_value) AS group_value, key, "
            "sum(duration_s) AS duration_s FROM plan GROUP BY key"
        )
        left_out = database.query("SELECT id, state, reason FROM excluded")
    assert planned.num_samples == len(groups)
    assert planned.num_parents == planned.num_members + sum(planned.left_out.values())
    for group in groups:
        assert group["key"] == make_key("LVLT", group["ids"])
    return {"expected": groups, "expected-left-out": left_out}


def use_clips(database: Database, rows: list[dict[str, Any]]) -> None:
    """The view ``clips`` as ingest makes it, with a column `channel`."""
    database.execute(
        "CREATE OR REPLACE TEMP TABLE clips (clip_id VARCHAR, source_id VARCHAR, start_s DOUBLE, end_s DOUBLE, "
        "channel VARCHAR, text VARCHAR DEFAULT 'x', media_uri VARCHAR DEFAULT 'x', media_offset_bytes BIGINT, "
        "media_size_bytes BIGINT)"
    )
    for row in rows:
        values = {"id": row["id"], "source": row["source"], "start": row["s"], "end": row["e"], "c": row.get("group")}
        database.execute(
            "INSERT INTO clips (clip_id, source_id, start_s, end_s, channel) VALUES ($id, $source, $start, $end, $c)",
            values,
        )


def ask_statement(case: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    with Database(threads=1) as database:
        for name, columns in EMPTY.items():
            database.execute(f"CREATE TEMP TABLE {name} ({columns})")
        for file in case.glob("*.jsonl"):
            if not file.stem.startswith("expected"):
                database.execute(
                    f"INSERT INTO {file.stem} BY NAME SELECT * FROM read_json('{file}', format = 'newline_delimited')"
                )
        return database.rows(settings["ask"], **settings.get("values", {}))


def comparable(rows: list[dict[str, Any]], names: list[str], *, ordered: bool) -> list[str]:
    lines = [json.dumps({name: row[name] for name in names}, ensure_ascii=False, default=str) for row in rows]
    return lines if ordered else sorted(lines)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_rows_are_those_expected(case):
    settings, answers = asked(case)
    for name, rows in answers.items():
        file = case / f"{name}.jsonl"
        expected = read_rows(file) if file.exists() else []
        names = list(expected[0]) if expected else []
        assert len(rows) == len(expected) or not file.exists(), f"{file.name}: {rows}"
        if file.exists():
            ordered = settings.get("ordered", False)
            assert comparable(rows, names, ordered=ordered) == comparable(expected, names, ordered=ordered), file.name
