"""Where the time of a run went: its table ``timeline`` in, figures by stage and a picture of its course out.

A run that went on another day has a pause between its stages; the picture leaves it out and says how long it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from gex_pipeline import storage
from gex_pipeline.report.charts import colour_of
from gex_pipeline.report.svg import Svg, fitted
from gex_pipeline.report.wording import duration
from gex_pipeline.shards.manifest import Manifest
from gex_pipeline.tables import Database
from gex_pipeline.timeline import NAME

_WIDTH_PX, _LANE_PX, _RIGHT_PX, _TOP_PX = 1000, 34, 76, 8
_LEFT_PX = (140, 320)  # at least and at most, for the names of the lanes
_LETTER_PX = 8.0  # of a bold name in a wide font
_NUM_BINS = 400
_PAUSE_S = 60.0  # at least; Ray starting, say, is none
_PAUSE_SHARE = 0.03  # of the working time: the width that pauses are drawn with


@dataclass(frozen=True)
class StageWork:
    """What one stage of one granularity spent, over all sessions of the run and all its shards."""

    stage: str
    granularity: str | None
    seconds: float  # by the clock
    cpu_s: float
    held_cpu_s: float
    held_gpu_s: float
    num_shards: int
    longest_shard_s: float | None
    num_samples: int
    bytes_read: int
    bytes_written: int


@dataclass(frozen=True)
class Span:
    """A stretch of time in which a stage, or one of its shards, was worked on."""

    stage: str
    granularity: str | None
    is_shard: bool
    started_s: float
    seconds: float

    @property
    def ended_s(self) -> float:
        """Unix time."""
        return self.started_s + self.seconds


@dataclass(frozen=True)
class Work:
    """A snapshot's run."""

    snapshot: int
    stages: tuple[StageWork, ...]
    spans: tuple[Span, ...]

    @property
    def total(self) -> StageWork:
        """All stages together."""
        summed: dict[str, Any] = {
            field.name: sum(getattr(one, field.name) for one in self.stages)
            for field in fields(StageWork)
            if field.type in ("float", "int")
        }
        return StageWork(stage="all", granularity=None, longest_shard_s=None, **summed)


def collect_work(database: Database, output_uri: str, manifest: Manifest) -> Work | None:
    """What the run of the newest snapshot spent; None where an earlier version made it, which did not count."""
    newest = manifest.snapshots[-1]
    name = f"tables/{NAME}-{newest.snapshot:06d}.parquet"
    if name not in newest.tables:
        return None
    database.view_parquet("timeline", [storage.join(output_uri, name)])
    spans = database.query(
        "SELECT stage, granularity, shard IS NOT NULL AS is_shard, started_s, seconds FROM timeline ORDER BY started_s"
    )
    stages = tuple(StageWork(**row) for row in database.rows("report_work"))
    return Work(newest.snapshot, stages, tuple(Span(**row) for row in spans))


class _Clock:
    """Working time: Unix time without long pauses, from 0 at the first beginning."""

    def __init__(self, spans: Iterable[Span]) -> None:
        merged: list[list[float]] = []
        for span in sorted(spans, key=lambda one: one.started_s):
            if merged and span.started_s <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], span.ended_s)
            else:
                merged.append([span.started_s, span.ended_s])
        shown_s = sum(end - start for start, end in merged) * _PAUSE_SHARE
        self._anchors = [(merged[0][0], 0.0)]  # where the clock was set: Unix time, working time
        self.pauses: list[tuple[float, float]] = []  # working time of its middle, how long it was
        for (_, before_s), (after_s, _) in pairwise(merged):
            pause_s = after_s - before_s
            if pause_s > max(shown_s, _PAUSE_S):
                at_s = self.position(before_s)
                self.pauses.append((at_s + shown_s / 2, pause_s))
                self._anchors.append((after_s, at_s + shown_s))
        self.length_s = self.position(merged[-1][1])

    def position(self, unix_s: float) -> float:
        """Working time at a moment."""
        since_s, at_s = next(pair for pair in reversed(self._anchors) if pair[0] <= unix_s or pair is self._anchors[0])
        return at_s + max(unix_s - since_s, 0.0)


def work_chart(work: Work, names: Sequence[str]) -> Markup:
    """A lane a stage: when it went on, and darker how many of its shards were worked on at once."""
    clock = _Clock(work.spans)
    titles = [f"{one.granularity} {one.stage}" if one.granularity else one.stage for one in work.stages]
    widest_px = max(map(len, titles), default=0) * _LETTER_PX + 12
    left_px = min(max(widest_px, _LEFT_PX[0]), _LEFT_PX[1])
    span_px = _WIDTH_PX - left_px - _RIGHT_PX
    scale = span_px / max(clock.length_s, 1e-9)
    height_px = _TOP_PX + _LANE_PX * len(work.stages) + 22
    svg = Svg(_WIDTH_PX, height_px, f"Course of the run of snapshot {work.snapshot}")
    lanes = [
        [span for span in work.spans if (span.stage, span.granularity) == (one.stage, one.granularity)]
        for one in work.stages
    ]
    shards = [_at_once([span for span in lane if span.is_shard], clock) for lane in lanes]
    highest = max((max(heights, default=0.0) for heights in shards), default=0.0) or 1.0
    for number, (one, title, lane, heights) in enumerate(zip(work.stages, titles, lanes, shards, strict=True)):
        base_px = _TOP_PX + _LANE_PX * (number + 1) - 6
        colour = colour_of(one.granularity or "", names) if one.granularity else "source"
        svg.add("line", x1=left_px, x2=_WIDTH_PX - _RIGHT_PX, y1=base_px, y2=base_px, class_="grid")
        for span in (span for span in lane if not span.is_shard):
            svg.add(
                "rect",
                x=left_px + clock.position(span.started_s) * scale,
                y=base_px - _LANE_PX + 12,
                width=max(span.seconds * scale, 1.5),
                height=_LANE_PX - 12,
                rx=2,
                class_=f"{colour} fill went-on",
            )
        area = _area([height / highest for height in heights], (left_px, base_px, span_px))
        svg.add("path", d=area, class_=f"{colour} fill")
        svg.add("text", title, x=0, y=base_px - 5, class_="lane", **fitted(title, left_px - 12, _LETTER_PX))
        svg.add("text", duration(one.seconds), x=_WIDTH_PX, y=base_px - 5, class_="row-mean")
    for at_s, pause_s in clock.pauses:
        x = left_px + at_s * scale
        svg.add("line", x1=x, x2=x, y1=_TOP_PX, y2=height_px - 20, class_="paper")
        svg.add("text", f"{duration(pause_s)} later", x=x, y=height_px - 6, class_="tick")
    return svg.markup()


def _at_once(shards: Sequence[Span], clock: _Clock) -> list[float]:
    """How many shards were worked on, by equal bins of working time; empty where there were none."""
    if not shards:
        return []
    bin_s = max(clock.length_s, 1e-9) / _NUM_BINS
    heights = [0.0] * _NUM_BINS
    for span in shards:
        start, end = clock.position(span.started_s) / bin_s, clock.position(span.ended_s) / bin_s
        for number in range(int(start), min(int(end), _NUM_BINS - 1) + 1):
            heights[number] += max(min(end, number + 1) - max(start, number), 0.0)
    return heights


def _area(shares: Sequence[float], box: tuple[float, float, float]) -> str:
    """The path of a lane's bars, each a share of the lane high; `box` is the lane's left end, base and width."""
    left_px, base_px, span_px = box
    width_px = span_px / _NUM_BINS
    bars = []
    for number, share in enumerate(shares):
        if share > 0:
            bar_px = max(share * (_LANE_PX - 12), 1.0)
            bars.append(f"M{left_px + number * width_px:.1f} {base_px:.1f}v{-bar_px:.1f}h{width_px:.2f}v{bar_px:.1f}z")
    return "".join(bars)
