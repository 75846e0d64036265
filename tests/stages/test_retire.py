"""What age retires where later samples need earlier ones, on outputs written by hand."""

from __future__ import annotations

import pytest
from prefect.logging import disable_run_logger

from flows import expand
from gex_pipeline.errors import GexError
from gex_pipeline.run_state import Run
from gex_pipeline.shard_format import SampleRecord
from gex_pipeline.shards.manifest import Manifest, read_manifest
from gex_pipeline.stages.rebuild import find_damaged
from gex_pipeline.stages.retire import retire_snapshots
from tests.making_runs import clip_row, recipe_of, write_jsonl
from tests.report import outputs


def sample(granularity, key, *parents):
    return SampleRecord(key, granularity, "v1", parents, (), "a dog runs.", 1.0, 8, 8, 5.0, "h264", "copy")


@pytest.fixture
def recipe(tmp_path):
    """Four snapshots of a sample each: a summary of the first one's video comes third, what is made of it fourth."""
    write_jsonl(tmp_path / "clips.jsonl", [clip_row()])
    made = recipe_of(tmp_path)
    output = tmp_path / "output"
    samples = [
        sample("LVLT", "long", "clip-1"),
        sample("LVLT", "other", "clip-2"),
        sample("LVST", "late_summary", "long"),
        sample("TINY", "of_summary", "late_summary"),
    ]
    snapshots = []
    for number, one in enumerate(samples):
        shard = outputs.write_shard(output, one.granularity, [(one, b"video")], number=number)
        nodes = {one.granularity: outputs.entry(one.granularity, "integrate", "SVST", shard)}
        snapshots.append(outputs.snapshot(number, nodes, (), [], {}))
    outputs.publish(output, Manifest("test", tuple(snapshots)))
    return made


def retired_of(recipe):
    return [bool(one.retired) for one in read_manifest(recipe.output_uri).snapshots]


def test_age_leaves_what_younger_samples_need_and_retires_the_rest(recipe):
    """A summary that was tried again months later kept every older snapshot from being retired, for ever."""
    found = retire_snapshots(recipe.output_uri, older_than_days=1)
    assert found.snapshots == (1,)
    assert retired_of(recipe) == [False, True, False, False]
    assert found.words == (
        f"retired snapshots 1: 1 samples in 1 shards, {found.num_bytes} bytes; "
        "snapshot 0 stays: 1 samples of LVST in snapshot 2 (first late_summary), whose parents are in snapshot 0; "
        "snapshot 2 stays: 1 samples of TINY in snapshot 3 (first of_summary), whose parents are in snapshot 2"
    )
    again = retire_snapshots(recipe.output_uri, older_than_days=1, dry_run=True)
    assert (again.snapshots, len(again.stays)) == ((), 2)
    assert again.words.startswith("no snapshot to retire; snapshot 0 stays: ")


def test_snapshots_that_were_named_are_refused_while_others_need_them(recipe):
    with pytest.raises(GexError) as error:
        retire_snapshots(recipe.output_uri, snapshots=(0, 1))
    assert str(error.value) == (
        "snapshots 0, 1 are still needed: 1 samples of LVST in snapshot 2 (first late_summary), whose parents are in "
        "snapshot 0. Retire 2 with them, or none. Nothing was changed"
    )
    assert retired_of(recipe) == [False] * 4


def test_shards_that_were_retired_while_a_run_looked_for_damage_are_not_built_again(recipe, tmp_path, monkeypatch):
    """They were missing, and were built as files that nothing lists."""
    gone, missing = (tmp_path / "output" / f"LVLT/LVLT-{number:06d}.tar" for number in (1, 0))
    missing.unlink()

    def find(run, check_bytes):
        gone.unlink()  # as by the retirement, which has not come to it
        found = find_damaged(run, read_bytes=check_bytes)
        retire_snapshots(recipe.output_uri, older_than_days=1)
        return found

    built = []
    monkeypatch.setattr(expand, "find_recipe", lambda _: recipe)
    monkeypatch.setattr(expand, "look", lambda *_: a_run(recipe))
    monkeypatch.setattr(expand, "find_damaged", find)
    monkeypatch.setattr(expand, "check_tools", lambda _: None)
    monkeypatch.setattr(expand, "rebuild_shards", lambda _, damaged: built.extend(one.entry.path for one in damaged))
    monkeypatch.setattr(expand, "_expand_alone", lambda *_: None)
    with disable_run_logger():
        expand._expand(expand.ExpandParameters(recipe="r.toml"))
    assert built == ["LVLT/LVLT-000000.tar"]


def a_run(recipe):
    return Run(recipe, read_manifest(recipe.output_uri), (), "run")
