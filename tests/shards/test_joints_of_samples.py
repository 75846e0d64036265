"""Long videos joined out of long videos that had been re-encoded, by a real run; then a source clip is another one."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.making_runs import LVLT, clip_row, recipe_of, run_here, write_jsonl
from tests.media.making_clips import Make, make_clip, picture_of

SIZES_PX = {0: (96, 64), 1: (64, 48)}  # by start: no stream copy can join them
LONGER = {"operation": "integrate", "from": "LVLT", "by": "channel", "min_clips": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """LVLT of clips of two sizes, and VL of two of these. Read only."""
    folder = tmp_path_factory.mktemp("joined")
    (folder / "clips").mkdir()
    rows = []
    for number, source in enumerate(("v1", "v2")):
        for start_s, size_px in SIZES_PX.items():
            make_clip(folder / f"clips/{source}-{start_s}.mp4", 2 * number + start_s, Make(25, size_px))
            rows.append(clip_row(source, str(start_s), str(start_s + 1), f"{source} at {start_s}", channel="c"))
    write_jsonl(folder / "clips.jsonl", rows)
    video = {"height_px": 48, "fps": 25, "crf": 26}
    run_here(recipe_of(folder, None, {"SVST": {}, "LVLT": LVLT, "VL": LONGER}, video=video))
    return folder


def test_packets_copied_out_of_encoded_samples_are_held_to_what_encoding_costs(verify, made):
    """`copy` is the last step only: the pictures lie as far from those of the clips as the first step took them."""
    rows = {name: pq.read_table(made / f"output/{name}/{name}-000000.parquet").to_pylist() for name in ("LVLT", "VL")}
    assert {name: {row["made_by"] for row in found} for name, found in rows.items()} == {
        "LVLT": {"encode"},
        "VL": {"copy"},
    }
    assert [len(row["segments"]) for row in rows["VL"]] == [4]
    done = verify(made / "output", "--deep")
    assert (done.code, done.content["findings"]) == (0, [])


def test_another_clip_is_found_through_both_steps(verify, made, tmp_path):
    copy = Path(shutil.copytree(made, tmp_path / "all"))
    table = copy / "output/tables/clips-000000.parquet"
    rows = pq.read_table(table)
    moved = [uri.replace(str(made), str(copy)) for uri in rows["media_uri"].to_pylist()]
    pq.write_table(rows.set_column(rows.column_names.index("media_uri"), "media_uri", [moved]), table)
    make_clip(copy / "clips/v2-1.mp4", 12, Make(25, SIZES_PX[1]))
    done = verify(copy / "output", "--deep")
    assert done.checks() == {"joint": {"LVLT/LVLT-000000.tar", "VL/VL-000000.tar"}}
    assert {finding["found"].partition(" frame of")[0] for finding in done.findings("joint")} == {"first", "last"}


@pytest.fixture(scope="module")
def resampled(tmp_path_factory) -> Path:
    """VL of two LVLT of other rates: joints inside them lie between two frames of it. Read only."""
    folder = tmp_path_factory.mktemp("resampled")
    (folder / "clips").mkdir()
    rows = []
    for source, fps in (("v1", 24), ("v2", 30)):
        for start_s in range(4):
            still = picture_of(40 * start_s + fps)
            make_clip(folder / f"clips/{source}-{start_s}.mp4", 0, Make(fps + 1, fps=fps, turn=partial(_shown, still)))
            end_s = start_s + (fps + 1) / fps
            rows.append(clip_row(source, str(start_s), str(end_s), f"{source} at {start_s}", channel="c"))
    write_jsonl(folder / "clips.jsonl", rows)
    run_here(recipe_of(folder, None, {"SVST": {}, "LVLT": LVLT, "VL": LONGER}, video={"fps": 25}))
    return folder


def _shown(still: np.ndarray, _: np.ndarray) -> np.ndarray:
    return still


def test_a_joint_between_two_frames_is_no_fault(verify, resampled):
    """A sound data set ended with findings of "differs by 103.8 of 255", a frame away from the joint."""
    [row] = pq.read_table(resampled / "output/VL/VL-000000.parquet").to_pylist()
    assert (row["made_by"], row["fps"]) == ("encode", 25.0)
    assert any(round(segment["offset_s"] * 25, 6) % 1 for segment in row["segments"])
    done = verify(resampled / "output", "--deep")
    assert (done.code, done.content["findings"]) == (0, [])
