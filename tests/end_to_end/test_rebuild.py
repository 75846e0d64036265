"""Published shards that are damaged for real, and the run that builds them again."""

from __future__ import annotations

import shutil

import pytest

from tests.end_to_end.running import (
    NO_MODELS,
    error_of,
    expand_to,
    metadata_of,
    run_flow,
    source_table,
    sums,
    write_metadata,
    write_recipe,
)
from tests.end_to_end.test_retry import BODY, FIVE, FOUR, media_path


@pytest.fixture(scope="module")
def built(running, corpus, tmp_path_factory):
    """An output over a corpus of its own that lacks one clip's media: recipe, corpus, sums of the tars."""
    folder = tmp_path_factory.mktemp("rebuilt")
    ours = folder / "corpus"
    shutil.copytree(corpus, ours)
    missing = media_path(ours, next(row for row in metadata_of(ours) if row["YoutubeID"] == FIVE))
    missing.rename(folder / "aside.mp4")
    recipe = write_recipe(folder, source_table(ours) + NO_MODELS + BODY)
    expand_to(recipe)
    (folder / "aside.mp4").rename(missing)  # a shard that was built without it is built without it again
    return recipe, ours, sums(folder / "output")


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(bytes(content))


def test_what_a_listing_shows_is_built_again_to_the_same_bytes(built):
    recipe, _, before = built
    output = recipe.parent / "output"
    with (output / "LVLT/LVLT-000000.tar").open("r+b") as tar:
        tar.truncate(5000)
    (output / "LVST/LVST-000000.tar").unlink()
    (output / "SVST/SVST-000001.parquet").unlink()
    assert run_flow(recipe).result() is None  # nothing new came of it
    assert sums(output) == before
    assert (output / "SVST/SVST-000001.parquet").exists()
    assert not list((output / "tables/losses").glob("*"))


def test_bytes_that_went_wrong_in_their_place_are_found_by_reading_and_built_again(built):
    recipe, _, before = built
    output = recipe.parent / "output"
    flip(output / "IT/IT-000001.tar", 3000)
    flip(output / "LVLT/LVLT-000000.parquet", -20)
    assert run_flow(recipe).is_completed()
    assert sums(output) != before  # a listing does not show it
    assert run_flow(recipe, check_bytes=True).is_completed()
    assert sums(output) == before
    assert expand_to(recipe, check_bytes=True).granularities == ["SVST", "LVLT", "LVST", "IT"]


def test_a_shard_whose_media_are_gone_is_named_and_nothing_is_put_in_its_place(built):
    recipe, ours, before = built
    output = recipe.parent / "output"
    tar = output / "SVST/SVST-000000.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[:4000])
    clips = shutil.move(ours / "clips", ours / "elsewhere")
    try:
        error = error_of(run_flow(recipe))
    finally:
        shutil.move(clips, ours / "clips")
    assert "SVST/SVST-000000.tar is not what was published" in str(error)
    assert "media_missing. Nothing was replaced" in str(error)
    assert tar.read_bytes() == whole[:4000]
    assert run_flow(recipe).is_completed()
    assert sums(output) == before


def test_what_was_moved_since_is_built_again_from_where_it_lies_now(running, corpus, tmp_path):
    """The plans of then name the places of then, of the clips as well as of the output itself."""
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(corpus / "clips", old / "clips")
    rows = [row for row in metadata_of(corpus) if row["YoutubeID"] in (FOUR, FIVE)]
    write_metadata(old / "clips.jsonl", [row for row in rows if row["YoutubeID"] == FOUR])
    uri = "clips/{YoutubeID}_{Start_timestamp}_{End_timestamp}.mp4"
    source = f'[source]\nclips = "clips.jsonl"\nmedia = {{ kind = "files", uri = "{uri}", colon = "-" }}\n'
    first = expand_to(write_recipe(old, source + NO_MODELS + BODY))
    tars = [shard["path"] for name in first.granularities for shard in first.shards(name)]
    assert {tar.partition("/")[0] for tar in tars} == {"SVST", "LVLT", "LVST", "IT"}
    old.rename(new)
    write_metadata(new / "clips.jsonl", rows)
    recipe, output = new / "recipe.toml", new / "output"
    assert {row["source_id"] for row in expand_to(recipe).samples("LVLT")} == {FOUR, FIVE}
    before = sums(output)
    for tar in tars:
        (output / tar).write_bytes(b"torn")
    assert run_flow(recipe).result() is None
    assert sums(output) == before
    assert not [path for path in (output / "tables/parts").rglob("*") if path.is_file()]
