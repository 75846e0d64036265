"""Old snapshots are taken out: what readers see, what stays known, what is refused, what a crash leaves."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gex_pipeline.cli.main import main
from gex_pipeline.errors import GexError
from gex_pipeline.run_lock import held
from gex_pipeline.run_state import begin, open_run
from gex_pipeline.shards.manifest import read_manifest
from gex_pipeline.stages.retire import retire_snapshots
from tests.end_to_end.running import (
    NO_MODELS,
    expand_to,
    fingerprint,
    metadata_of,
    read_output,
    rows_of,
    run_flow,
    source_table,
    write_metadata,
    write_recipe,
)

ROOT = Path(__file__).parents[2]
LVLT = '[granularity.SVST]\n[granularity.LVLT]\noperation = "integrate"\nfrom = "SVST"\n'
LVST = (
    '[granularity.LVST]\noperation = "compress_text"\nfrom = "LVLT"\n'
    'summarizer = { backend = "extractive" }\ngates = {}\nvideo = "reference"\n'
)


@pytest.fixture(scope="module")
def grown(running, corpus, tmp_path_factory):
    """Two snapshots of LVLT and of LVST, which points into LVLT; with a report. Treat as read-only."""
    folder = tmp_path_factory.mktemp("grown")
    rows = metadata_of(corpus)
    clips = folder / "clips.jsonl"
    recipe = write_recipe(folder, source_table(corpus, Path("clips.jsonl")) + NO_MODELS + LVLT + LVST)
    write_metadata(clips, [row for row in rows if row["YoutubeID"] in ("-whkHrSQl47", "lzm8v_D9W90")])
    expand_to(recipe)
    write_metadata(clips, [row for row in rows if row["YoutubeID"] in ("-whkHrSQl47", "lzm8v_D9W90", "VFJ82b2k5x_")])
    return expand_to(recipe, report=True)


@pytest.fixture
def copy(grown, tmp_path):
    """A copy of it that a test may change; its recipe lies beside."""
    shutil.copytree(grown.folder.parent, tmp_path / "copy")
    return tmp_path / "copy" / "output"


@pytest.fixture
def retired(copy):
    before = read_output(copy)
    return before, retire_snapshots(str(copy), snapshots=(0,)), read_output(copy)


def files_of(output: Path) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for path in output.glob("LV*/LV*")}


def test_a_retired_snapshot_keeps_all_but_its_shards(retired, copy):
    before, found, after = retired
    assert (found.snapshots, found.num_shards, found.num_samples) == ((0,), 2, 4)
    assert found.num_bytes == sum(
        shard["num_bytes"]
        for entry in before.manifest["snapshots"][0]["granularities"].values()
        for shard in entry["shards"]
    )
    old, new = (output.manifest["snapshots"][0] for output in (before, after))
    assert new.pop("retired")
    assert {**new, "granularities": 0, "tables": 0} == {**old, "granularities": 0, "tables": 0}
    assert set(old["tables"]) < set(new["tables"])
    assert [entry["shards"] for entry in new["granularities"].values()] == [[], []]
    assert after.last == before.last
    assert files_of(copy) == {
        f"{name}/{name}-000001.{kind}" for name in ("LVLT", "LVST") for kind in ("tar", "parquet")
    }


def test_readers_see_what_is_left(retired, copy, capsys):
    assert json.loads((copy / "LVLT/sizes.json").read_text()) == {"LVLT-000001.tar": 1}
    assert main(["shards", "verify", "--deep", "--jobs", "1", "--json", str(copy)]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == []
    assert main(["shards", "ls", "--json", str(copy)]) == 0
    assert [row["samples"] for row in json.loads(capsys.readouterr().out)["shards"]] == [1, 1]
    report = json.loads((copy / "report/report.json").read_text())
    assert {node["name"]: node["samples"] for node in report["nodes"] if node["media"] != "clips"} == {
        "LVLT": 1,
        "LVST": 1,
    }
    assert {score["statistics"]["num"] for score in report["scores"]} == {1}
    assert main(["status", str(copy)]) == 0
    said = capsys.readouterr().out
    assert "snapshot 0" in said
    assert "  retired 20" in said


def test_retired_clips_are_not_built_again_and_their_shard_numbers_not_used_again(retired, copy, corpus):
    """The newest snapshot is emptied of shards of its own by hand of nobody: late clips make a third snapshot."""
    recipe = copy.parent / "recipe.toml"
    state = run_flow(recipe)
    assert state.is_completed()
    assert state.result() is None  # nothing is new
    clips = copy.parent / "clips.jsonl"
    write_metadata(clips, metadata_of(corpus))
    state = run_flow(recipe)
    assert state.is_completed(), state.result(raise_on_failure=False)
    third = read_output(copy)
    assert len(third.manifest["snapshots"]) == 3
    (account,) = [one for one in third.last["accounts"] if one["stage"] == "ingest"]
    assert account["num_known"] == 17
    retired_sources = {"-whkHrSQl47", "lzm8v_D9W90"}
    assert not retired_sources & {row["source_id"] for row in third.samples("LVLT")}
    assert len(third.samples("LVLT")) == len(third.samples("LVST")) == 2
    assert [shard["path"] for shard in third.shards("LVLT")] == ["LVLT/LVLT-000001.tar", "LVLT/LVLT-000002.tar"]
    assert main(["shards", "verify", "--jobs", "1", str(copy)]) == 0


def test_the_parents_of_retired_samples_are_kept(retired, copy, grown):
    kept = rows_of(copy / "tables/retired-LVLT-000000.parquet")
    was = [row for row in grown.samples("LVLT") if row["shard"] == 0]
    assert {row["key"]: row["parents"] for row in kept} == {row["key"]: row["parents"] for row in was}


def test_a_dry_run_changes_nothing(copy, capsys):
    before = fingerprint(copy)
    assert main(["shards", "retire", str(copy), "--older-than-days", "0", "--dry-run"]) == 0
    assert "would retire snapshots 0: 4 samples in 2 shards" in capsys.readouterr().out
    assert fingerprint(copy) == before


def test_age_spares_the_young_and_the_newest(copy, capsys):
    assert main(["shards", "retire", str(copy), "--older-than-days", "1"]) == 0
    assert main(["shards", "retire", str(copy), "--older-than-days", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "no snapshot to retire"
    assert [bool(one.retired) for one in read_manifest(str(copy)).snapshots] == [True, False]


DIES = """
import os, sys
from gex_pipeline.stages import retire
retire._clear = lambda *_: os._exit(9)  # the moment after dataset.json was written
retire.retire_snapshots(sys.argv[1], snapshots=(0,))
"""


def test_what_a_crash_leaves_is_read_by_nobody_and_removed_by_the_next_call(copy):
    files = files_of(copy)
    done = subprocess.run([sys.executable, "-c", DIES, str(copy)], cwd=ROOT, check=False, timeout=60)
    assert done.returncode == 9
    assert files_of(copy) == files
    assert [len(read_output(copy).samples(name)) for name in ("LVLT", "LVST")] == [1, 1]
    again = retire_snapshots(str(copy), snapshots=(0,))
    assert (again.snapshots, again.num_removed) == ((), 4)
    assert main(["shards", "verify", "--jobs", "1", str(copy)]) == 0
    assert retire_snapshots(str(copy), snapshots=(0,)).num_removed == 0


def test_what_cannot_be_retired_is_refused_with_a_reason(copy):
    with pytest.raises(GexError, match=r"snapshot 1 is the newest of .*, which is never retired"):
        retire_snapshots(str(copy), snapshots=(1,))
    with pytest.raises(GexError, match="has no snapshot 7; it has 0 to 1"):
        retire_snapshots(str(copy), snapshots=(7,))
    with held(open_run_of(copy).layout, "other"), pytest.raises(GexError, match="is held by process"):
        retire_snapshots(str(copy), snapshots=(0,))
    write_metadata(copy.parent / "clips.jsonl", [])
    begin(open_run_of(copy))
    with pytest.raises(GexError, match=r"snapshot 2 of .* is begun and not finished \(stage 'begun'\)"):
        retire_snapshots(str(copy), snapshots=(0,))


def open_run_of(output: Path):
    from gex_pipeline.recipe import load_recipe

    return open_run(load_recipe(output.parent / "recipe.toml"))


def test_a_snapshot_that_others_need_is_refused_and_named(running, corpus, tmp_path):
    """The long videos come first; a later snapshot's samples point into them."""
    clips = write_metadata(tmp_path / "clips.jsonl", metadata_of(corpus))
    body = source_table(corpus, clips) + NO_MODELS + LVLT
    expand_to(write_recipe(tmp_path, body))
    output = expand_to(write_recipe(tmp_path, body + LVST), accept_changes=True)
    assert len(output.manifest["snapshots"]) == 2
    write_metadata(clips, [*metadata_of(corpus), *of_another_source(corpus)])
    assert len(expand_to(tmp_path / "recipe.toml").manifest["snapshots"]) == 3
    before = fingerprint(output.folder)
    with pytest.raises(
        GexError, match=r"snapshots 0 are still needed: 4 samples of LVST in snapshot 1 \(first \w+\), "
    ):
        retire_snapshots(str(output.folder), snapshots=(0,))
    assert {path: now for path, now in fingerprint(output.folder).items() if path != "run.lock"} == before
    assert retire_snapshots(str(output.folder), snapshots=(0, 1)).snapshots == (0, 1)
    assert main(["shards", "verify", "--jobs", "1", str(output.folder)]) == 0


def of_another_source(corpus: Path) -> list[dict]:
    """The clips of one source under another id; a link stands for each file."""
    rows = []
    for row in [row for row in metadata_of(corpus) if row["YoutubeID"] == "lzm8v_D9W90"]:
        times = f"{row['Start_timestamp']}_{row['End_timestamp']}".replace(":", "-")
        link = corpus / "clips" / f"another_id1_{times}.mp4"
        if not link.exists():
            link.symlink_to(corpus / "clips" / f"{row['YoutubeID']}_{times}.mp4")
        rows.append({**row, "YoutubeID": "another_id1"})
    return rows
