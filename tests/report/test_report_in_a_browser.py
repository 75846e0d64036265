"""The report as a browser lays it out, plays it and prints it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gex_pipeline.report import charts
from gex_pipeline.report.axis import value_axis
from gex_pipeline.report.build import build_report
from gex_pipeline.report.figures import Distribution, NodeFigures, Panel
from gex_pipeline.report.work import Span, StageWork, Work, work_chart
from gex_pipeline.shard_format import Segment
from gex_pipeline.shards.manifest import read_manifest
from tests.browse.chromium import BINARY, Chromium
from tests.report import outputs

pytestmark = pytest.mark.skipif(BINARY is None, reason="there is no Chromium here (Debian: apt install chromium)")
LONG = "channel_chronicle_of_many_clips1"
STYLE = (Path(charts.__file__).parent / "style.css").read_text(encoding="utf-8")
# The boxes of the texts of every chart, in pixels: [left, top, right, bottom, words].
BOXES = """[...document.querySelectorAll('svg')].map(svg => [svg, ...svg.querySelectorAll('text')].map(
    e => (b => [b.left, b.top, b.right, b.bottom, e.textContent])(e.getBoundingClientRect())))"""


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    found = Chromium(tmp_path_factory.mktemp("chromium"))
    yield found
    found.close()


def long_named_charts() -> list[str]:
    """Every chart that names granularities or has ticks at its ends, with the longest name a recipe may give."""
    statistics = {"mean": 1234.5, "median": 1180.2, "std": 1.0, "min": 1.0, "max": 2345.0, "num": 100}
    axes = [value_axis(1, 1_000_000, 36, whole=True), value_axis(100.0, 100.4, 36), value_axis(0.30121, 0.30126, 36)]
    panels = []
    for axis in axes:
        rows = (("SVST", True), (LONG, False))
        counts = (1,) * axis.num_bins
        shown = tuple(Distribution("num_words", name, source, statistics, counts) for name, source in rows)
        panels.append(str(charts.panel_chart(Panel("num_words", axis, shown), [LONG])))
    nothing = {"held_cpu_s": 0.0, "held_gpu_s": 0.0, "num_samples": 0, "bytes_read": 0, "bytes_written": 0}
    stages = [
        StageWork(name, of, 100.0, 1.0, num_shards=0, longest_shard_s=None, **nothing)
        for name, of in (("ingest", None), ("build", LONG), ("summarise", LONG))
    ]
    spans = tuple(Span(one.stage, one.granularity, False, 100.0 * at, 100.0) for at, one in enumerate(stages))
    nodes = [
        NodeFigures("SVST", "source", "", None, "clips", 117_000_000, 4_000_000, 0, 0, 1.17e9, 1_600_000_000, {}),
        NodeFigures(LONG, LONG, LONG, "SVST", "video", 123_456_789, 1, 1, 1, 9.9e8, 987_654_321_000, {}),
        NodeFigures("LVLT", "integrate", "⊕", "SVST", "video", 1, 1, 1, 1, 9.0, 987, {}),
    ]
    work = str(work_chart(Work(0, tuple(stages), spans), [LONG]))
    return [*panels, work, str(charts.graph_chart(nodes, [LONG]))]


def test_no_text_of_a_chart_meets_another_or_leaves_it(window: Chromium, tmp_path: Path) -> None:
    """A name of 32 letters ran into the mean beside it and into its own lane; a tick at the end was cut off."""
    drawn = long_named_charts()
    cards = "".join(f"<div class='card' style='width: 600px'>{chart}</div>" for chart in drawn)
    (tmp_path / "charts.html").write_text(f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>{cards}")
    window.open((tmp_path / "charts.html").as_uri())
    found = window.run(BOXES)
    assert len(found) == len(drawn)
    for (left, top, right, bottom, _), *texts in found:
        for number, one in enumerate(texts):
            assert left - 1 <= one[0] and one[2] <= right + 1 and top - 1 <= one[1] and one[3] <= bottom + 1, one
            for other in texts[:number]:
                apart = one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] or other[1] >= one[3]
                assert apart, (one, other)
    assert found[1][1][4] == "100.0"


@pytest.fixture(scope="module")
def many_segments(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of an output of which one sample has 150 segments."""
    output = Path(outputs.make_output(tmp_path_factory.mktemp("many"), summaries=False))
    record, _ = outputs.joined_samples()[0]
    segments = tuple(
        Segment(outputs.clip_id(number), "alpha", number * 0.2, 0.2, number * 1.0, number + 0.2, "a clip")
        for number in range(150)
    )
    video = outputs.write_video(output.parent / "many.mp4", [(0.2, outputs.RED)] * 150).read_bytes()
    whole = replace(record, segments=segments, duration_s=30.0)
    shard = outputs.write_shard(output, "LVLT", [(whole, video)])
    manifest = read_manifest(str(output))
    assert manifest is not None
    (entry,) = manifest.snapshots
    nodes = {**entry.granularities, "LVLT": replace(entry.granularities["LVLT"], shards=(shard,))}
    outputs.publish(output, replace(manifest, snapshots=(replace(entry, granularities=nodes),)))
    return Path(build_report(str(output))).as_uri()


def test_a_time_line_of_many_segments_stays_in_its_card(window: Chromium, many_segments: str) -> None:
    window.open(many_segments)
    line = "document.querySelector('.timeline')"
    assert window.run(f"{line}.children.length") == 150
    assert window.run(f"{line}.scrollWidth <= {line}.clientWidth")
    ends = window.run(f"[{line}, {line}.lastElementChild].map(e => e.getBoundingClientRect().right)")
    assert ends[0] == pytest.approx(ends[1], abs=0.5)


def test_a_segment_is_played_by_keys_alone(window: Chromium, many_segments: str) -> None:
    window.open(many_segments)
    window.wait("document.querySelector('video').readyState >= 1")
    window.run("document.querySelector('video').focus()")
    for _ in range(20):  # the video's own controls come first
        window.key("Tab")
        if window.run("document.activeElement.matches('.segment')"):
            break
    window.key("Tab")
    window.key("Tab")
    window.key("Enter")
    window.wait("document.querySelector('video').currentTime > 0.4")
    assert window.run("document.activeElement.dataset.from") == "0.4"


def test_a_picture_says_in_words_what_its_text_says(window: Chromium, many_segments: str) -> None:
    window.open(many_segments)
    texts = window.run("[...document.querySelectorAll('.sample img')].map(image => image.alt)")
    assert len(texts) == 5
    assert {"a red field", "then green", outputs.HOSTILE} <= set(texts)


def test_bars_and_legends_are_printed(window: Chromium, many_segments: str) -> None:
    """Browsers leave out backgrounds when they print, which bars, time lines and legends are."""
    window.open(many_segments)
    window.call("Emulation.setEmulatedMedia", media="print")
    selectors = [".bar i", ".legend i", ".timeline i", ".tag"]
    adjusts = window.run(
        f"{json.dumps(selectors)}.map(s => getComputedStyle(document.querySelector(s)).printColorAdjust)"
    )
    window.call("Emulation.setEmulatedMedia", media="")
    assert adjusts == ["exact"] * len(selectors)
