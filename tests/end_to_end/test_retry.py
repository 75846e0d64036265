"""Quarantine: media that were missing are put back, and what was rejected for it is tried again."""

from __future__ import annotations

import json
import shutil

import pytest

from gex_pipeline.cli.main import main
from gex_pipeline.recipe import load_recipe
from gex_pipeline.rejects import standing_rejects
from gex_pipeline.run_state import Retry, find_recipe, open_run
from tests.end_to_end.running import (
    NO_MODELS,
    expand_to,
    fingerprint,
    metadata_of,
    read_output,
    run_flow,
    source_table,
    sums,
    write_recipe,
)

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


def test_an_output_knows_the_recipe_it_was_made_with(retried):
    recipe, *_ = retried
    found = find_recipe(str(recipe.parent / "output"))
    assert found.hash == load_recipe(recipe).hash
    assert open_run(found).run_id == open_run(load_recipe(recipe)).run_id
