"""Building damaged shards again: what one snapshot's cannot be costs no other one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gex_pipeline import storage
from gex_pipeline.errors import GexError
from gex_pipeline.run_state import open_run
from gex_pipeline.stages.rebuild import find_damaged, rebuild
from tests.making_runs import clip_row, recipe_of, run_here, write_jsonl

CLIP_S = 0.48
MEDIA = {"kind": "column", "column": "file", "root": "clips"}


def row(name):
    return clip_row(name[0], int(name[2]), int(name[2]) + CLIP_S, file=f"{name}.mp4")


@pytest.fixture
def three_nights(tmp_path, small_clips, ray_local):
    """A run over three snapshots, a clip each; no shard of theirs is there any more."""
    (tmp_path / "clips").symlink_to(small_clips)
    recipe = recipe_of(tmp_path, {"media": MEDIA, "clips": "clips-*.jsonl"}, {"SVST": {"pack": True}})
    for name in ("a-0", "a-1", "b-0"):
        write_jsonl(tmp_path / f"clips-{name}.jsonl", [row(name)])
        assert run_here(recipe) is not None
    for tar in shards(tmp_path):
        tar.unlink()
    return open_run(recipe)


def shards(folder):
    return sorted((folder / "output/SVST").glob("*.tar"))


def test_a_snapshot_that_cannot_be_built_again_stops_no_later_one(three_nights, tmp_path):
    """The refused recipe of an old snapshot kept all damaged shards of the later ones from being built again."""
    run = three_nights
    first, *later = run.manifest.snapshots
    refused = replace(first, recipe_hash="0123", recipe={**first.recipe, "speed": 3})
    run = replace(run, manifest=replace(run.manifest, snapshots=(refused, *later)))
    storage.remove(run.layout.table("plan-SVST", 1))
    with pytest.raises(GexError) as raised:
        rebuild(run, find_damaged(run))
    assert [tar.name for tar in shards(tmp_path)] == ["SVST-000002.tar"]
    assert str(raised.value).startswith("snapshot 0 was made by version ")
    assert "let that version build it. Also: SVST/SVST-000001.tar: missing; it cannot be built" in str(raised.value)
    assert [damage.snapshot for damage in find_damaged(run)] == [0, 1]
