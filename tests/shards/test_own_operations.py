"""Data sets with an operation that is not built in: it cuts clips short and mirrors them; joined on by a real run."""

from __future__ import annotations

from pathlib import Path

import pytest

from gex_pipeline import registry
from tests.making_runs import LVLT, clip_row, recipe_of, run_here, write_jsonl
from tests.media.making_clips import Make, make_clip

FPS, NUM_FRAMES, NUM_KEPT = 25, 25, 10
BEGINNING = f"""
from dataclasses import replace

import av
from gex_pipeline.operations.base import Made, Operation, segments_of
from gex_pipeline.recipe import VideoNodeSettings
from gex_pipeline.shard_format import SampleRecord

class Beginning(Operation):
    Parameters = VideoNodeSettings

    def make(self, group, work):
        (member,) = group.members
        made = work.folder / "beginning.mp4"
        with work.fetch(member, 0) as path, av.open(str(path)) as found, av.open(str(made), "w") as out:
            stream = out.add_stream("libx264", rate={FPS})
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            for number, frame in zip(range({NUM_KEPT}), found.decode(video=0)):
                picture = av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24")[:, ::-1].copy(), format="rgb24")
                picture.pts = number
                out.mux(stream.encode(picture))
            out.mux(stream.encode(None))
        duration_s = {NUM_KEPT / FPS}
        (whole,) = segments_of(member, 0.0, duration_s)
        segment = replace(whole, end_s=whole.start_s + duration_s)
        return Made(
            SampleRecord(
                key=group.key, granularity=self.granularity, source_id=member.source_id, parents=(member.id,),
                segments=(segment,), text=member.text, duration_s=duration_s, width_px=96, height_px=64, fps={FPS}.0,
                codec="h264", made_by="beginning",
            ),
            made,
        )
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The operation `beginning`, as an installed package has it."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package/gex_beginning.py").write_text(BEGINNING)
    info = tmp_path / "package/gex_beginning-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gex-beginning\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gex.operations]\nbeginning = gex_beginning:Beginning\n")
    monkeypatch.syspath_prepend(str(tmp_path / "package"))
    registry._known.cache_clear()
    yield
    registry._known.cache_clear()


@pytest.fixture
def output(own, tmp_path) -> Path:
    """Clips of which `beginning` makes SHORT, what is made of SHORT, and LVLT beside it."""
    (tmp_path / "clips").mkdir()
    rows = []
    for start_s in range(2):
        make_clip(tmp_path / f"clips/v1-{start_s}.mp4", start_s + 5, Make(NUM_FRAMES, fps=FPS))
        rows.append(clip_row("v1", str(start_s), str(start_s + 1), f"clip {start_s}"))
    write_jsonl(tmp_path / "clips.jsonl", rows)
    granularity = {
        "SVST": {},
        "LVLT": LVLT,
        "IMAGE": {"operation": "compress_video", "from": "LONGER"},
        "LONGER": {**LVLT, "from": "SHORT"},
        "SHORT": {"operation": "beginning", "from": "SVST", "frames": {"num": 2, "short_side_px": 64, "beside": True}},
    }
    run_here(recipe_of(tmp_path, None, granularity))
    return tmp_path / "output"


def test_a_data_set_with_an_operation_of_ones_own_passes_and_what_is_beside_it_is_compared(verify, output):
    """With the spans that are shown, plain verifying refused it; with those of the clips, looking deep did."""
    done = verify(output)
    assert (done.code, done.content["findings"]) == (0, [])
    done = verify(output, "--deep")
    found = [(finding["is_note"], finding["check"], finding["shard"]) for finding in done.content["findings"]]
    assert (done.code, found) == (0, [(True, "joint", name) for name in ("IMAGE", "LONGER", "SHORT")])
    make_clip(output.parent / "clips/v1-1.mp4", 12, Make(NUM_FRAMES, fps=FPS))
    assert verify(output, "--deep").checks() == {"joint": {"LVLT/LVLT-000000.tar"}}
