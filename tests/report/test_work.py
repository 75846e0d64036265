from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from gex_pipeline.report.build import build_report
from gex_pipeline.report.wording import NOTHING
from gex_pipeline.report.work import Span, StageWork, Work, work_chart
from gex_pipeline.shards.manifest import read_manifest
from tests.report import outputs
from tests.report.page import Page

BEGAN_S = 1_790_000_000.0


def row(stage: str, granularity: str | None, shard: int | None, started_s: float, seconds: float, **more) -> dict:
    nothing = dict.fromkeys(("held_cpu_s", "held_gpu_s", "num_samples", "bytes_read", "bytes_written"))
    place = {"stage": stage, "granularity": granularity, "shard": shard, "host": "here", "is_complete": True}
    return {**nothing, **place, "started_s": BEGAN_S + started_s, "seconds": seconds, "cpu_s": seconds / 2, **more}


# The first session was killed while it built: its stage has no row. The second went on ten hours later.
ROWS = [
    row("ingest", None, None, 0, 10),
    row("build", "SVST", 0, 10, 40, num_samples=3, bytes_read=1000, bytes_written=1500),
    row("build", "SVST", 1, 10, 20, num_samples=2, bytes_read=400, bytes_written=500),
    row("summarise", "LVST", None, 36000, 50, held_cpu_s=75.0, held_gpu_s=100.0),
]


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    folder = Path(outputs.make_output(tmp_path_factory.mktemp("worked")))
    manifest = read_manifest(str(folder))
    (only,) = manifest.snapshots
    table = outputs.write_rows(folder, "timeline-000000", ROWS)
    outputs.publish(folder, replace(manifest, snapshots=(replace(only, tables=(*only.tables, table)),)))
    build_report(str(folder))
    return folder


def test_a_report_of_a_run_that_did_not_count_does_not_speak_of_it(page: Page) -> None:
    assert "work" not in [attributes.get("id") for attributes in page.of("section")]


def test_stages_are_summed_in_the_order_they_began(output: Path) -> None:
    work = json.loads((output / "report/report.json").read_bytes())["work"]
    figures = [(one["stage"], one["seconds"], one["cpu_s"], one["num_shards"]) for one in work["stages"]]
    assert figures == [("ingest", 10, 5, 0), ("build", 40, 30, 2), ("summarise", 50, 25, 0)]
    build = work["stages"][1]
    assert (build["num_samples"], build["bytes_read"], build["bytes_written"]) == (5, 1400, 2000)
    assert [one["longest_shard_s"] for one in work["stages"]] == [None, 40, None]  # none where there are no shards
    total = work["total"]
    assert (total["seconds"], total["cpu_s"], total["held_cpu_s"], total["held_gpu_s"]) == (100, 60, 75, 100)
    assert (total["bytes_read"], total["bytes_written"], total["num_shards"]) == (1400, 2000, 2)


def test_the_page_shows_the_table_and_leaves_the_night_out_of_the_picture(output: Path) -> None:
    text = Page((output / "report/report.html").read_text(encoding="utf-8")).text
    assert "Where the time went" in text
    assert f"SVST build 40 s 30 {NOTHING} {NOTHING} 2 40 s 1.4 kB 2 kB" in " ".join(text.split())
    assert "9.99 h later" in text


def test_bars_are_where_the_stages_were_and_shards_as_high_as_were_built_at_once() -> None:
    nothing = {"held_cpu_s": 0.0, "held_gpu_s": 0.0, "num_samples": 0, "bytes_read": 0, "bytes_written": 0}
    whole = StageWork("build", "SVST", 100.0, 1.0, num_shards=3, longest_shard_s=50.0, **nothing)
    spans = [Span("build", "SVST", False, 0.0, 100.0)]
    spans += [Span("build", "SVST", True, *times) for times in ((0.0, 50.0), (0.0, 50.0), (50.0, 50.0))]
    chart = str(work_chart(Work(0, (whole,), tuple(spans)), ["SVST"]))
    (bar,) = re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', chart)
    assert (float(bar[0]), float(bar[1])) == (140, 784)  # all of the lane
    heights = [float(height) for height in re.findall(r"M[\d.]+ [\d.]+v-([\d.]+)h", chart)]
    assert len(heights) == 400
    assert (heights[10], heights[190]) == (22, 22)  # two at once: the highest of the picture
    assert (heights[210], heights[390]) == (11, 11)
    assert "later" not in chart


@pytest.mark.parametrize(
    ("worked_s", "pause_s", "is_left_out"),
    [(50, 59, False), (50, 61, True), (5000, 299, False), (5000, 301, True)],
)
def test_a_pause_is_left_out_over_a_minute_and_where_that_saves_room(worked_s, pause_s, is_left_out) -> None:
    """Ray that starts is no pause; a pause is drawn as wide as three hundredths of the work."""
    nothing = {"held_cpu_s": 0.0, "held_gpu_s": 0.0, "num_samples": 0, "bytes_read": 0, "bytes_written": 0}
    whole = StageWork("ingest", None, 2.0 * worked_s, 1.0, num_shards=0, longest_shard_s=None, **nothing)
    spans = tuple(Span("ingest", None, False, started_s, worked_s) for started_s in (0.0, worked_s + pause_s))
    chart = str(work_chart(Work(0, (whole,), spans), []))
    assert ("later" in chart) == is_left_out
    widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', chart)]
    shown_s = 0.03 * 2 * worked_s if is_left_out else pause_s
    assert widths == pytest.approx([784 * worked_s / (2 * worked_s + shown_s)] * 2, abs=0.1)
