"""A predicate that changes over a published output: what fails it gets into nothing new."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gex_pipeline import storage
from gex_pipeline.barred import can_bar
from gex_pipeline.cli.plan import plan_all
from gex_pipeline.errors import RecipeError
from gex_pipeline.planning import find_long_texts, plan_node, use_clips
from gex_pipeline.run_state import begin, open_run
from gex_pipeline.shard_format import make_key
from gex_pipeline.shards.manifest import Manifest, Snapshot
from gex_pipeline.stages.prepare import ingest_clips
from gex_pipeline.tables import Database
from tests.making_runs import clip_row, recipe_of, run_here, write_jsonl

CLIP_S = 0.48
MEDIA = {"kind": "column", "column": "file", "root": "clips"}
TWO = {"operation": "integrate", "from": "SVST", "min_clips": 2}
IT = {"operation": "compress_video", "from": "SVST"}
LVIT = {"operation": "compress_video", "from": "LVLT"}
LVST = {"operation": "compress_text", "from": "LVLT", "summarizer": {"backend": "extractive"}}


@pytest.fixture(scope="module")
def published(tmp_path_factory, small_clips):
    """A snapshot of two sources of two clips, `a` and `b`, under no predicate."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "clips").symlink_to(small_clips)
    write_jsonl(
        folder / "clips.jsonl",
        [clip_row(name[0], int(name[2]), int(name[2]) + CLIP_S, file=f"{name}.mp4") for name in NAMES],
    )
    snapshot = run_here(recipe_of(folder, {"media": MEDIA}, {"SVST": {}, "LVLT": TWO}))
    assert snapshot is not None
    return folder


NAMES = ("a-0", "a-1", "b-0", "b-1")


def known(folder, where=None, rows=(), **more):
    """A recipe over an output whose only snapshot accepted these rows under `where` and made nothing of them."""
    write_jsonl(folder / "clips.jsonl", list(rows))
    recipe = recipe_of(folder, {"where": where, **more} if where else more, {"SVST": {}, "LVLT": TWO})
    run = begin(open_run(recipe, accept_changes=True))
    ingest_clips(run)
    tables = (f"tables/clips-{run.snapshot:06d}.parquet",)
    snapshot = Snapshot(run.snapshot, "", recipe.hash, recipe.resolved(), run.inputs, {}, (), tables, {})
    manifest = Manifest(recipe.name, (*run.manifest.snapshots, snapshot))
    storage.publish_bytes(manifest.to_json(), run.layout.manifest)


def then(folder, where=None, rows=(), **more):
    """How many clips of each source the next run has for LVLT under `where`, and how many it leaves out for what."""
    write_jsonl(folder / "clips.jsonl", list(rows))
    recipe = recipe_of(folder, {"where": where, **more} if where else more, {"SVST": {}, "LVLT": TWO})
    run = begin(open_run(recipe, accept_changes=True))
    ingest_clips(run)
    with Database(threads=1) as database:
        use_clips(database, run)
        plan = plan_node(database, run, recipe.graph.nodes["LVLT"])
        used = {
            row["source_id"]: row["n"] for row in database.query("SELECT source_id, count(*) AS n FROM plan GROUP BY 1")
        }
    assert plan.num_parents == plan.num_members + sum(plan.left_out.values())
    return used, plan.left_out


def pair(source, first=0, **more):
    return [clip_row(source, number, number + 1, **more) for number in (first, first + 1)]


def test_after_a_takedown_no_new_sample_holds_the_video_and_the_accounts_add_up(published):
    granularity = {"SVST": {}, "LVLT": TWO, "IT": IT, "LVIT": LVIT}
    recipe = recipe_of(published, {"media": MEDIA, "where": "YoutubeID <> 'b'"}, granularity)
    before = {path: path.stat().st_mtime_ns for path in published.glob("output/LVLT/*-000000.*")}
    snapshot = run_here(recipe)
    accounts = {account.granularity: account for account in snapshot.accounts if account.stage != "ingest"}
    assert [(accounts["IT"].num_in, accounts["IT"].num_used, accounts["IT"].excluded)] == [
        (4, 2, {"filtered_by_where": 2})
    ]
    assert [(accounts["LVIT"].num_in, accounts["LVIT"].num_used, accounts["LVIT"].excluded)] == [
        (2, 1, {"filtered_by_where": 1})
    ]
    assert accounts["LVLT"].num_in == 0  # published before: not thought about again, and not touched
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for name in ("IT", "LVIT"):
        rows = [row for path in published.glob(f"output/{name}/*.parquet") for row in pq.read_table(path).to_pylist()]
        assert {row["source_id"] for row in rows} == {"a"}
    excluded = pq.read_table(published / "output/tables/excluded-LVIT-000001.parquet").to_pylist()
    (barred,) = [
        row
        for row in pq.read_table(published / "output/LVLT/LVLT-000000.parquet").to_pylist()
        if row["source_id"] == "b"
    ]
    assert [(row["id"], row["state"], row["source_id"]) for row in excluded] == [(barred["key"], "excluded", "b")]


def test_a_text_with_a_barred_clip_is_not_summarised_and_is_accounted_for(published):
    recipe = recipe_of(
        published,
        {"media": MEDIA, "where": "YoutubeID <> 'b'"},
        {"SVST": {}, "LVLT": TWO, "LVST": LVST},
    )
    run = open_run(recipe, accept_changes=True)
    node = recipe.graph.nodes["LVST"]
    with Database(threads=1) as database:
        find_long_texts(database, run, node)
        (asked,) = database.query(
            "SELECT t.key, t.parent_id, s.source_id, s.text, s.text_digest AS source_digest, '{}' AS scores "
            "FROM long_texts AS t JOIN samples AS s ON s.key = t.parent_id"
        )
        assert asked["source_id"] == "a"
        assert asked["key"] == make_key("LVST", [asked["parent_id"]])
        database.execute(
            "CREATE TEMP TABLE summaries AS SELECT $p AS parent_id, 'short' AS text, $d AS source_digest, "
            "'{}' AS scores",
            {"p": asked["parent_id"], "d": asked["source_digest"]},
        )
        plan = plan_node(database, run, node)
    assert (plan.num_parents, plan.num_samples, plan.left_out) == (2, 1, {"filtered_by_where": 1})


def test_late_clips_complete_no_group_with_a_barred_one(tmp_path):
    first, second = pair("late")
    known(tmp_path, rows=[first, *pair("other")[:1]])
    assert then(tmp_path, "Caption <> 'a dog runs'", [first, {**second, "Caption": "a cat"}]) == (
        {}, {"filtered_by_where": 2, "too_few_clips": 1}
    )  # fmt: skip
    assert then(tmp_path, "YoutubeID = 'late'", [first, second]) == ({"late": 2}, {"filtered_by_where": 1})


def test_a_column_with_a_name_of_ours_is_asked_under_its_own(tmp_path):
    known(tmp_path, rows=[*pair("x", Text="spam", num_words=1), *pair("y", Text="fine", num_words=2)])
    assert then(tmp_path, "text = 'fine'", pair("z", Text="spam", num_words=3)) == (
        {"y": 2}, {"filtered_by_where": 2}
    )  # fmt: skip
    assert then(tmp_path, "NUM_WORDS < 2", pair("z", Text="spam", num_words=3)) == ({"x": 2}, {"filtered_by_where": 2})


def test_a_column_that_came_later_is_null_for_the_clips_before_it(tmp_path):
    known(tmp_path, rows=pair("x"))
    new = pair("y", lang="en")
    assert then(tmp_path, "lang = 'en'", new) == ({"y": 2}, {"filtered_by_where": 2})
    assert then(tmp_path, "lang IS NULL OR lang = 'en'", new) == ({"x": 2, "y": 2}, {})


def test_a_stored_value_that_is_no_number_passes_no_threshold(tmp_path):
    """As a fresh run over the same metadata has it; snapshots of earlier versions hold NaN."""
    known(tmp_path, rows=[*pair("x", score=1.5), *pair("y", score=2.5)])
    table = pq.read_table(tmp_path / "output/tables/clips-000000.parquet")
    scores = pa.array([float("nan") if score == 2.5 else score for score in table["score"].to_pylist()])
    place = table.column_names.index("score")
    pq.write_table(table.set_column(place, "score", scores), tmp_path / "output/tables/clips-000000.parquet")
    assert then(tmp_path, "score > 1", pair("z", score=1.5)) == ({"x": 2, "z": 2}, {"filtered_by_where": 2})
    assert then(tmp_path, "score IS NULL", pair("z", score=1.5)) == ({"y": 2}, {"filtered_by_where": 2})


def test_lists_are_asked_as_lists(tmp_path):
    known(tmp_path, rows=[*pair("x", tags=["dog"]), *pair("y", tags=None)])
    assert then(tmp_path, "list_contains(tags, 'dog')", pair("z", tags=["cat", "dog"])) == (
        {"x": 2, "z": 2}, {"filtered_by_where": 2}
    )  # fmt: skip


def test_without_the_predicate_barred_clips_are_thought_about_again(tmp_path):
    known(tmp_path, "YoutubeID <> 'y'", [*pair("x"), *pair("y")])
    known(tmp_path, "YoutubeID <> 'x'", [*pair("x"), *pair("y")])
    rows = [*pair("x"), *pair("y")]
    assert then(tmp_path, "YoutubeID <> 'x'", rows) == ({"y": 2}, {"filtered_by_where": 2})
    assert then(tmp_path, None, rows) == ({"x": 2, "y": 2}, {})


def test_clips_accepted_under_the_predicate_of_now_are_not_asked_again(tmp_path):
    known(tmp_path, "random() < 2", pair("x"))
    assert not can_bar(open_run(recipe_of(tmp_path, {"where": "random() < 2"}, {"SVST": {}, "LVLT": TWO})))
    assert can_bar(open_run(recipe_of(tmp_path, {"where": "1 < 2"}), accept_changes=True))
    assert not can_bar(open_run(recipe_of(tmp_path), accept_changes=True))


def test_a_predicate_that_older_clips_cannot_answer_is_said(tmp_path):
    known(tmp_path, rows=pair("x", year="unknown"))
    with pytest.raises(
        RecipeError, match=r"where = 'year > 2000' cannot be asked of the clips .*: Binder Error: Cannot compare.*cast"
    ):
        then(tmp_path, "year > 2000", pair("y", year=2001))
    assert then(tmp_path, "try_cast(year AS INT) > 2000", pair("y", year=2001)) == ({"y": 2}, {"filtered_by_where": 2})


def test_a_dry_run_leaves_barred_clips_out_too(tmp_path):
    known(tmp_path, rows=pair("x"))
    write_jsonl(tmp_path / "clips.jsonl", pair("y"))
    granularity = {"SVST": {}, "LVLT": TWO, "LVIT": LVIT}
    recipe = recipe_of(tmp_path, {"where": "YoutubeID <> 'x'"}, granularity)
    _, plans = plan_all(open_run(recipe, accept_changes=True))
    found = {plan.granularity: (plan.num_parents, plan.num_samples, plan.left_out) for plan in plans}
    assert found == {"LVLT": (4, 1, {"filtered_by_where": 2}), "LVIT": (1, 1, {})}
