"""What is looked at before anything starts: gates on scores that are taken, what a snapshot was begun with."""

from __future__ import annotations

import os

import pytest

from gex_pipeline.errors import GexError, RecipeError
from gex_pipeline.run_state import begin, find_recipe, open_run
from gex_pipeline.stages.prepare import check_gate_names, ingest_clips, num_begun_clips_changed
from tests.making_runs import LVLT, clip_row, plan, recipe_of, run_here, write_jsonl

NO_MODELS = {"sentence_model": False, "bertscore_model": False}


def summarised(folder, scores=NO_MODELS, **more):
    lvst = {"operation": "compress_text", "from": "LVLT", "summarizer": {"backend": "extractive"}, **more}
    return recipe_of(folder, granularity={"SVST": {}, "LVLT": LVLT, "LVST": lvst}, scores=scores)


def test_the_recipe_that_an_output_stores_passes_as_its_file_did(tmp_path):
    """`gex retry OUTPUT` refused the default gate, which is written out in a stored recipe as in no file."""
    recipe = summarised(tmp_path)
    check_gate_names(recipe)
    write_jsonl(tmp_path / "clips.jsonl", [clip_row()])
    begin(open_run(recipe))
    stored = find_recipe(str(tmp_path / "output"))
    assert stored.hash == recipe.hash
    assert "gates" in stored.granularity["LVST"].model_fields_set
    check_gate_names(stored)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"gates": {"sentence_cosine": {"min": 0.4}}},
            r"^granularity.LVST.gates: \[scores\] takes no 'sentence_cosine'; it takes: rouge1, rouge2, rougeL$",
        ),
        ({"gates": {"rouge1": {"min": 0.1}, "bertscore_f1": {"min": 0.5}}}, "LVST.gates: .* no 'bertscore_f1'"),
        ({"publication": {"clip_text_cosine": {"min": 0.2}}}, "LVST.publication: .* no 'clip_text_cosine'"),
        ({"scores": {**NO_MODELS, "rouge": False}, "gates": {"rouge1": {"min": 0.1}}}, "it takes: none$"),
    ],
)
def test_a_gate_on_a_score_that_is_not_taken_is_refused(tmp_path, more, message):
    with pytest.raises(RecipeError, match=message):
        check_gate_names(summarised(tmp_path, **more))


def test_gates_on_scores_that_are_taken_pass(tmp_path):
    check_gate_names(summarised(tmp_path, gates={"rouge1": {"min": 0.1}}, publication={"rougeL": {"min": 0.1}}))
    check_gate_names(summarised(tmp_path, {}, gates={"sentence_cosine": {"min": 0.4}}))
    clip = {"clip_model": "a/model"}
    check_gate_names(summarised(tmp_path, clip, gates={"clip_video_short_text": {"min": 0.2}}))


FIRST, SECOND = clip_row("v1"), clip_row("v1", "00:00:10.000", "00:00:12.000")


@pytest.mark.parametrize(
    ("rows", "num_changed"),
    [
        ([FIRST, SECOND], 0),
        ([clip_row("v2"), SECOND, FIRST], 0),
        ([FIRST | {"Caption": "another caption"}, SECOND], 1),
        ([FIRST | {"End_timestamp": "2"}, SECOND], 1),
        ([SECOND], 1),
        ([FIRST | {"note": "a column that was not there"}, SECOND], 0),
    ],
)
def test_clips_that_a_snapshot_was_begun_with_and_that_are_others_now_are_counted(tmp_path, rows, num_changed):
    write_jsonl(tmp_path / "clips.jsonl", [FIRST, SECOND])
    run = begin(open_run(recipe_of(tmp_path)))
    ingest_clips(run)
    plan(run, "LVLT")
    write_jsonl(tmp_path / "clips.jsonl", rows)
    os.utime(tmp_path / "clips.jsonl", (1, 1))
    again = open_run(recipe_of(tmp_path))
    assert again.begun_inputs == run.inputs
    assert num_begun_clips_changed(again) == num_changed


@pytest.mark.parametrize(("now", "num_changed"), [("a.mp4", 0), ("b.mp4", 1)])
def test_a_known_clip_that_a_snapshot_was_planned_with_counts_where_it_lies_elsewhere_now(tmp_path, now, num_changed):
    """It was published before; its place was put right after the next run had been stopped."""

    def recipe_for(*rows):
        write_jsonl(tmp_path / "clips.jsonl", [{"file": "a.mp4", **row} for row in rows])
        return recipe_of(tmp_path, {"media": {"kind": "column", "column": "file", "root": "clips"}})

    run_here(recipe_for(FIRST))
    run = begin(open_run(recipe_for(FIRST, SECOND)))
    ingest_clips(run)
    plan(run, "LVLT")
    again = open_run(recipe_for({**FIRST, "file": now, "note": "a column that was not there"}, SECOND))
    assert again.begun_inputs == run.inputs
    assert num_begun_clips_changed(again) == num_changed


def test_where_files_only_came_nothing_is_read_to_know_that_no_clip_has_changed(tmp_path):
    write_jsonl(tmp_path / "clips-1.jsonl", [FIRST, SECOND])
    recipe = recipe_of(tmp_path, {"clips": "clips-*.jsonl"})
    run = begin(open_run(recipe))
    ingest_clips(run)
    plan(run, "LVLT")
    (tmp_path / "clips-2.jsonl").write_text("no line of JSON")
    assert num_begun_clips_changed(open_run(recipe)) == 0
    os.utime(tmp_path / "clips-1.jsonl", (1, 1))
    with pytest.raises(GexError, match=r"clips-2\.jsonl"):
        num_begun_clips_changed(open_run(recipe))
