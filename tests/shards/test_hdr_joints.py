"""HDR clips that were converted while they were joined are held to their clips, and to no others."""

from __future__ import annotations

import pytest

from gex_pipeline.media.hdr import HLG, PQ
from tests.making_runs import LVLT, clip_row, recipe_of, run_here, write_jsonl
from tests.media.making_clips import draw_hdr

COLUMNS = [(573, 512, 512), (250, 480, 540), (395, 560, 490), (700, 512, 512)]


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_converted_pictures_are_those_of_their_clips_and_of_no_others(verify, tmp_path, transfer):
    (tmp_path / "clips").mkdir()
    for start_s in (0, 1):
        columns = COLUMNS[start_s:] + COLUMNS[:start_s]
        draw_hdr(tmp_path / f"clips/v1-{start_s}.mp4", transfer, columns, num_frames=25)
    rows = [clip_row("v1", str(start_s), str(start_s + 1)) for start_s in (0, 1)]
    write_jsonl(tmp_path / "clips.jsonl", rows)
    nodes = {"SVST": {}, "LVLT": LVLT, "IT": {"operation": "compress_video", "from": "LVLT"}}
    run_here(recipe_of(tmp_path, None, nodes, video={"force_encode": True}))
    done = verify(tmp_path / "output", "--deep")
    assert (done.code, done.content["findings"]) == (0, [])
    (tmp_path / "clips/v1-0.mp4").write_bytes((tmp_path / "clips/v1-1.mp4").read_bytes())
    assert "LVLT/LVLT-000000.tar" in verify(tmp_path / "output", "--deep").checks()["joint"]
