"""Charts as inline SVG: figures in, markup out. Colours are classes of the page's style sheet (light and dark).

Every text goes through Markup.format and is escaped there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from markupsafe import Markup

from gex_pipeline.report import paper
from gex_pipeline.report.axis import Axis
from gex_pipeline.report.figures import Distribution, NodeFigures, Panel, ScoreFigures
from gex_pipeline.report.svg import Svg, fitted
from gex_pipeline.report.wording import count, duration, number

_NODE_PX = (206, 84)
_GAP_PX = (150, 22)
_ROW_PX = 86
_PANEL_PX = (460, 14)  # width of a panel and of its margins
_SCORE_PX = (260, 96)
# Widths of letters in a wide font, DejaVu Sans: in others there is room left. Of row names and figures, of ticks.
_BOLD_LETTER_PX, _LETTER_PX, _TICK_LETTER_PX = 8.0, 7.3, 7.7
NUM_COLOURS = 8
_Box = tuple[float, float, float, float]  # left, bottom, width, height


def colour_of(name: str, names: Sequence[str]) -> str:
    """The class that colours a granularity everywhere on the page."""
    return f"g{names.index(name) % NUM_COLOURS}" if name in names else "g0"


def graph_chart(nodes: Iterable[NodeFigures], names: Sequence[str]) -> Markup:
    """The graph of granularities, left to right: nodes with their counts, edges with their operations."""
    shown = {node.name: node for node in nodes if node.media == "clips" or node.parent is not None}
    places = _tree_places(shown)
    width_px, height_px = _NODE_PX
    columns = max(column for column, _ in places.values()) + 1
    rows = max(row for _, row in places.values()) + 1
    svg = Svg(
        columns * width_px + (columns - 1) * _GAP_PX[0] + 4,
        rows * height_px + (rows - 1) * _GAP_PX[1] + 4,
        "Graph of granularities: " + ", ".join(f"{n.name} from {n.parent}" for n in shown.values() if n.parent),
    )
    at = {
        name: (2 + column * (width_px + _GAP_PX[0]), 2 + row * (height_px + _GAP_PX[1]))
        for name, (column, row) in places.items()
    }
    for node in shown.values():
        if node.parent in at:
            _add_edge(svg, at[node.parent], at[node.name], node)
    for name, node in shown.items():
        _add_node(svg, at[name], node, colour_of(name, names))
    return svg.markup()


def _tree_places(nodes: dict[str, NodeFigures]) -> dict[str, tuple[int, float]]:
    """(column, row) of every node: leaves below each other, a parent in the middle of its children."""
    places: dict[str, tuple[int, float]] = {}
    num_leaves = 0

    def place(name: str, column: int) -> float:
        nonlocal num_leaves
        children = [node.name for node in nodes.values() if node.parent == name]
        if children:
            rows = [place(child, column + 1) for child in children]
            row = (rows[0] + rows[-1]) / 2
        else:
            row = float(num_leaves)
            num_leaves += 1
        places[name] = (column, row)
        return row

    for node in nodes.values():
        if node.parent not in nodes:
            place(node.name, 0)
    return places


def _add_edge(svg: Svg, start: tuple[float, float], end: tuple[float, float], node: NodeFigures) -> None:
    x0, y0 = start[0] + _NODE_PX[0], start[1] + _NODE_PX[1] / 2
    x1, y1 = end[0] - 9, end[1] + _NODE_PX[1] / 2
    bend = x0 + 34  # the curve ends a little behind it, the rest is straight and carries the label
    svg.add(
        "path",
        d=f"M{x0:.1f} {y0:.1f}C{bend + 16:.1f} {y0:.1f} {bend - 10:.1f} {y1:.1f} {bend + 18:.1f} {y1:.1f}H{x1:.1f}",
        class_="edge",
    )
    svg.add("path", d=f"M{x1 + 8:.1f} {y1:.1f} l-9 -4.5 v9 z", class_="arrow")
    middle = (bend + x1) / 2 + 10
    symbol, _, below = node.symbol.partition("_")
    content = Markup("{}<tspan dy='4' class='sub'>{}</tspan>").format(symbol, below) if below else symbol
    if node.symbol != node.operation:
        svg.add("text", content, x=middle, y=y1 - 9, class_="symbol")
    room_px = 2 * (end[0] - middle) - 4
    svg.add("text", node.operation, x=middle, y=y1 + 16, class_="operation", **fitted(node.operation, room_px, 7))


def _add_node(svg: Svg, place: tuple[float, float], node: NodeFigures, colour: str) -> None:
    (x, y), (width_px, height_px) = place, _NODE_PX
    svg.add("rect", x=x, y=y, width=width_px, height=height_px, rx=12, class_="node")
    svg.add("rect", x=x + 12, y=y + 14, width=4, height=height_px - 28, rx=2, class_=f"{colour} fill")
    svg.add("text", node.name, x=x + 28, y=y + 28, class_="name", **fitted(node.name, width_px - 40, 10))
    unit = {"clips": "clips", "image": "images"}.get(node.media, "samples")
    svg.add("text", f"{count(node.samples)} {unit}", x=x + 28, y=y + 49, class_="figure")
    if node.media == "image":
        detail = f"{number(node.mean_words)} words each"
    else:
        detail = f"{duration(node.duration_s)} · {number(node.mean_words)} words each"
    svg.add("text", detail, x=x + 28, y=y + 68, class_="small", **fitted(detail, width_px - 34, 6.6))


def panel_chart(panel: Panel, names: Sequence[str]) -> Markup:
    """Distributions of one quantity below each other on one axis, each as high as its row, with their means."""
    width_px, margin_px = _PANEL_PX
    unit = "s" if panel.quantity == "duration_s" else "words"
    height_px = len(panel.distributions) * _ROW_PX + 30
    svg = Svg(width_px, height_px, f"Distributions of {panel.quantity} by granularity")
    span_px = width_px - 2 * margin_px
    for tick in panel.axis.ticks:
        x = margin_px + panel.axis.position(tick) * span_px
        svg.add("line", x1=x, x2=x, y1=4, y2=height_px - 26, class_="grid")
    add_tick_labels(svg, panel.axis, (margin_px, span_px), height_px - 9)
    for index, distribution in enumerate(panel.distributions):
        colour = "source" if distribution.is_source else colour_of(distribution.granularity, names)
        _add_distribution(svg, panel.axis, distribution, index * _ROW_PX, (colour, unit))
    return svg.markup()


def _add_distribution(svg: Svg, axis: Axis, distribution: Distribution, top_px: float, style: tuple[str, str]) -> None:
    (width_px, margin_px), (colour, unit) = _PANEL_PX, style
    span_px = width_px - 2 * margin_px
    base_px = top_px + _ROW_PX - 4
    bars = _bars(axis, distribution.counts, (margin_px, base_px, span_px, _ROW_PX - 36))
    svg.add("path", d=bars, class_=f"{colour} fill")
    svg.add("line", x1=margin_px, x2=width_px - margin_px, y1=base_px, y2=base_px, class_="base")
    expected = paper.SOURCE_MEANS.get(distribution.quantity) if distribution.is_source else None
    if expected is not None and axis.edges[0] <= expected <= axis.edges[-1]:
        x = margin_px + axis.position(expected) * span_px
        svg.add("line", x1=x, x2=x, y1=top_px + 26, y2=base_px, class_="paper")
    mean = distribution.statistics["mean"] or 0.0
    x = margin_px + axis.position(mean) * span_px
    svg.add("line", x1=x, x2=x, y1=top_px + 26, y2=base_px, class_="mean")
    svg.add("circle", cx=x, cy=top_px + 26, r=3, class_="mean-dot")
    title = f"{distribution.granularity} clips" if distribution.is_source else distribution.granularity
    figures = f"mean {number(mean)} {unit} · median {number(distribution.statistics['median'])}"
    room_px = span_px - len(figures) * _LETTER_PX - 12
    svg.add("text", title, x=margin_px, y=top_px + 14, class_="row-name", **fitted(title, room_px, _BOLD_LETTER_PX))
    svg.add("text", figures, x=width_px - margin_px, y=top_px + 14, class_="row-mean")


def add_tick_labels(svg: Svg, axis: Axis, span: tuple[float, float], y: float) -> None:
    """The labels of a horizontal axis, inside the picture; every second (third, …) where all would not fit.

    `span` is the axis's left end and width in pixels.
    """
    labels = []
    for tick, label in zip(axis.ticks, axis.labels, strict=True):
        half_px = len(label) * _TICK_LETTER_PX / 2
        x = span[0] + axis.position(tick) * span[1]
        labels.append((min(max(x, half_px), svg.width_px - half_px), half_px, label))
    shown = labels
    for step in range(1, len(labels) + 1):
        shown = labels[::step]
        if all(x + half_px <= next_x - next_half_px for (x, half_px, _), (next_x, next_half_px, _) in pairwise(shown)):
            break
    for x, _, label in shown:
        svg.add("text", label, x=x, y=y, class_="tick")


def _bars(axis: Axis, counts: Sequence[int], box: _Box, scale_of: Sequence[int] | None = None) -> str:
    """The path of a histogram; areas, not heights, stand for counts. `scale_of` counts reach the top of the box."""
    left_px, bottom_px, width_px, height_px = box
    positions = [axis.position(edge) for edge in axis.edges]
    widths = [max(after - before, 1e-6) for before, after in pairwise(positions)]
    highest = max(num / width for num, width in zip(scale_of or counts, widths, strict=True)) or 1.0
    path = []
    for index, num in enumerate(counts):
        if not num:
            continue
        gap_px = min(1.0, widths[index] * width_px * 0.15)
        x = left_px + positions[index] * width_px + gap_px / 2
        bar_px = max(num / widths[index] / highest * height_px, 0.8)
        path.append(f"M{x:.1f} {bottom_px:.1f}v{-bar_px:.1f}h{widths[index] * width_px - gap_px:.1f}v{bar_px:.1f}z")
    return "".join(path)


def score_chart(figures: ScoreFigures, colour: str) -> Markup:
    """One score's histogram, rejected samples below the accepted ones, with its mean and its gate."""
    width_px, height_px = _SCORE_PX
    svg = Svg(width_px, height_px, f"Histogram of {figures.score} over {figures.granularity}")
    left_px, span_px, base_px = 8, width_px - 16, height_px - 20
    axis = figures.axis
    box = (left_px, base_px, span_px, base_px - 8)
    total = [low + high for low, high in zip(figures.rejected, figures.accepted, strict=True)]
    # The whole is drawn first and the rejected part over it: both have the scale of the whole.
    svg.add("path", d=_bars(axis, total, box), class_=f"{colour} fill")
    if figures.num_rejected:
        svg.add("path", d=_bars(axis, figures.rejected, box, scale_of=total), class_="rejected fill")
    svg.add("line", x1=left_px, x2=left_px + span_px, y1=base_px, y2=base_px, class_="base")
    add_tick_labels(svg, axis, (left_px, span_px), height_px - 5)
    for gate in (figures.gate_min, figures.gate_max):
        if gate is not None and axis.edges[0] <= gate <= axis.edges[-1]:
            x = left_px + axis.position(gate) * span_px
            svg.add("line", x1=x, x2=x, y1=2, y2=base_px, class_="gate")
    mean = figures.statistics["mean"]
    if mean is not None:
        x = left_px + axis.position(mean) * span_px
        svg.add("line", x1=x, x2=x, y1=4, y2=base_px, class_="mean")
        svg.add("circle", cx=x, cy=4, r=3, class_="mean-dot")
    return svg.markup()
