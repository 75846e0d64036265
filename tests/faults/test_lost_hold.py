"""A process that slept while another took its output over writes nothing over what that one published."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from prefect.logging import disable_run_logger

from flows import expand
from gex_pipeline import storage, timeline
from gex_pipeline.errors import GexError
from gex_pipeline.layout import Layout
from gex_pipeline.run_lock import held
from gex_pipeline.run_state import begin, open_run
from gex_pipeline.shard_job import ShardJob, build_shard
from gex_pipeline.shards.manifest import read_manifest
from gex_pipeline.stages import build, prepare, publish, retire
from tests.making_runs import clip_row, recipe_of, run_here, write_jsonl


@pytest.fixture
def recipe(small_clips, tmp_path):
    """An output with snapshot 0, and metadata for the next one."""
    (tmp_path / "clips").symlink_to(small_clips)
    source = {"media": {"kind": "column", "column": "file", "root": "clips"}}
    made = recipe_of(tmp_path, source)

    def rows(names):
        return [clip_row(name[0], int(name[2]), int(name[2]) + 0.48, name, file=f"{name}.mp4") for name in names]

    write_jsonl(tmp_path / "clips.jsonl", rows(["a-0", "a-1"]))
    run_here(made)
    write_jsonl(tmp_path / "clips.jsonl", rows(["a-0", "a-1", "b-0", "b-1"]))
    return made


def built(recipe, lease):
    """The next snapshot, up to its publication."""
    run = begin(replace(open_run(recipe), lease=lease))
    prepare.ingest_clips(run)
    for node in publish.built_nodes(run):
        uri = run.layout.table(f"plan-{node.name}", run.snapshot)
        for planned in build.plan_shards(run, node):
            build_shard(ShardJob(recipe, node.name, uri, run.run_id), planned.shard)
    return run


def taken_over(layout):
    """Let another process have the output, as after two minutes without a sign of life."""
    content = json.loads(storage.read_bytes(layout.run_lock)) | {"token": "of another", "host": "elsewhere"}
    storage.publish_bytes(json.dumps(content).encode(), layout.run_lock)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "run.lock"}


def test_a_run_that_lost_its_hold_while_it_published_changes_nothing(recipe, tmp_path, monkeypatch):
    layout, before = Layout(recipe.output_uri), {}

    def check_gates(run):
        before.update(contents(tmp_path / "output"))
        taken_over(layout)

    monkeypatch.setattr(publish, "check_gates", check_gates)
    with held(layout, "slept") as lease:
        run = built(recipe, lease)
        with pytest.raises(GexError, match=r"was ended by process \d+ on elsewhere"):
            publish.publish(run)
    assert contents(tmp_path / "output") == before
    assert len(read_manifest(recipe.output_uri).snapshots) == 1


def test_a_hold_lost_while_the_last_tables_were_written_publishes_no_snapshot(recipe, monkeypatch):
    layout = Layout(recipe.output_uri)
    monkeypatch.setattr(timeline, "publish_timeline", lambda run: taken_over(layout))
    with held(layout, "slept") as lease:
        run = built(recipe, lease)
        with pytest.raises(GexError, match="It publishes nothing more"):
            publish.publish(run)
    assert len(read_manifest(recipe.output_uri).snapshots) == 1


def test_a_retirement_that_lost_its_hold_leaves_the_manifest_and_the_shards(recipe, tmp_path, monkeypatch):
    """It wrote the manifest that it had read over that of a run which had published meanwhile."""
    run_here(recipe)
    layout, keep = Layout(recipe.output_uri), retire._keep_parents

    def keep_parents(*arguments):
        keep(*arguments)
        taken_over(layout)

    monkeypatch.setattr(retire, "_keep_parents", keep_parents)
    before = contents(tmp_path / "output")
    with pytest.raises(GexError, match="was ended by process"):
        retire.retire_snapshots(recipe.output_uri, snapshots=(0,))
    after = contents(tmp_path / "output")
    assert {path: after[path] for path in before} == before


def test_sizes_are_those_of_what_is_published(recipe, tmp_path, monkeypatch):
    """They were written before the manifest, and listed shards of a snapshot that was given up, for ever."""
    sizes = tmp_path / "output" / "LVLT" / "sizes.json"
    first = json.loads(sizes.read_text())
    monkeypatch.setattr(timeline, "publish_timeline", lambda run: 1 / 0)
    with held(Layout(recipe.output_uri), "fails") as lease:
        run = built(recipe, lease)
        with pytest.raises(ZeroDivisionError):
            publish.publish(run)
    assert json.loads(sizes.read_text()) == first == {"LVLT-000000.tar": 1}
    monkeypatch.undo()
    run_here(recipe)
    assert json.loads(sizes.read_text()) == {"LVLT-000000.tar": 1, "LVLT-000001.tar": 1}


def test_sizes_that_a_stopped_publication_left_are_made_good_with_its_report(recipe, tmp_path, monkeypatch):
    sizes = tmp_path / "output" / "LVLT" / "sizes.json"
    monkeypatch.setattr(publish, "publish_sizes", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_here(recipe)
    assert json.loads(sizes.read_text()) == {"LVLT-000000.tar": 1}
    told = []
    monkeypatch.setattr(expand, "_tell", lambda run, snapshot, _: told.append(snapshot.snapshot))
    monkeypatch.setattr(expand, "look", lambda recipe, _: open_run(recipe))
    with held(Layout(recipe.output_uri), "next") as lease, disable_run_logger():
        expand._expand_alone(expand.ExpandParameters(recipe="r.toml"), recipe, lease)
    assert told == [1]
    assert json.loads(sizes.read_text()) == {"LVLT-000000.tar": 1, "LVLT-000001.tar": 1}
