from __future__ import annotations

import json
import signal
import threading
import time
import urllib.parse
from dataclasses import replace

import pyarrow as pa
import pytest

from gex_pipeline import storage
from gex_pipeline.cli.main import main
from gex_pipeline.cli.show import show_end
from gex_pipeline.receipts import write_receipt, write_table
from gex_pipeline.recipe import load_recipe
from gex_pipeline.retry import Retry
from gex_pipeline.run_lock import held
from gex_pipeline.run_state import Run, begin, mark, mark_done, open_run
from gex_pipeline.shard_format import Receipt
from gex_pipeline.shards.manifest import Manifest, read_manifest
from tests.making_runs import clip_row, recipe_of, write_jsonl
from tests.test_run_state import published

NUM_SHARDS = 60


def test_watching_ends_with_the_run_that_holds_the_output(tmp_path, capsys):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row()])
    run = begin(open_run(recipe_of(tmp_path)))
    over = threading.Event()

    def work():
        with held(run.layout, run.run_id):
            over.wait(20)

    worker = threading.Thread(target=work)
    worker.start()
    while not (tmp_path / "output" / "run.lock").exists():
        time.sleep(0.01)
    threading.Timer(0.5, over.set).start()
    assert main(["status", str(tmp_path / "output"), "--watch"]) == 0
    worker.join()
    said = capsys.readouterr().out
    assert said.count("not finished: snapshot 0") == 2  # at once, and two seconds later
    assert said.count("held by") == 1
    assert said.count("next     run the same 'gex run' again") == 1


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, ""),  # not 0: the run it watched goes on
        (signal.SIGTERM, 75, "gex: told to stop by SIGTERM; run the same command again to go on\n"),
    ],
)
def test_who_stops_watching_is_not_told_to_go_on(tmp_path, capsys, monkeypatch, number, code, said):
    """It said `stopped; run the same command again to go on`, as if the run had been stopped."""
    write_jsonl(tmp_path / "clips.jsonl", [clip_row()])
    run = begin(open_run(recipe_of(tmp_path)))
    with held(run.layout, run.run_id):
        monkeypatch.setattr(time, "sleep", lambda _: signal.raise_signal(number))
        assert main(["status", str(tmp_path / "output"), "--watch"]) == code
    found = capsys.readouterr()
    assert (found.out.count("held by"), found.err) == (1, said)


def publish_nothing(run: Run) -> None:
    """A snapshot without granularities."""
    (snapshot,) = published(run).snapshots
    manifest = Manifest("test", (replace(snapshot, granularities={}),))
    storage.publish_bytes(manifest.to_json(), run.layout.manifest)


def write_receipts(run: Run, shards: range, run_id: str) -> None:
    storage.for_each(
        lambda shard: write_receipt(
            run.layout.receipt("LVLT", shard),
            Receipt("LVLT", shard, run_id, run.recipe.hash, 0, 0, ""),
            [],
        ),
        shards,
    )


@pytest.fixture
def under_way(world, tmp_path):
    """A run in an object store: 60 shards planned, 40 of them there, one of them of another run."""
    bucket = world.make_bucket(f"status-{tmp_path.name.replace('_', '-')}"[:60].lower())
    write_jsonl(tmp_path / "clips.jsonl", [clip_row()])
    run = begin(open_run(recipe_of(tmp_path, output=f"{bucket}/out")))
    rows = [{"shard": shard, "key": f"k{shard}"} for shard in range(NUM_SHARDS)]
    write_table(run.layout.table("plan-LVLT", 0), pa.Table.from_pylist(rows), {})
    write_receipts(run, range(1, 40), run.run_id)
    write_receipts(run, range(1), "another")
    write_receipts(run, range(NUM_SHARDS, NUM_SHARDS + 5), run.run_id)  # in no plan
    return run


def test_a_status_in_an_object_store_asks_once_for_what_is_there(under_way, world, capsys):
    """Receipts were asked for one after another, those that are not there too: minutes for ten thousand shards."""
    first = len(world.requests)
    assert main(["status", under_way.layout.output_uri, "--json"]) == 0
    asked = [path for _, path in world.requests[first:]]
    (row,) = [row for row in json.loads(capsys.readouterr().out)["under_way"] if row["granularity"] == "LVLT"]
    assert row == {"granularity": "LVLT", "planned": 60, "built": 39}
    receipts = [path for path in asked if "/LVLT/LVLT-" in urllib.parse.unquote(path)]
    assert len(set(receipts)) == 40
    assert len(receipts) <= 2 * 40
    assert len(asked) - len(receipts) < 25


def test_watching_reads_no_receipt_and_no_plan_twice(under_way, world, capsys):
    over, first = threading.Event(), len(world.requests)

    def work():
        with held(under_way.layout, under_way.run_id):
            over.wait(20)

    worker = threading.Thread(target=work)
    worker.start()
    while not storage.exists(under_way.layout.run_lock):
        time.sleep(0.05)

    def go_on():
        write_receipts(under_way, range(45), under_way.run_id)  # 0 was another run's, 40 to 44 are new
        over.set()

    first = len(world.requests)
    threading.Timer(1.5, go_on).start()
    assert main(["status", under_way.layout.output_uri, "--watch"]) == 0
    worker.join()
    shown = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip().startswith("LVLT")]
    assert shown[0] == ["LVLT", "39", "60"]
    assert shown[-1] == ["LVLT", "45", "60"]
    assert len(shown) >= 2
    plans = [path for how, path in world.requests[first:] if how == "GET" and "plan-LVLT" in path]
    assert len(plans) == 1


def test_a_receipt_that_did_not_change_is_not_read_again(under_way, world):
    from gex_pipeline.cli.status import _Known, _under_way
    from gex_pipeline.run_state import read_state

    known, state = _Known(), read_state(under_way.layout)
    before = _under_way(under_way.layout.output_uri, state, known)
    first = len(world.requests)
    assert _under_way(under_way.layout.output_uri, state, known) == before
    assert not [path for _, path in world.requests[first:] if "/LVLT/LVLT-" in path]


def test_a_retry_that_was_stopped_is_told_with_its_own_command(tmp_path, capsys):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row()])
    run = begin(open_run(recipe_of(tmp_path)))
    publish_nothing(run)
    output = run.layout.output_uri
    assert main(["status", output]) == 0
    assert f"next     gex run {output}    (the last run was stopped before its report)" in capsys.readouterr().out
    mark_done(run)
    assert main(["status", output]) == 0
    assert "next" not in capsys.readouterr().out
    again = begin(open_run(recipe_of(tmp_path), Retry(("media_missing",))))
    mark(again, "LVLT build")
    assert main(["status", output]) == 0
    said = capsys.readouterr().out
    assert f"next     gex retry {output} --reason media_missing    to go on (gex run {output} gives it up)" in said
    assert main(["shards", "retire", output, "--older-than-days", "0", "--dry-run"]) == 1
    assert f"finish it first: gex retry {output} --reason media_missing, or give it up" in capsys.readouterr().err


def test_the_end_of_a_run_names_a_report_only_where_there_is_one(tmp_path, capsys):
    write_jsonl(tmp_path / "clips.jsonl", [clip_row()])
    run = begin(open_run(recipe_of(tmp_path)))
    publish_nothing(run)
    output = run.layout.output_uri
    show_end(read_manifest(output), output)
    assert "report" not in capsys.readouterr().out
    storage.publish_bytes(b"x", run.layout.report("report.html"))
    show_end(read_manifest(output), output)
    assert f"report   {output}/report/report.html" in capsys.readouterr().out


def test_the_status_of_an_output_that_lost_its_manifest_says_so_as_a_run_does(tmp_path, capsys):
    """It said that the run was not finished, and to run the same again, which ended as a defect of GEX."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'name = "x"\noutput = "output"\n[source]\nclips = "clips.jsonl"\n'
        'media = { kind = "files", uri = "{YoutubeID}.mp4" }\n[granularity.SVST]\npack = true\n'
    )
    write_jsonl(tmp_path / "clips.jsonl", [clip_row()])
    run = begin(open_run(load_recipe(str(recipe))))
    published(run)
    mark_done(run)
    storage.remove(run.layout.manifest)
    output = str(tmp_path / "output")
    for command in (["status", output], ["status", output, "--json"], ["run", output], ["run", str(recipe)]):
        assert main(command) == 1
        out, err = capsys.readouterr()
        assert f"dataset.json is gone from {output}, which was published; put it back from a copy" in err
        assert "run the same" not in out + err
