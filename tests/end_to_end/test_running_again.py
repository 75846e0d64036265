"""A second run: nothing new, more metadata, late clips, what a first one that was stopped has left."""

from __future__ import annotations

import json
import os
from itertools import pairwise

import pytest

from gex_pipeline import storage
from gex_pipeline.cli.main import main
from gex_pipeline.recipe import load_recipe
from gex_pipeline.retry import Retry
from gex_pipeline.run_state import begin, open_run, read_state
from gex_pipeline.shard_job import build_shard
from gex_pipeline.stages.prepare import ingest_clips
from tests.end_to_end.running import (
    NO_MODELS,
    error_of,
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
[granularity.SVST]
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


def test_running_again_changes_no_file_and_no_time(paper_output):
    before = fingerprint(paper_output.folder)
    state = run_flow(paper_output.folder.parent / "recipe.toml", report=True)
    assert state.is_completed()
    assert state.result() is None
    assert fingerprint(paper_output.folder) == before


@pytest.fixture(scope="module")
def grown(running, corpus, tmp_path_factory):
    """Three runs over metadata that grow: the output and its files' fingerprint after each."""
    folder = tmp_path_factory.mktemp("grown")
    rows = metadata_of(corpus)
    eight = [row for row in rows if row["YoutubeID"] == "-whkHrSQl47"]
    four = [row for row in rows if row["YoutubeID"] == "lzm8v_D9W90"]
    five = [row for row in rows if row["YoutubeID"] == "VFJ82b2k5x_"]
    clips = folder / "clips.jsonl"
    recipe = write_recipe(folder, source_table(corpus, clips) + NO_MODELS + BODY)
    after = []
    for known in ([*eight[:4], *four], [*eight[:6], *four, *five], [*five, *eight, *four]):
        write_metadata(clips, known)
        after.append((expand_to(recipe), fingerprint(folder / "output")))
    return recipe, after


def test_grown_metadata_give_a_snapshot_with_the_new_groups_only(grown):
    _, [(first, _), (second, _), (third, _)] = grown
    assert [len(output.manifest["snapshots"]) for output, _ in grown[1]] == [1, 2, 3]
    for output, expected in ((first, [2, 2, 8]), (second, [1, 1, 7]), (third, [1, 1, 2])):
        totals = output.last["granularities"]
        assert [totals[name]["totals"]["samples"] for name in ("LVLT", "LVST", "IT")] == expected
    assert second.ingest["num_known"] == 8
    assert second.ingest["num_used"] == 7


def test_published_shards_are_never_touched_again(grown):
    _, after = grown
    for (earlier, before), (_, now) in pairwise(after):
        published = [
            path
            for name in earlier.granularities
            for shard in earlier.shards(name)
            for path in (shard["path"], shard["receipt"])
        ]
        assert len(published) >= 6
        assert {path: now[path] for path in published} == {path: before[path] for path in published}


def test_late_clips_of_a_known_source_wait_until_there_are_four(grown):
    _, [(first, _), (second, _), (third, _)] = grown
    assert second.account("LVLT")["excluded"] == {"too_few_clips": 2}
    of_eight = [row for row in third.samples("LVLT") if row["source_id"] == "-whkHrSQl47"]
    assert [len(row["parents"]) for row in of_eight] == [4, 4]
    early, late = sorted(of_eight, key=lambda row: row["segments"][0]["start_s"])
    assert early == next(row for row in first.samples("LVLT") if row["source_id"] == "-whkHrSQl47")
    assert max(s["end_s"] for s in early["segments"]) <= min(s["start_s"] for s in late["segments"])
    assert late["shard"] == 2


def test_sizes_count_the_shards_of_all_snapshots(grown):
    third = grown[1][-1][0]
    sizes = json.loads((third.folder / "LVLT/sizes.json").read_text())
    assert sizes == {"LVLT-000000.tar": 2, "LVLT-000001.tar": 1, "LVLT-000002.tar": 1}


def test_metadata_that_were_only_touched_give_no_snapshot(grown):
    recipe, after = grown
    before = after[-1][1]
    clips = recipe.parent / "clips.jsonl"
    os.utime(clips, (2e9, 2e9))
    state = run_flow(recipe)
    assert state.is_completed()
    assert state.result() is None
    now = fingerprint(recipe.parent / "output")
    assert {path: now[path] for path in before if path != "run.json"} == {
        path: entry for path, entry in before.items() if path != "run.json"
    }
    assert set(now) == set(before)  # the tables that said so are gone again
    assert len(read_output(recipe.parent / "output").manifest["snapshots"]) == 3
    assert open_run(load_recipe(recipe)).is_current  # the next run does not even look


@pytest.fixture
def unreported(running, corpus, tmp_path):
    """A run that published two snapshots and could write neither report: a file is where the folder has to be."""
    clips = tmp_path / "clips.jsonl"
    rows = [row for row in metadata_of(corpus) if row["YoutubeID"] in ("-whkHrSQl47", "lzm8v_D9W90")]
    body = '[granularity.SVST]\n[granularity.LVLT]\noperation = "integrate"\nfrom = "SVST"\n'
    recipe = write_recipe(tmp_path, source_table(corpus, clips) + NO_MODELS + body)
    (tmp_path / "output").mkdir()
    (tmp_path / "output/report").write_text("in the way")
    for known in ([row for row in rows if row["YoutubeID"] == "-whkHrSQl47"], rows):
        write_metadata(clips, known)
        assert "report" in str(error_of(run_flow(recipe, report=True)))
    return recipe, clips


def test_a_run_that_failed_after_publishing_is_made_good_by_the_next_one(unreported, capsys):
    """It was said that the report lies there, by a run that had nothing to do, and no run wrote it any more."""
    recipe, clips = unreported
    output = recipe.parent / "output"
    assert len(read_output(output).manifest["snapshots"]) == 2
    before = sums(output), (output / "dataset.json").read_bytes()
    assert main(["run", str(recipe)]) == 1  # still in the way
    assert "report.html" not in capsys.readouterr().out
    (output / "report").unlink()
    os.utime(clips, (2e9, 2e9))
    assert main(["run", str(recipe), "--no-report"]) == 0
    assert "report.html" not in capsys.readouterr().out
    (output / "run.json").write_text(json.dumps(read_state(open_run(load_recipe(recipe)).layout) | {"told": 1}))
    assert main(["run", str(recipe)]) == 0
    said = capsys.readouterr().out
    assert "made good: the run that published snapshot 1 was stopped before its report" in said
    assert f"report   {output}/report/report.html" in said
    report = json.loads((output / "report/report.json").read_text())
    assert {node["name"]: node["samples"] for node in report["nodes"]}["LVLT"] == 2
    assert (sums(output), (output / "dataset.json").read_bytes()) == before
    after = fingerprint(output)
    assert main(["run", str(recipe)]) == 0
    assert "made good" not in capsys.readouterr().out
    assert fingerprint(output) == after


def begun_with_one_source(corpus, folder):
    """The recipe of a run that was stopped when it had built its shard, the tar, and rows: the source's, another's."""
    first, second = (
        [row for row in metadata_of(corpus) if row["YoutubeID"] == name] for name in ("-whkHrSQl47", "lzm8v_D9W90")
    )
    body = '[granularity.SVST]\n[granularity.LVLT]\noperation = "integrate"\nfrom = "SVST"\n'
    recipe = write_recipe(folder, source_table(corpus, folder / "clips-*.jsonl") + NO_MODELS + body)
    write_metadata(folder / "clips-1.jsonl", first)
    run = begin(open_run(load_recipe(recipe)))
    ingest_clips(run)
    job, _ = plan(run, "LVLT")
    build_shard(job, 0)
    return recipe, folder / "output/LVLT/LVLT-000000.tar", first, second


@pytest.mark.parametrize("kind", ["another file", "the same file written anew"])
def test_clips_that_come_while_a_snapshot_is_built_are_for_the_one_after_it(running, corpus, tmp_path, capsys, kind):
    """A run that was stopped threw away what it had built as soon as the collection had grown."""
    recipe, tar, known, come = begun_with_one_source(corpus, tmp_path)
    built = tar.stat().st_mtime_ns
    files_then = ["clips-1.jsonl"]
    if kind == "another file":
        files_now = ["clips-1.jsonl", "clips-2.jsonl"]
        write_metadata(tmp_path / "clips-2.jsonl", come)
    else:
        files_now = files_then
        write_metadata(tmp_path / "clips-1.jsonl", come + known)

    assert main(["run", str(recipe), "--no-report"]) == 0

    said = "going on with snapshot 0 as it was begun; what has come since is for the one after it"
    assert said in capsys.readouterr().err
    output = read_output(tmp_path / "output")
    first, second = output.manifest["snapshots"]
    assert [[storage.name_of(file["uri"]) for file in entry["inputs"]] for entry in (first, second)] == [
        files_then,
        files_now,
    ]
    assert [entry["granularities"]["LVLT"]["totals"]["samples"] for entry in (first, second)] == [1, 1]
    assert tar.stat().st_mtime_ns == built
    assert open_run(load_recipe(recipe)).is_current


def test_a_snapshot_is_begun_anew_when_a_clip_of_it_has_another_caption_now(running, corpus, tmp_path, capsys):
    recipe, tar, known, come = begun_with_one_source(corpus, tmp_path)
    built = tar.stat().st_mtime_ns
    write_metadata(tmp_path / "clips-1.jsonl", [known[0] | {"Caption": "as it should have been"}, *known[1:], *come])

    assert main(["run", str(recipe), "--no-report"]) == 0

    assert "begun anew: 1 of the clips that snapshot 0 was begun with are not in" in capsys.readouterr().err
    output = read_output(tmp_path / "output")
    (only,) = output.manifest["snapshots"]
    assert only["granularities"]["LVLT"]["totals"]["samples"] == 2
    assert tar.stat().st_mtime_ns != built


def test_what_came_behind_a_stopped_retry_is_taken_though_the_retry_could_use_nothing(running, corpus, tmp_path):
    first, second = (
        [row for row in metadata_of(corpus) if row["YoutubeID"] == name] for name in ("-whkHrSQl47", "lzm8v_D9W90")
    )
    nowhere = first[0] | {"Start_timestamp": "09:00:00.000", "End_timestamp": "09:00:01.000"}
    body = '[granularity.SVST]\n[granularity.IT]\noperation = "compress_video"\nfrom = "SVST"\n'
    recipe = write_recipe(tmp_path, source_table(corpus, tmp_path / "clips-*.jsonl") + NO_MODELS + body)
    write_metadata(tmp_path / "clips-1.jsonl", [*first, nowhere])
    assert len(expand_to(recipe).samples("IT")) == len(first)
    run = begin(open_run(load_recipe(recipe), Retry(("media_missing",))))
    ingest_clips(run)
    plan(run, "IT")  # and then it is stopped
    write_metadata(tmp_path / "clips-2.jsonl", second)

    assert main(["retry", str(tmp_path / "output"), "--reason", "media_missing", "--no-report"]) == 0

    output = read_output(tmp_path / "output")
    assert [entry["granularities"]["IT"]["totals"]["samples"] for entry in output.manifest["snapshots"]] == [
        len(first),
        len(second),
    ]


def test_a_run_over_metadata_that_were_put_back_gives_up_what_was_begun(unreported, capsys):
    """`gex run` said that nothing is new, `gex status` that it has to be run again, for ever."""
    recipe, clips = unreported
    output = recipe.parent / "output"
    (output / "report").unlink()
    times = clips.stat()
    os.utime(clips, (1, 1))
    plan(begin(open_run(load_recipe(recipe))), "LVLT")
    os.utime(clips, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert main(["status", str(output)]) == 0
    assert "run the same 'gex run' again to go on" in capsys.readouterr().out
    before = sums(output), (output / "dataset.json").read_bytes()
    assert main(["run", str(output)]) == 0
    said = capsys.readouterr().out
    assert "given up: snapshot 2, which a run over other metadata had begun and not finished" in said
    assert "made good: the run that published snapshot 1" in said  # what was begun meanwhile did not hide it
    assert (sums(output), (output / "dataset.json").read_bytes()) == before
    assert not list((output / "tables").glob("*-000002.parquet"))
    assert main(["status", str(output)]) == 0
    assert "next" not in capsys.readouterr().out
    assert main(["shards", "retire", str(output), "--older-than-days", "0", "--dry-run"]) == 0
