"""Quarantine: media that were missing are put back, and what was rejected for it is tried again."""

from __future__ import annotations

import json
import shutil

import pytest

from gex_pipeline.cli.main import main
from gex_pipeline.recipe import load_recipe
from gex_pipeline.rejects import standing_rejects
from gex_pipeline.retry import Retry
from gex_pipeline.run_state import begin, find_recipe, open_run
from gex_pipeline.shard_job import build_shard
from tests.end_to_end.running import (
    NO_MODELS,
    expand_to,
    fingerprint,
    metadata_of,
    read_output,
    run_flow,
    source_table,
    sums,
    write_metadata,
    write_recipe,
)
from tests.making_runs import plan

BODY = """
[shards]
max_samples = 4
[granularity.SVST]
pack = true
[granularity.LVLT]
operation = "integrate"
from = "SVST"
[granularity.LVST]
operation = "compress_text"
from = "LVLT"
summarizer = { backend = "extractive" }
gates = {}
[granularity.IT]
operation = "compress_video"
from = "SVST"
"""
EIGHT, FOUR, FIVE = "-whkHrSQl47", "lzm8v_D9W90", "VFJ82b2k5x_"


def media_path(corpus, row):
    times = "_".join(row[name].replace(":", "-") for name in ("Start_timestamp", "End_timestamp"))
    return corpus / "clips" / f"{row['YoutubeID']}_{times}.mp4"


def standing(recipe):
    return {(row["granularity"], row["reason"]): row["num"] for row in standing_rejects(open_run(load_recipe(recipe)))}


@pytest.fixture(scope="module")
def retried(running, corpus, tmp_path_factory):
    """A run in which one clip of the source with four clips is missing and one of five is cut short; the missing
    one is put back and tried again. The recipe, and the output with its files' fingerprint before and after.
    """
    folder = tmp_path_factory.mktemp("retried")
    ours = folder / "corpus"
    shutil.copytree(corpus, ours)
    rows = metadata_of(ours)
    missing = media_path(ours, next(row for row in rows if row["YoutubeID"] == FOUR))
    short = media_path(ours, next(row for row in rows if row["YoutubeID"] == FIVE))
    whole = short.read_bytes()
    short.write_bytes(whole[: len(whole) * 6 // 10])
    missing.rename(folder / "aside.mp4")
    recipe = write_recipe(folder, source_table(ours) + NO_MODELS + BODY)
    before = (expand_to(recipe, report=True), fingerprint(folder / "output"))
    first = standing(recipe)
    (folder / "aside.mp4").rename(missing)
    after = (expand_to(recipe, report=True, retry=Retry(("media_missing",))), fingerprint(folder / "output"))
    return recipe, before, first, after


def test_what_stands_rejected_is_counted_by_granularity_and_reason(retried):
    assert retried[2] == {
        (name, reason): 1 for name in ("SVST", "LVLT", "IT") for reason in ("media_missing", "media_truncated")
    }


def test_a_repaired_clip_lands_in_new_shards_and_no_old_one_is_touched(retried):
    _, (before, old), _, (after, new) = retried
    kept = {
        path: mark for path, mark in old.items() if path.endswith(".tar") or path.startswith(("LVLT", "IT", "SVST"))
    }
    kept = {path: mark for path, mark in kept.items() if not path.endswith("sizes.json")}
    assert len(kept) > 10
    assert {path: new[path] for path in kept} == kept
    for name, more in (("SVST", 1), ("IT", 1), ("LVLT", 1), ("LVST", 1)):
        assert len(after.samples(name)) - len(before.samples(name)) == more
        assert len(after.last["granularities"][name]["shards"]) == 1


def test_the_clips_its_group_had_lost_for_it_join_with_it_now(retried):
    _, (before, _), _, (after, _) = retried
    assert FOUR not in before.by_source("LVLT")
    assert len(after.by_source("LVLT")[FOUR]["parents"]) == 4
    starts = [segment["start_s"] for segment in after.by_source("LVLT")[FOUR]["segments"]]
    assert starts == sorted(starts)
    assert after.by_source("LVST")[FOUR]["parents"] == [after.by_source("LVLT")[FOUR]["key"]]


def test_only_the_reasons_asked_for_were_tried_again(retried):
    recipe, _, _, (after, _) = retried
    assert standing(recipe) == {(name, "media_truncated"): 1 for name in ("SVST", "LVLT", "IT")}
    tried = {(row["granularity"], row["reason"]) for row in after.table("retried")}
    assert tried == {(name, "media_missing") for name in ("SVST", "LVLT", "IT")}


def test_the_report_counts_a_reject_that_was_used_since_no_more(retried):
    recipe, *_ = retried
    losses = json.loads((recipe.parent / "output/report/report.json").read_text())["losses"]
    found = {(row["granularity"], row["reason"]): row["num"] for row in losses if row["state"] == "rejected"}
    assert found == {(name, "media_truncated"): 1 for name in ("SVST", "LVLT", "IT")}
    excluded = {(row["granularity"], row["reason"]): row["num"] for row in losses if row["state"] == "excluded"}
    assert excluded == {("LVLT", "too_few_clips"): 2}  # the source of two clips; the three that waited are used


def test_a_run_after_it_has_nothing_to_do(retried):
    recipe, *_ = retried
    before = fingerprint(recipe.parent / "output")
    assert run_flow(recipe).result() is None
    assert fingerprint(recipe.parent / "output") == before


def test_a_retry_of_what_is_still_broken_publishes_nothing_and_says_why(retried, capsys):
    recipe, _, _, (after, _) = retried
    output = recipe.parent / "output"
    before = sums(output), standing(recipe)
    assert main(["retry", str(output), "--reason", "media_truncated", "--granularity", "IT", "--no-report"]) == 0
    said = capsys.readouterr().out
    assert "1 rejects were tried again and none could be used" in said
    assert "1 media_truncated" in said
    assert (sums(output), standing(recipe)) == before
    assert main(["retry", str(output), "--reason", "media_truncated", "--granularity", "IT", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["tried"], told["snapshot"]) == (1, None)
    assert {account["granularity"]: account["rejected"] for account in told["accounts"]}["IT"] == {"media_truncated": 1}
    assert (sums(output), standing(recipe)) == before
    assert len(read_output(output).manifest["snapshots"]) == len(after.manifest["snapshots"])
    assert not list((output / "tables/losses").glob("*"))


def test_the_list_names_what_can_be_tried_again(retried, capsys):
    recipe, *_ = retried
    assert main(["retry", str(recipe.parent / "output"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["granularity"], row["stage"], row["reason"], row["num"]) for row in rows] == [
        (name, "build", "media_truncated", 1) for name in ("IT", "LVLT", "SVST")
    ]


def test_a_reason_that_stands_nowhere_is_nothing_to_do_and_an_unknown_one_is_refused(retried, capsys):
    recipe, *_ = retried
    output = str(recipe.parent / "output")
    assert main(["retry", output, "--reason", "media_missing"]) == 0
    assert "nothing is rejected as media_missing: nothing to do" in capsys.readouterr().out
    assert main(["retry", output, "--reason", "media_missing", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"tried": 0, "snapshot": None, "accounts": []}
    assert main(["retry", output, "--reason", "media_mising"]) == 2
    assert "there is no reason 'media_mising'; did you mean 'media_missing'?" in capsys.readouterr().err


def test_the_recipe_of_another_output_is_refused(retried, tmp_path, capsys):
    recipe, *_ = retried
    assert main(["retry", str(tmp_path / "other"), "--recipe", str(recipe)]) == 2
    assert f"recipe.toml is the recipe of another output, {recipe.parent}/output" in capsys.readouterr().err


def test_an_output_knows_the_recipe_it_was_made_with(retried):
    recipe, *_ = retried
    found = find_recipe(str(recipe.parent / "output"))
    assert found.hash == load_recipe(recipe).hash
    assert open_run(found).run_id == open_run(load_recipe(recipe)).run_id


def test_a_summary_lost_at_build_is_tried_again_though_it_has_a_row_in_two_tables_then(running, corpus, tmp_path):
    """A long video is damaged in its shard while frames for its summary are drawn, and is put back later."""
    rows = [row for row in metadata_of(corpus) if row["YoutubeID"] in (FOUR, FIVE)]
    body = source_table(corpus, write_metadata(tmp_path / "clips.jsonl", rows)) + NO_MODELS
    long = '[granularity.SVST]\n[granularity.LVLT]\noperation = "integrate"\nfrom = "SVST"\n'
    short = (
        '[granularity.LVST]\noperation = "compress_text"\nfrom = "LVLT"\ngates = {}\n'
        'summarizer = { backend = "extractive" }\nframes = { num = 2, short_side_px = 32 }\n'
    )
    sample = expand_to(write_recipe(tmp_path, body + long)).by_source("LVLT")[FOUR]
    tar = tmp_path / "output" / sample["media_uri"]
    whole = tar.read_bytes()
    start, size = sample["media_offset_bytes"] + sample["media_size_bytes"] // 4, sample["media_size_bytes"] // 2
    tar.write_bytes(whole[:start] + b"\xff" * size + whole[start + size :])
    recipe = write_recipe(tmp_path, body + long + short)
    assert run_flow(recipe, accept_changes=True).is_completed()
    assert standing(recipe) == {("LVST", "undecodable"): 1}
    tar.write_bytes(whole)
    output = expand_to(recipe, retry=Retry(("undecodable",)))
    assert set(output.by_source("LVST")) == {FOUR, FIVE}
    assert [row["parent_id"] for row in output.table("summaries-LVST")].count(sample["key"]) == 2
    assert (output.account("LVST")["num_in"], output.account("LVST")["num_used"]) == (1, 1)
    assert standing(recipe) == {}
    assert main(["shards", "verify", "--deep", "--jobs", "1", str(output.folder)]) == 0


def test_a_place_that_the_metadata_had_wrong_is_tried_again_where_they_have_it_now(running, corpus, tmp_path):
    """A retry went by the place of then, so that a path put right in the metadata repaired nothing."""
    rows = [row for row in metadata_of(corpus) if row["YoutubeID"] == FOUR]
    rows = [{**row, "file": media_path(corpus, row).name} for row in rows]
    clips = write_metadata(tmp_path / "clips.jsonl", [{**rows[0], "file": "wrong.mp4"}, *rows[1:]])
    recipe = write_recipe(
        tmp_path,
        f'[source]\nclips = "{clips}"\nmedia = {{ kind = "column", column = "file", root = "{corpus}/clips" }}\n'
        '[granularity.SVST]\n[granularity.LVLT]\noperation = "integrate"\nfrom = "SVST"\nmin_clips = 4\n',
    )
    assert expand_to(recipe).samples("LVLT") == []
    assert standing(recipe) == {("LVLT", "media_missing"): 1}
    write_metadata(clips, rows)
    output = expand_to(recipe, retry=Retry(("media_missing",)))
    assert [len(sample["parents"]) for sample in output.samples("LVLT")] == [4]
    assert output.ingest["num_known"] == 4
    assert standing(recipe) == {}


def test_a_retry_that_was_stopped_is_no_dead_end(retried, corpus, tmp_path, capsys):
    """Neither `gex run` ended it nor could a snapshot be retired, and both named each other. Keep this test the last:
    it repairs the clip for its time.
    """
    recipe, _, _, (after, _) = retried
    output = tmp_path / "output"
    shutil.copytree(recipe.parent / "output", output)
    ours = tmp_path / "recipe.toml"
    shutil.copy(recipe, ours)
    short = media_path(recipe.parent / "corpus", next(r for r in metadata_of(corpus) if r["YoutubeID"] == FIVE))
    spoilt = short.read_bytes()
    shutil.copy(media_path(corpus, next(r for r in metadata_of(corpus) if r["YoutubeID"] == FIVE)), short)
    try:
        job, (shard,) = plan(begin(open_run(load_recipe(ours), Retry(("media_truncated",)))), "IT")
        build_shard(job, shard)  # and here it was killed
        files = {path: mark for path, mark in fingerprint(output).items() if path.endswith((".tar", ".parquet"))}
        files = {path: mark for path, mark in files.items() if "-000002." not in path or path.startswith("IT/")}
        again = f"gex retry {output} --reason media_truncated"
        assert main(["shards", "retire", str(output), "--older-than-days", "0", "--dry-run"]) == 1
        assert f"finish it first: {again}, or give it up: gex run {output}" in capsys.readouterr().err
        manifest = (output / "dataset.json").read_bytes()

        assert main(["run", str(ours)]) == 0
        said = capsys.readouterr().out
        assert "given up: snapshot 2, which a retry of media_truncated had begun and not finished" in said
        assert f"to try it again: {again}" in said
        assert (output / "dataset.json").read_bytes() == manifest
        assert standing(ours) == {(name, "media_truncated"): 1 for name in ("SVST", "LVLT", "IT")}
        assert main(["status", str(output)]) == 0
        assert "not finished" not in capsys.readouterr().out
        assert not list((output / "tables").glob("*-000002.parquet"))

        assert main(["retry", str(output), "--reason", "media_truncated"]) == 0
        now = fingerprint(output)
        assert {path: now[path] for path in files} == files, "a published file, or the finished shard, was made again"
        assert len(read_output(output).samples("IT")) == len(after.samples("IT")) + 1
        assert standing(ours) == {}
    finally:
        short.write_bytes(spoilt)
