"""The course of a training as one picture: ``log.jsonl`` in, an SVG out with the losses and the held-out recall.

Left the loss of every granularity over the steps, right R@1 of the held-out samples in both directions; a training
without held-out samples has the left half only.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from gex_pipeline.report.axis import value_axis
from gex_pipeline.report.svg import Svg

Points = list[tuple[int, float]]

_PANEL_PX = (420, 240)
_MARGIN_PX = (52, 28, 12, 40)  # left, top, right, bottom
_COLOURS = ("#3b6fb6", "#c8553d", "#4c9f70", "#8e5ea2", "#b98b2f", "#4aa3b5")
_TEXT = {"font_family": "sans-serif", "font_size": 12, "fill": "#333"}


class _Line(NamedTuple):
    name: str
    points: Points
    colour: str
    dashes: str = "none"


class _Panel(NamedTuple):
    title: str
    lines: list[_Line]


def draw_curve(log: Path) -> str | None:
    """The picture of a log; none where it holds no losses."""
    losses, recalls = _read(log)
    if not losses:
        return None
    names = list(losses)
    panels = [_Panel("loss", [_Line(name, losses[name], _colour(names, name)) for name in names])]
    if recalls:
        lines = [
            _Line(f"{name} {what}", points, _colour(names, name), dashes)
            for (name, direction), points in recalls.items()
            for what, dashes in [("text to video", "none") if direction == "t2v" else ("video to text", "5 3")]
        ]
        panels.append(_Panel("R@1 of held-out samples, %", lines))
    width_px = _PANEL_PX[0] * len(panels)
    num_rows = max(len(panel.lines) for panel in panels)
    svg = Svg(width_px, _PANEL_PX[1] + 18 * num_rows, "Loss and held-out recall over the steps of a training")
    svg.add("rect", x=0, y=0, width=width_px, height=_PANEL_PX[1] + 18 * num_rows, fill="#ffffff")
    last_step = max(step for points in losses.values() for step, _ in points)
    for number, panel in enumerate(panels):
        _draw(svg, number * _PANEL_PX[0], panel, last_step)
    return str(svg.markup()).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


def _read(log: Path) -> tuple[dict[str, Points], dict[tuple[str, str], Points]]:
    losses: defaultdict[str, Points] = defaultdict(list)
    recalls: defaultdict[tuple[str, str], Points] = defaultdict(list)
    for line in log.read_text(encoding="utf-8").splitlines():
        figures = json.loads(line)
        step = figures["step"] + 1
        for name, value in figures.items():
            if value is None:
                continue
            kind, _, rest = name.partition("/")
            if kind == "loss":
                losses[rest].append((step, value))
            elif kind == "held_out" and rest.endswith("_r1_percent"):
                granularity, _, figure = rest.partition("/")
                recalls[granularity, figure[:3]].append((step, value))
    return dict(losses), dict(recalls)


def _draw(svg: Svg, left_px: int, panel: _Panel, last_step: int) -> None:
    left, top, right, bottom = _MARGIN_PX
    box = (left_px + left, top, _PANEL_PX[0] - left - right, _PANEL_PX[1] - top - bottom)
    values = [value for line in panel.lines for _, value in line.points]
    # from zero: an axis of the report is linear then, with round ticks
    across, up = value_axis(0, last_step, 1), value_axis(0, max(values) or 1, 1)
    svg.add("text", panel.title, x=box[0], y=18, **{**_TEXT, "font_weight": "bold"})
    for tick, label in zip(up.ticks, up.labels, strict=True):
        y = box[1] + box[3] * (1 - up.position(tick))
        svg.add("line", x1=box[0], x2=box[0] + box[2], y1=y, y2=y, stroke="#e3e3e3")
        svg.add("text", label, x=box[0] - 6, y=y + 4, text_anchor="end", **_TEXT)
    for tick, label in zip(across.ticks, across.labels, strict=True):
        x = box[0] + box[2] * across.position(tick)
        svg.add("text", label, x=x, y=box[1] + box[3] + 18, text_anchor="middle", **_TEXT)
    svg.add("text", "steps", x=box[0] + box[2], y=box[1] + box[3] + 34, text_anchor="end", **_TEXT)
    for row, line in enumerate(panel.lines):
        points = " ".join(
            f"{box[0] + box[2] * across.position(step):.1f},{box[1] + box[3] * (1 - up.position(value)):.1f}"
            for step, value in line.points
        )
        style = {"stroke": line.colour, "stroke_width": 2, "stroke_dasharray": line.dashes}
        svg.add("polyline", points=points, fill="none", **style)
        if len(line.points) == 1:  # a line through one point is nothing to see
            cx, cy = points.split(",")
            # a ring stands for a dashed line: both can be seen where they are in one place
            look = {"r": 3, "fill": line.colour} if line.dashes == "none" else {"r": 5.5, "fill": "none"}
            svg.add("circle", cx=cx, cy=cy, stroke=line.colour, **look)
        y = _PANEL_PX[1] + 18 * row + 6
        svg.add("line", x1=box[0], x2=box[0] + 24, y1=y - 4, y2=y - 4, **style)
        svg.add("text", f"{line.name}: {line.points[-1][1]:.3g} at the end", x=box[0] + 32, y=y, **_TEXT)


def _colour(names: list[str], name: str) -> str:
    return _COLOURS[names.index(name) % len(_COLOURS)] if name in names else "#777777"
