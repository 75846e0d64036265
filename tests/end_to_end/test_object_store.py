"""Source and output in an object store."""

from __future__ import annotations

import time

import pytest

from gex_pipeline.errors import GexError
from tests.end_to_end.running import NO_MODELS, counted_again, error_of, metadata_of, run_flow, write_recipe

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
video = "reference"
"""


@pytest.fixture(scope="module")
def bucket(world, corpus):
    """A bucket with the clips of two sources and their metadata."""
    from pyarrow import fs

    uri = world.make_bucket("expansion")
    store, base = fs.FileSystem.from_uri(uri)
    wanted = ("lzm8v_D9W90", "VFJ82b2k5x_", "FIfI749p1zA")
    for path in sorted((corpus / "clips").iterdir()):
        if path.name.startswith(wanted):
            with store.open_output_stream(f"{base}/in/clips/{path.name}") as out:
                out.write(path.read_bytes())
    lines = (corpus / "clips.jsonl").read_text().splitlines()
    kept = [line for line, row in zip(lines, metadata_of(corpus), strict=True) if row["YoutubeID"] in wanted]
    with store.open_output_stream(f"{base}/in/clips.jsonl") as out:
        out.write(("\n".join(kept) + "\n").encode())
    return uri


def recipe_for(folder, bucket, output):
    source = (
        f'[source]\nclips = "{bucket}/in/clips*.jsonl"\nmedia = {{ kind = "files", colon = "-", '
        f'uri = "{bucket}/in/clips/{{YoutubeID}}_{{Start_timestamp}}_{{End_timestamp}}.mp4" }}\n'
    )
    return write_recipe(folder, source + NO_MODELS + BODY, output=f"{bucket}/{output}")


def objects(bucket, prefix):
    from pyarrow import fs

    store, base = fs.FileSystem.from_uri(bucket)
    found = store.get_file_info(fs.FileSelector(f"{base}/{prefix}", recursive=True))
    return {item.path.removeprefix(f"{base}/{prefix}/"): (item.size, item.mtime_ns) for item in found if item.is_file}


def download(bucket, prefix, folder):
    from pyarrow import fs

    store, base = fs.FileSystem.from_uri(bucket)
    fs.copy_files(f"{base}/{prefix}", str(folder), source_filesystem=store, destination_filesystem=fs.LocalFileSystem())
    return folder


def test_shards_arrive_in_the_store_and_a_second_run_writes_nothing(running, bucket, world, tmp_path):
    recipe = recipe_for(tmp_path, bucket, "out")
    state = run_flow(recipe, report=True)
    assert state.is_completed(), state.result(raise_on_failure=False)
    output = counted_again(download(bucket, "out", tmp_path / "copy"))
    assert {row["source_id"] for row in output.samples("LVLT")} == {"lzm8v_D9W90", "VFJ82b2k5x_"}
    assert len(output.samples("LVST")) == 2
    before = objects(bucket, "out")
    assert {"LVLT/LVLT-000000.tar", "LVLT/LVLT-000000.parquet", "LVLT/sizes.json", "report/report.html"} <= set(before)
    assert not any(".gex-write-test" in path or path.endswith(".part") for path in before)

    asked = len(world.requests)
    again = run_flow(recipe)
    assert again.is_completed()
    assert again.result() is None
    assert objects(bucket, "out") == before
    assert {method for method, _ in world.requests[asked:]} <= {"GET", "HEAD"}


def test_a_bucket_that_does_not_exist_is_known_at_once(running, bucket, tmp_path):
    recipe = recipe_for(tmp_path, bucket, "x")
    recipe.write_text(recipe.read_text().replace(f'"{bucket}/x"', '"s3://nobodys-bucket/x"'))
    started = time.monotonic()
    error = error_of(run_flow(recipe))
    assert isinstance(error, GexError)
    assert not error.transient
    assert "s3://nobodys-bucket/x" in str(error)
    assert time.monotonic() - started < 30
