"""Images of long videos, made by a real run without Ray; then one of them is another picture."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from gex_pipeline.run_state import begin, open_run
from gex_pipeline.shard_format import SampleRecord, Segment
from gex_pipeline.shard_job import ShardJob, build_shard
from gex_pipeline.stages import build, prepare, publish
from tests.making_runs import FILES, clip_row, recipe_of, write_jsonl
from tests.report import outputs
from tests.shards import damage

LVIT = "LVIT/LVIT-000000.tar"
COLOURS = (outputs.RED, outputs.GREEN, outputs.BLUE, outputs.YELLOW, outputs.GREY)
NUM_CLIPS = {"odd": 3, "even": 4, "five": 5}  # the middle of an even number lies on a joint


@pytest.fixture(scope="module", params=["copied", "encoded"])
def made(request, tmp_path_factory) -> Path:
    """Three long videos and their middle frames, published. Read only."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "clips").mkdir()
    rows = []
    for source, num in NUM_CLIPS.items():
        for start_s in range(num):
            outputs.write_video(folder / f"clips/{source}-{start_s}.mp4", [(1, COLOURS[start_s])])
            rows.append(clip_row(source, str(start_s), str(start_s + 1), f"clip {start_s}"))
    write_jsonl(folder / "clips.jsonl", rows)
    granularity = {
        "SVST": {},
        "LVLT": {"operation": "integrate", "from": "SVST", "min_clips": 2},
        "LVIT": {"operation": "compress_video", "from": "LVLT"},
    }
    recipe = recipe_of(folder, {"media": FILES}, granularity, video={"force_encode": request.param == "encoded"})
    run = begin(open_run(recipe))
    prepare.ingest_clips(run)
    for node in publish.built_nodes(run):
        for entry in build.plan_shards(run, node):
            plan_uri = run.layout.table(f"plan-{node.name}", run.snapshot)
            build_shard(ShardJob(recipe, node.name, plan_uri, run.run_id, run_id=run.run_id), entry.shard)
    publish.publish(run)
    return folder / "output"


def records_of(output: Path) -> dict[str, tuple[SampleRecord, bytes]]:
    """The images and what their receipt says, by source."""
    names = ("key", "source_id", "text", "duration_s", "width_px", "height_px", "fps", "codec", "made_by")
    found = {}
    for row in pq.read_table(output / "LVIT/LVIT-000000.parquet").to_pylist():
        segments = tuple(Segment(**segment) for segment in row["segments"])
        record = SampleRecord(
            **{name: row[name] for name in names},
            granularity="LVIT",
            parents=tuple(row["parents"]),
            segments=segments,
            media_extension="jpg",
        )
        members = dict(damage.read_members(damage.tar(output, "LVIT")))
        found[row["source_id"]] = (record, members[f"{row['key']}.jpg"])
    return found


def test_the_middle_frames_of_long_videos_are_found_in_their_clips(verify, made):
    assert {source: len(item[0].segments) for source, item in records_of(made).items()} == NUM_CLIPS
    done = verify(made, "--deep")
    assert (done.code, done.content["findings"]) == (0, [])


def test_a_picture_of_another_clip_of_the_same_video_is_found(verify, made, tmp_path):
    output = damage.copy_of(made, tmp_path)
    pictures = records_of(made)
    (odd, green), (five, blue) = pictures["odd"], pictures["five"]
    damage.replace_shard(output, "LVIT", [(odd, blue), (five, green), pictures["even"]])
    done = verify(output, "--deep", "--granularity", "LVIT")
    assert (done.code, done.checks()) == (1, {"joint": {LVIT}})
    assert {(finding["key"], finding["found"][:20]) for finding in done.findings("joint")} == {
        (odd.key, "picture frame of seg"),
        (five.key, "picture frame of seg"),
    }


def test_an_image_whose_clip_is_gone_is_a_note(verify, made, tmp_path):
    copy = tmp_path / "all"
    shutil.copytree(made.parent, copy)
    table = copy / "output/tables/clips-000000.parquet"
    rows = pq.read_table(table)
    moved = [uri.replace(str(made.parent), str(copy)) for uri in rows["media_uri"].to_pylist()]
    pq.write_table(rows.set_column(rows.column_names.index("media_uri"), "media_uri", [moved]), table)
    (copy / "clips/even-2.mp4").unlink()
    done = verify(copy / "output", "--deep", "--granularity", "LVIT")
    assert done.code == 0
    assert [(finding["check"], finding["is_note"]) for finding in done.content["findings"]] == [("source", True)]


def as_gif(jpeg: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(jpeg)).save(buffer, "GIF")
    return buffer.getvalue()


NO_PICTURES = {
    "text": (lambda _: b"no picture", "UnidentifiedImageError: cannot identify image file"),
    "gif": (as_gif, "UnidentifiedImageError: cannot identify image file"),
    "bomb": (lambda _: damage.png_that_says_it_is(60_000, 60_000), "DecompressionBombError: Image size (3600000000"),
    "large": (lambda _: damage.png_that_says_it_is(6001, 6000), "DecompressionBombError: it has 6001 x 6000 pixels"),
}


@pytest.mark.parametrize("kind", NO_PICTURES)
def test_an_image_that_does_not_decode_is_told_once_and_the_others_are_looked_at(verify, made, tmp_path, kind):
    """A few bytes that say they are a picture of 60,000 x 60,000 pixels ended the whole command."""
    output = damage.copy_of(made, tmp_path)
    pictures = records_of(made)
    odd, content = pictures["odd"]
    change, said = NO_PICTURES[kind]
    damage.replace_shard(output, "LVIT", [(odd, change(content)), pictures["even"], pictures["five"]])
    done = verify(output, "--deep", "--granularity", "LVIT")
    assert done.checks() == {"picture": {LVIT}}
    ((key, found),) = [(finding["key"], finding["found"]) for finding in done.findings("picture")]
    assert (key, found.startswith(said)) == (odd.key, True), found
