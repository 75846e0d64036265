from __future__ import annotations

import json
import os
import re
from dataclasses import replace

import pytest

from gex_pipeline import storage, timeline
from gex_pipeline.errors import GexError, RecipeChangedError, RecipeError
from gex_pipeline.inputs import input_files, noted
from gex_pipeline.retry import Retry
from gex_pipeline.run_lock import held
from gex_pipeline.run_state import (
    as_begun,
    begin,
    command_to_finish,
    end_without_snapshot,
    find_recipe,
    is_left_open,
    mark,
    mark_done,
    mark_refused,
    mark_told,
    open_run,
    read_state,
)
from gex_pipeline.run_state import recipe_of as recipe_of_snapshot
from gex_pipeline.shards.manifest import GranularityEntry, Manifest, ShardEntry, Snapshot
from gex_pipeline.stages import prepare
from gex_pipeline.stages.rebuild import Damage, rebuild
from tests.making_runs import LVLT, clip_row, plan, recipe_of, write_jsonl


@pytest.fixture
def folder(tmp_path):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row()])
    return tmp_path


def published(run, tables=()) -> Manifest:
    entries = {"LVLT": GranularityEntry("integrate", "SVST", "mp4", (), {})}
    snapshot = Snapshot(
        run.snapshot,
        "2026-01-01",
        run.recipe.hash,
        run.recipe.resolved(),
        noted(run.inputs, run.recipe),
        entries,
        (),
        tuple(tables),
        {},
    )
    manifest = Manifest(run.recipe.name, (*run.manifest.snapshots, snapshot))
    storage.publish_bytes(manifest.to_json(), run.layout.manifest)
    return manifest


def test_a_first_run_publishes_snapshot_0_and_looking_writes_nothing(folder):
    run = open_run(recipe_of(folder))
    assert run.snapshot == 0
    assert not run.is_current
    assert [file["uri"] for file in run.inputs] == [f"{folder}/clips.jsonl"]
    assert sorted(path.name for path in folder.iterdir()) == ["clips.jsonl"]


def test_the_same_recipe_and_inputs_give_the_same_run(folder):
    assert open_run(recipe_of(folder)).run_id == open_run(recipe_of(folder, ray={"num_cpus": 2})).run_id


def test_another_recipe_other_inputs_or_a_later_snapshot_give_another_run(folder):
    run = open_run(recipe_of(folder))
    names = {run.run_id, open_run(recipe_of(folder, seed=5)).run_id}
    published(run)
    names.add(open_run(recipe_of(folder)).run_id)
    write_jsonl(folder / "clips.jsonl", [clip_row(), clip_row("v2")])
    names.add(open_run(recipe_of(folder)).run_id)
    assert len(names) == 4


def test_published_inputs_that_did_not_change_need_no_run(folder):
    published(open_run(recipe_of(folder)))
    assert open_run(recipe_of(folder)).is_current
    file = folder / "clips.jsonl"
    os.utime(file, (1, 1))
    assert not open_run(recipe_of(folder)).is_current


def test_another_recipe_over_a_published_output_is_refused_naming_the_keys_that_differ(folder):
    published(open_run(recipe_of(folder)))
    granularity = {"SVST": {}, "LVLT": LVLT | {"min_clips": 3}, "IT": {"operation": "compress_video", "from": "SVST"}}
    changed = recipe_of(folder, granularity=granularity, video={"crf": 30}, ray={"num_cpus": 2})
    with pytest.raises(GexError, match=r"was made with another recipe") as caught:
        open_run(changed)
    changes = str(caught.value).split("another recipe: ")[1].split(". Published")[0].split("; ")
    assert [change.split(" was ")[0] for change in changes] == [
        "granularity.LVLT.min_clips", "granularity.IT", "video.crf",
    ]  # fmt: skip
    assert changes[0] == "granularity.LVLT.min_clips was 2, is 3"
    assert changes[1].startswith('granularity.IT was not there, is {"operation": "compress_video"')
    assert "Say so with --accept-changes, choose another output, or set the recipe back" in str(caught.value)
    accepted = open_run(changed, accept_changes=True)
    assert (accepted.changes, accepted.is_current) == (tuple(changes), False)


def test_a_changed_recipe_that_a_run_was_begun_with_needs_no_second_word(folder):
    published(open_run(recipe_of(folder)))
    changed = recipe_of(folder, video={"crf": 30})
    begin(open_run(changed, accept_changes=True))
    assert open_run(changed).changes == ("video.crf was 23, is 30",)
    assert find_recipe(f"{folder}/output").hash == changed.hash  # gex run OUTPUT goes on with it
    other = recipe_of(folder, video={"crf": 31})
    with pytest.raises(RecipeChangedError, match=r"video.crf was 23, is 31"):
        open_run(other)
    assert open_run(recipe_of(folder)).changes == ()  # set back


def test_a_published_name_cannot_become_another_kind_of_sample(folder):
    published(open_run(recipe_of(folder)))
    changed = recipe_of(folder, granularity={"SVST": {}, "LVLT": {"operation": "compress_video", "from": "SVST"}})
    expected = r"granularity.LVLT: .* made by integrate from SVST, and the recipe says compress_video from SVST"
    with pytest.raises(RecipeError, match=expected):
        open_run(changed, accept_changes=True)
    twice = recipe_of(folder, granularity={"SVST": {}, "MID": LVLT, "LVLT": LVLT | {"from": "MID"}})
    with pytest.raises(RecipeError, match=r"made by integrate from SVST, and the recipe says integrate from MID"):
        open_run(twice, accept_changes=True)


def test_another_name_or_cluster_is_no_other_recipe(folder):
    published(open_run(recipe_of(folder)))
    assert open_run(recipe_of(folder, name="other", ray={"num_cpus": 3})).snapshot == 1


@pytest.mark.parametrize("where", ["clips", "tars"])
def test_a_pattern_that_finds_nothing_is_said(folder, where):
    source = {"clips": "none/*.csv"} if where == "clips" else {"media": {"kind": "tars", "uri": "none/*.csv"}}
    with pytest.raises(GexError, match=r"no file matches '.*none/\*.csv'"):
        input_files(recipe_of(folder, source))


def test_tars_of_media_are_inputs_as_well(folder):
    storage.publish_bytes(b"x", f"{folder}/tars/0.tar")
    files = input_files(recipe_of(folder, {"media": {"kind": "tars", "uri": "tars/*.tar"}}))
    assert [storage.name_of(file["uri"]) for file in files] == ["clips.jsonl", "0.tar"]


def test_a_snapshot_notes_tars_of_media_as_one_entry_that_tells_whether_one_changed(folder):
    source = {"media": {"kind": "tars", "uri": "tars/*.tar"}}
    for number in range(3):
        storage.publish_bytes(b"x" * number, f"{folder}/tars/{number}.tar")
    recipe = recipe_of(folder, source)
    published(open_run(recipe))
    metadata, tars = open_run(recipe).manifest.snapshots[0].inputs
    assert storage.name_of(metadata["uri"]) == "clips.jsonl"
    assert (tars["uri"], tars["num_files"], tars["num_bytes"]) == (f"{folder}/tars/*.tar", 3, 3)
    assert open_run(recipe).is_current
    os.utime(folder / "tars/1.tar", (1, 1))
    assert not open_run(recipe).is_current


def test_a_file_that_two_patterns_find_is_one_input(folder):
    assert len(input_files(recipe_of(folder, {"clips": ["clips.jsonl", "*.jsonl"]}))) == 1


GROWING = {"clips": "clips*.jsonl"}


def begun_and_planned(folder):
    run = begin(open_run(recipe_of(folder, GROWING)))
    prepare.ingest_clips(run)
    plan(run, "LVLT")
    mark(run, "LVLT build")
    return run


def test_a_planned_snapshot_goes_on_as_it_was_begun_when_files_came_since(folder):
    run = begun_and_planned(folder)
    write_jsonl(folder / "clips-2.jsonl", [clip_row("v2")])
    found = open_run(recipe_of(folder, GROWING))
    assert (found.run_id != run.run_id, len(found.inputs), found.begun_inputs) == (True, 2, run.inputs)
    again = as_begun(found)
    assert (again.run_id, again.inputs, again.is_behind, again.begun_inputs) == (run.run_id, run.inputs, True, ())
    begin(again)
    assert storage.exists(run.layout.table("plan-LVLT", 0))
    assert as_begun(open_run(recipe_of(folder, GROWING))) == again, "stopped once more, before it had built anything"


@pytest.mark.parametrize("why", ["the metadata are not read", "nothing is planned", "it was refused", "another recipe"])
def test_a_begun_snapshot_is_begun_again_when(folder, why):
    run = begun_and_planned(folder)
    write_jsonl(folder / "clips-2.jsonl", [clip_row("v2")])
    if why == "the metadata are not read":
        storage.remove(run.layout.ingest_account(0))
    if why == "nothing is planned":
        storage.remove(run.layout.table("plan-LVLT", 0))
    if why == "it was refused":
        mark_refused(run)
    again = open_run(recipe_of(folder, GROWING, seed=int(why == "another recipe")))
    assert (len(again.inputs), again.begun_inputs, again.is_behind) == (2, (), False)
    assert again.run_id != run.run_id


def test_a_begun_run_is_noted_and_can_be_marked(folder):
    run = begin(open_run(recipe_of(folder)))
    assert read_state(run.layout)["stage"] == "begun"
    mark(run, "LVLT build")
    state = read_state(run.layout)
    assert (state["stage"], state["run_id"], state["snapshot"], state["pid"]) == (
        "LVLT build",
        run.run_id,
        0,
        os.getpid(),
    )
    assert json.loads(json.dumps(state)) == state


def test_a_run_under_other_inputs_drops_the_tables_that_were_begun_and_keeps_published_ones(folder):
    first = begin(open_run(recipe_of(folder)))
    published(first, ["tables/clips-000000.parquet"])
    second = begin(open_run(recipe_of(folder)))
    layout = second.layout
    mine = [layout.table("clips", 1), layout.table("plan-LVLT", 1), layout.part("summaries-LVST", 1, "part-000000")]
    mine.append(layout.ingest_account(1))
    for uri in [*mine, layout.table("clips", 0)]:
        storage.publish_bytes(b"x", uri)
    begin(open_run(recipe_of(folder)))
    assert all(storage.exists(uri) for uri in mine), "the same run goes on where it stopped"
    os.utime(folder / "clips.jsonl", (5, 5))
    begin(open_run(recipe_of(folder)))
    assert [uri for uri in mine if storage.exists(uri)] == []
    assert storage.exists(layout.table("clips", 0))


def test_only_tables_that_a_snapshot_names_are_previous_tables(folder):
    run = open_run(recipe_of(folder))
    published(run, ["tables/clips-000000.parquet", "tables/clips-extra-000000.parquet"])
    storage.publish_bytes(b"x", run.layout.table("clips", 1))
    assert open_run(recipe_of(folder)).previous_tables("clips") == [f"{folder}/output/tables/clips-000000.parquet"]
    assert open_run(recipe_of(folder)).previous_tables("plan-LVLT") == []


def test_an_output_that_cannot_be_written_is_known_before_anything_starts(folder):
    (folder / "output").write_text("a file")
    run = open_run(recipe_of(folder))
    with pytest.raises(GexError, match=r"cannot write to .*output'"):
        begin(run)


GONE = r"dataset.json is gone from .*/output, which was published; put it back from a copy$"


@pytest.mark.parametrize("ended", ["done", "nothing new", "begun again"])
def test_an_output_that_lost_its_manifest_is_not_taken_for_one_that_was_begun(folder, ended):
    """Its shards were taken for begun ones, and their accounts, gone since publishing, for a defect of GEX."""
    run = begin(open_run(recipe_of(folder)))
    published(run)
    mark_done(run)
    if ended != "done":
        os.utime(folder / "clips.jsonl", (5, 5))
        again = begin(open_run(recipe_of(folder)))
        if ended == "nothing new":
            end_without_snapshot(again)
    storage.remove(run.layout.manifest)
    with pytest.raises(GexError, match=GONE):
        open_run(recipe_of(folder))
    with pytest.raises(GexError, match=GONE):
        open_run(find_recipe(f"{folder}/output"), Retry(("media_missing",)))


@pytest.mark.parametrize("stage", ["begun", "publish"])
def test_a_first_run_that_ended_before_it_published_has_lost_nothing(folder, stage):
    mark(begin(open_run(recipe_of(folder))), stage)
    assert open_run(recipe_of(folder)).is_begun


def test_a_state_that_is_no_json_is_no_state(folder):
    run = open_run(recipe_of(folder))
    storage.publish_bytes(b"[1]", run.layout.run_state)
    assert read_state(run.layout) is None
    storage.publish_bytes(b"{", run.layout.run_state)
    assert read_state(run.layout) is None


def test_a_run_that_ended_before_it_told_of_its_snapshot_leaves_that_to_the_next_one(folder):
    """The report of a snapshot was never written when the run was killed after publishing."""
    first = begin(open_run(recipe_of(folder)))
    published(first)
    mark(first, "publish")
    run = open_run(recipe_of(folder))
    assert (run.is_current, run.is_told, is_left_open(run)) == (True, False, True)
    assert (run.of_last_snapshot.snapshot, run.of_last_snapshot.layout) == (0, run.layout)
    with held(run.layout, "another"):
        assert not is_left_open(run), "whoever holds the output is at it"

    os.utime(folder / "clips.jsonl", (5, 5))
    end_without_snapshot(begin(open_run(recipe_of(folder))))
    run = open_run(recipe_of(folder))
    assert (run.seen_before, run.is_told) == (True, False), "a run over touched metadata forgot it"
    mark_told(run)
    run = open_run(recipe_of(folder))
    assert (run.seen_before, run.is_told, is_left_open(run)) == (True, True, False)


def test_what_was_told_of_needs_nothing(folder):
    run = begin(open_run(recipe_of(folder)))
    published(run)
    mark_done(run)
    state = read_state(run.layout)
    assert not is_left_open(open_run(recipe_of(folder)))
    rewritten(run, stage="publish", told=0)
    run = open_run(recipe_of(folder))
    assert is_left_open(run)
    mark_told(run)
    assert (read_state(run.layout)["stage"], read_state(run.layout)["run_id"]) == ("done", state["run_id"])
    storage.remove(run.layout.run_state)
    assert not is_left_open(open_run(recipe_of(folder))), "a copy without run.json"


def test_a_retry_that_was_stopped_is_named_with_its_reasons(folder):
    first = begin(open_run(recipe_of(folder)))
    published(first)
    mark_done(first)
    assert command_to_finish(read_state(first.layout), "out") == "gex run out"
    retry = Retry(("media_missing", "undecodable"), ("LVLT",))
    begin(open_run(recipe_of(folder), retry))
    run = open_run(recipe_of(folder))
    assert (run.is_current, run.is_begun, is_left_open(run)) == (True, True, True)
    told = command_to_finish(read_state(run.layout), "my out")
    assert told == "gex retry 'my out' --reason media_missing --reason undecodable --granularity LVLT"
    end_without_snapshot(run)
    run = open_run(recipe_of(folder))
    assert (run.is_begun, is_left_open(run)) == (False, False)


@pytest.mark.parametrize(
    ("retry", "sentence"),
    [
        (Retry(("media_mising",)), "there is no reason 'media_mising'; did you mean 'media_missing'"),
        (Retry(("media_missing", "")), "there is no reason ''"),
        (Retry(("media_missing",), ("LVLT", "LVTL")), "there is no granularity 'LVTL'; did you mean 'LVLT'"),
    ],
)
def test_what_is_no_reason_or_granularity_is_refused_before_anything_is_written(folder, retry, sentence):
    """As a flow's parameter it ended well, and the note of what the last run had done was written over."""
    with pytest.raises(RecipeError, match=re.escape(sentence)):
        open_run(recipe_of(folder), retry)


def test_a_retry_after_a_retirement_is_another_run(folder):
    """Shards of a retry that was given up were planned over samples that are gone since."""
    first = open_run(recipe_of(folder))
    manifest = published(first)
    before = open_run(recipe_of(folder), Retry(("media_missing",))).run_id
    retired = replace(manifest, snapshots=(replace(manifest.snapshots[0], retired="2026-01-02"),))
    storage.publish_bytes(retired.to_json(), first.layout.manifest)
    assert open_run(recipe_of(folder), Retry(("media_missing",))).run_id != before


def asking(folder, **more):
    """A recipe whose summaries a server writes."""
    server = {"backend": "http", "model": "m", "url": "http://one/v1", **more}
    short = {"operation": "compress_text", "from": "LVLT", "summarizer": server}
    return recipe_of(folder, granularity={"SVST": {}, "LVLT": LVLT, "LVST": short})


def rewritten(run, **changes):
    """The notes of a run with other values; None: without the key."""
    state = {key: value for key, value in (read_state(run.layout) | changes).items() if value is not None}
    storage.publish_bytes(json.dumps(state).encode(), run.layout.run_state)


@pytest.mark.parametrize("lacking", ["base", "recipe"])
def test_an_output_that_does_not_say_where_its_recipe_was_is_not_taken_for_one_of_this_folder(
    folder, monkeypatch, lacking
):
    """In the folder of another corpus its clips came into the data set, without a word."""
    run = begin(open_run(recipe_of(folder)))
    rewritten(run, **{lacking: None})
    monkeypatch.chdir(folder)
    with pytest.raises(GexError, match=r"output/run.json is of an earlier version, .*name the recipe file instead$"):
        find_recipe(f"{folder}/output")


def test_a_begun_recipe_that_is_refused_now_is_said_to_be_the_one_of_the_output(folder):
    run = begin(open_run(recipe_of(folder)))
    rewritten(run, recipe=run.recipe.resolved() | {"speed": 3})
    with pytest.raises(GexError, match=r"in .*output/run.json is one that this version refuses \(speed: unknown key"):
        find_recipe(f"{folder}/output")


def changed_snapshot(folder, **changes):
    """A run over an output whose only snapshot says something else of itself."""
    first = begin(open_run(asking(folder)))
    manifest = published(first)
    snapshot = replace(manifest.snapshots[0], software={"gex-pipeline": "0.0.9"}, **changes)
    storage.publish_bytes(replace(manifest, snapshots=(snapshot,)).to_json(), first.layout.manifest)
    return open_run(asking(folder, model="n"), accept_changes=True)


def test_a_snapshot_whose_recipe_is_refused_now_is_named_with_the_version_that_made_it(folder):
    """The sentence was that of a key which the recipe at hand did not have, and the same again after every run."""
    recipe = asking(folder).resolved()
    recipe["granularity"]["LVST"]["summarizer"] |= {"min_words": 8, "accept_min_words": 9}
    sentence = (
        "snapshot 0 was made by version 0.0.9 of gex-pipeline, with a recipe that this version does not build by "
        "(granularity.LVST.summarizer: accept_min_words = 9 is over min_words = 8"
    )
    run = changed_snapshot(folder, recipe=recipe)
    with pytest.raises(GexError, match=re.escape(sentence)) as raised:
        recipe_of_snapshot(run, 0)
    assert not isinstance(raised.value, RecipeError)  # it is not the recipe at hand that is wrong
    plan_uri, entry = run.layout.table("plan-SVST", 0), ShardEntry("SVST/SVST-000001.tar", "r", 1, 1, "0")
    storage.publish_bytes(b"x", plan_uri)
    with pytest.raises(GexError, match=r"; put SVST/SVST-000001.tar and what belongs to it back from a copy, or let"):
        rebuild(replace(run, manifest=with_svst(run.manifest)), [Damage("SVST", 0, entry, "missing")])


def with_svst(manifest):
    entries = {"SVST": GranularityEntry("source", None, "mp4", (), {})}
    return replace(manifest, snapshots=(replace(manifest.snapshots[0], granularities=entries),))


def test_a_snapshot_whose_recipe_has_another_hash_now_is_not_built_from(folder):
    with pytest.raises(GexError, match=r"does not build by \(its hash is another one here, as after a change of a def"):
        recipe_of_snapshot(changed_snapshot(folder, recipe_hash="0123"), 0)


def test_a_snapshot_is_built_again_with_its_own_recipe(folder):
    then = recipe_of_snapshot(changed_snapshot(folder), 0)
    assert (then.hash, then.granularity["LVST"].summarizer.model) == (asking(folder).hash, "m")


def test_a_longer_wait_over_a_published_output_is_no_other_recipe(folder):
    published(open_run(asking(folder)))
    run = open_run(asking(folder, timeout_s=600))
    assert (run.changes, run.recipe.hash) == ((), asking(folder).hash)


def stages_of_one_that_slept(run) -> list:
    """All by which a run touches `run.json` or what it stands for, after it has begun."""

    def stage() -> None:
        with timeline.stage(run, "plan", "LVLT"):
            raise AssertionError("the stage was begun")

    changes = (begin, mark_refused, mark_done, mark_told, end_without_snapshot)
    return [stage, *(lambda change=change: change(run) for change in changes)]


@pytest.mark.parametrize("number", range(6))
def test_a_run_that_lost_its_hold_leaves_run_json_to_the_one_that_has_it(folder, number):
    """It named itself there at its next stage; then the shards of the other were refused, and both runs failed."""
    layout = open_run(recipe_of(folder)).layout
    with held(layout, "slept") as lost:
        slept = begin(replace(open_run(recipe_of(folder)), lease=lost))
        storage.remove(layout.run_lock)  # the machine slept, and was taken for dead
        write_jsonl(folder / "clips.jsonl", [clip_row(), clip_row("v2")])
        with held(layout, "other") as lease:
            other = begin(replace(open_run(recipe_of(folder)), lease=lease))
            mark(other, "LVLT build")
            plan(other, "SVST")
            begun = read_state(layout)
            assert begun["run_id"] == other.run_id != slept.run_id
            with pytest.raises(GexError, match=r"was ended by process \d+ .*It publishes nothing more"):
                stages_of_one_that_slept(slept)[number]()
            assert read_state(layout) == begun
            assert storage.exists(layout.table("plan-SVST", 0))
