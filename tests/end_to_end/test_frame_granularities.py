"""Granularities of frames through the real flow: packed clips as frames, long samples with frames beside videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gex_pipeline.cli.main import main
from tests.end_to_end.running import NO_MODELS, expand_to, run_flow, sums, write_metadata, write_recipe
from tests.media.making_clips import Make, make_clip
from tests.trainer.outputs import numbers_of, settings_of
from trainer.catalog import read_catalog
from trainer.loader import Loader, Rank, order_of

NUM_SOURCES, NUM_CLIPS, NUM_FRAMES, SIZE_PX = 3, 3, 12, (96, 96)
NUM = {"SVST": 4, "LVLT": 6, "LVST": 6, "FRLT": 8, "FRST": 8}
BODY = """
[granularity.SVST]
pack = true
frames = { num = 4, short_side_px = 48 }
[granularity.LVLT]
operation = "integrate"
from = "SVST"
min_clips = 3
frames = { num = 6, short_side_px = 64, beside = true }
[granularity.LVST]
operation = "compress_text"
from = "LVLT"
video = "reference"
summarizer = { backend = "extractive" }
gates = {}
[granularity.FRLT]
operation = "integrate"
from = "SVST"
min_clips = 3
frames = { num = 8, short_side_px = 64 }
[granularity.FRST]
operation = "compress_text"
from = "FRLT"
summarizer = { backend = "extractive" }
gates = {}
"""


def source_name(number: int) -> str:
    return f"numbered{number:03d}"


@pytest.fixture(scope="module")
def made(running, tmp_path_factory):
    """The output and its recipe; clip n of source m says 4 * m + n in every picture."""
    folder = tmp_path_factory.mktemp("frames")
    (folder / "clips").mkdir()
    rows = []
    for source in range(NUM_SOURCES):
        for clip in range(NUM_CLIPS):
            name = f"{source}-{clip}.mp4"
            make_clip(folder / "clips" / name, 4 * source + clip, Make(num_frames=NUM_FRAMES, size_px=SIZE_PX))
            caption = f"A brown dog runs over a green field to house {source}. Then it sleeps by the wooden door {clip}"
            times = {"Start_timestamp": float(clip), "End_timestamp": clip + NUM_FRAMES / 25}
            rows.append({"YoutubeID": source_name(source), **times, "Caption": caption, "file": name})
    write_metadata(folder / "clips.jsonl", rows)
    media = f'{{ kind = "column", column = "file", root = "{folder}/clips" }}'
    source = f'[source]\nclips = "{folder}/clips.jsonl"\nmedia = {media}\n'
    recipe = write_recipe(folder, source + NO_MODELS + BODY)
    return expand_to(recipe, report=True), recipe


def shown(clips: list[int], num: int) -> list[tuple[int, int]]:
    """(clip, frame) in the middle of `num` equal spans of these clips, one after the other."""
    frames = [(clip, frame) for clip in clips for frame in range(NUM_FRAMES)]
    return [frames[(2 * number + 1) * len(frames) // (2 * num)] for number in range(num)]


def clips_of(row) -> list[int]:
    return [
        4 * int(segment["source_id"].removeprefix("numbered")) + int(segment["start_s"]) for segment in row["segments"]
    ]


def test_training_reads_the_frames_of_the_right_clips_in_all_granularities(made):
    output, _ = made
    rows = {row["key"]: row for name in NUM for row in output.samples(name)}
    chosen = {name: {"num_frames": num, "n_iter_video": 1, "n_iter_text": 1} for name, num in NUM.items()}
    settings = settings_of(output.folder, granularities=chosen, batch_size=1, image_size_px=48)
    seen: dict[str, set[str]] = {name: set() for name in NUM}
    with read_catalog(settings.dataset, None, list(NUM)) as catalog:
        kinds = {name: catalog.sample(name, 0).media_extension for name in NUM}
        places = {name: Path(catalog.sample(name, 0).media_uri).parent.name for name in NUM}
        part = catalog.split(0.0).training
        order = order_of(settings, part)
        with Loader(settings, part, order, range(order.steps_per_epoch), Rank(0, 1, lambda counts: counts)) as loader:
            for batch in loader:
                assert batch.damaged == []
                for key, frames in zip(batch.keys, batch.frames_BT3HW, strict=True):
                    seen[batch.granularity].add(key)
                    expected = shown(clips_of(rows[key]), NUM[batch.granularity])
                    assert numbers_of(np.asarray(frames)) == expected, batch.granularity
    assert kinds == dict.fromkeys(NUM, "frames")
    assert places == {"SVST": "SVST", "LVLT": "LVLT", "LVST": "LVLT", "FRLT": "FRLT", "FRST": "FRST"}
    assert {name: len(keys) for name, keys in seen.items()} == {**dict.fromkeys(NUM, 3), "SVST": 9}


def test_the_manifest_says_which_granularities_are_frames_only(made):
    output, _ = made
    kinds = {name: entry["media_extension"] for name, entry in output.last["granularities"].items()}
    only = dict.fromkeys(("SVST", "FRLT", "FRST"), "frames")
    assert kinds == only | {"LVLT": "mp4", "LVST": "mp4"}


def test_nothing_is_wrong_with_it_when_every_frame_is_looked_at(made, capsys):
    output, _ = made
    assert main(["shards", "verify", str(output.folder), "--deep", "--jobs", "1"]) == 0, capsys.readouterr().out
    assert "nothing is wrong" in capsys.readouterr().out


def test_the_report_shows_frames_where_there_is_no_video(made):
    output, _ = made
    page = (output.folder / "report" / "report.html").read_text()
    assert "4 of 8 frames, which stand in the video" in page
    assert (output.folder / "report" / "contact-sheet.png").stat().st_size > 1000


def test_the_tools_work_on_frames(made, tmp_path, capsys):
    output, _ = made
    target = str(output.folder)
    row = output.samples("FRST")[0]
    assert main(["shards", "show", row["key"], target]) == 0
    said = capsys.readouterr().out
    assert "frames    8 of 64x64 px" in said
    assert main(["shards", "export", row["key"], target, "--to", str(tmp_path / "x")]) == 0
    names = sorted(path.name for path in (tmp_path / "x").iterdir())
    assert names == sorted(f"{row['key']}.{kind}" for kind in ("txt", "json", *(f"f00{n}.jpg" for n in range(8))))
    tar = str(output.folder / "LVLT/LVLT-000000.tar")
    for arguments in (
        ["ls", target],
        ["stats", target],
        ["find", "frames.num = 6 AND frames_size_bytes > 0", target],
        ["sample", "9", target, "--to", str(tmp_path / "y")],
        ["sheet", target, "--granularity", "SVST", "--out", str(tmp_path / "s.png")],
        ["diff", target, target],
        ["show", output.samples("LVLT")[0]["key"], tar],
        ["verify", tar, str(output.folder / "SVST/SVST-000000.tar"), "--jobs", "1"],
        ["sheet", str(output.folder / "SVST/SVST-000000.tar"), "--out", str(tmp_path / "t.png")],
    ):
        assert main(["shards", *arguments]) == 0, (arguments, capsys.readouterr())
    assert "6 samples" in capsys.readouterr().out
    assert not list((tmp_path / "y").glob("*.frames"))


def test_lost_shards_of_frames_are_built_again_to_the_same_bytes(made):
    output, recipe = made
    before = sums(output.folder)
    for name in NUM:
        (output.folder / f"{name}/{name}-000000.tar").unlink()
    assert run_flow(recipe).is_completed()
    assert sums(output.folder) == before
