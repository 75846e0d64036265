"""The page of an assessment of summarisers: the content of ``assessment.json`` in; HTML, an SVG and Markdown out.

The page stands alone and forbids every request, as the report does. Texts and names are escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gex_pipeline import storage
from gex_pipeline.report import paper, wording
from gex_pipeline.report.axis import Axis, value_axis
from gex_pipeline.report.charts import add_tick_labels
from gex_pipeline.report.svg import Svg
from gex_pipeline.report.wording import markdown_table

SCORE_NAMES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L", "bertscore_f1": "BERTScore-F1"}
_PLOTTED = ("rougeL", "bertscore_f1")
_PLOT_PX = (460, 300)
_EDGES_PX = (46, 16, 34, 46)  # left, right, top, bottom
_NUM_EXAMPLES = 6
_PLAIN_STYLE = (
    "svg{background:#fff}text{font:13px system-ui,sans-serif;fill:#1d1f24}.grid{stroke:#e4e1db}.base{stroke:#676d79}"
    ".tick{fill:#676d79;font-size:12px;text-anchor:middle}.end{text-anchor:end}.mark{fill:#fff;font-size:11px;"
    "font-weight:700;text-anchor:middle}.row-name{font-weight:650}.fill{fill:currentColor}.bar-line{stroke:currentColor;"
    "stroke-width:2}.g1{color:#2466d8}.g2{color:#0b796d}.g3{color:#a35a08}.g4{color:#7c49dc}.g5{color:#c22f72}"
    ".g6{color:#4f7715}.g7{color:#0c7396}.g0{color:#596070}"
)


def write_page(content: dict[str, Any], rows: Sequence[dict[str, Any]], folder_uri: str) -> str:
    """Write ``assessment.html`` and a plot a score (``quality-….svg``); returns the page's URI."""
    for score in _plotted(content):
        drawn = str(quality_chart(content, score))
        own = '<svg xmlns="http://www.w3.org/2000/svg" width="920"'
        file = drawn.replace("<svg", own, 1).replace(">", f"><style>{_PLAIN_STYLE}</style>", 1)
        storage.publish_bytes(file.encode(), storage.join(folder_uri, f"quality-{score}.svg"))
    uri = storage.join(folder_uri, "assessment.html")
    storage.publish_bytes(render(content, rows).encode(), uri)
    return uri


def render(content: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(wording, name) for name in ("count", "number", "score")}
    environment.filters["reason"] = lambda text: text.replace("_", " ")
    return environment.get_template("assessment.html.j2").render(
        content=content,
        colours=[_colour(number) for number in range(len(content["candidates"]))],
        charts=[(SCORE_NAMES[score], quality_chart(content, score)) for score in _plotted(content)],
        score_names=SCORE_NAMES,
        examples=_examples(content, rows),
        paper=paper,
    )


def _examples(
    content: dict[str, Any], rows: Sequence[dict[str, Any]]
) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The tasks about which the candidates differ most in ROUGE-L: the reference and what each candidate wrote."""
    by_task: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_task.setdefault(row["id"], []).append(row)
    shown = sorted(by_task.values(), key=lambda found: (-_spread(found), found[0]["id"]))[:_NUM_EXAMPLES]
    places = {item["name"]: index for index, item in enumerate(content["candidates"])}
    return [(found[0], sorted(found, key=lambda row: places[row["candidate"]])) for found in shown]


def _spread(rows: Sequence[dict[str, Any]]) -> float:
    values = [row["rougeL"] or 0.0 for row in rows]
    return max(values) - min(values)


def _plotted(content: dict[str, Any]) -> list[str]:
    return [score for score in _PLOTTED if any(score in item["scores"] for item in content["candidates"])]


def _colour(index: int) -> str:
    return f"g{(index + 1) % 8}"


def quality_chart(content: dict[str, Any], score: str) -> Markup:
    """One score against seconds a task: a numbered point a candidate with the interval of its mean."""
    points = [
        (index, item["seconds_a_task"], item["scores"][score])
        for index, item in enumerate(content["candidates"])
        if score in item["scores"]
    ]
    seconds = [max(second, 1e-6) for _, second, _ in points]
    low = min(found["interval"][0] for _, _, found in points)
    high = max(found["interval"][1] for _, _, found in points)
    space = max((high - low) * 0.12, 0.01)
    across = value_axis(min(seconds) / 1.4, max(seconds) * 1.4, 10)
    upright = value_axis(low - space, high + space, 10, linear=True)
    svg = Svg(*_PLOT_PX, f"{SCORE_NAMES[score]} against seconds a task")
    _draw_axes(svg, across, upright, SCORE_NAMES[score])
    for index, second, found in points:
        x, y = _across_px(across, second), _upright_px(upright, found["mean"])
        ends = [_upright_px(upright, value) for value in found["interval"]]
        colour = _colour(index)
        svg.add("line", x1=x, x2=x, y1=ends[0], y2=ends[1], class_=f"{colour} bar-line")
        svg.add("circle", cx=x, cy=y, r=9, class_=f"{colour} fill")
        svg.add("text", index + 1, x=x, y=y + 4, class_="mark")
    return svg.markup()


def _draw_axes(svg: Svg, across: Axis, upright: Axis, title: str) -> None:
    left_px, right_px, top_px, bottom_px = _EDGES_PX
    width_px, height_px = _PLOT_PX
    for tick, label in zip(upright.ticks, upright.labels, strict=True):
        y = _upright_px(upright, tick)
        svg.add("line", x1=left_px, x2=width_px - right_px, y1=y, y2=y, class_="grid")
        svg.add("text", label, x=left_px - 6, y=y + 4, class_="tick end")
    for tick in across.ticks:
        x = _across_px(across, tick)
        svg.add("line", x1=x, x2=x, y1=top_px, y2=height_px - bottom_px, class_="grid")
    base_px = height_px - bottom_px
    add_tick_labels(svg, across, (left_px, width_px - left_px - right_px), base_px + 17)
    svg.add("line", x1=left_px, x2=width_px - right_px, y1=base_px, y2=base_px, class_="base")
    svg.add("text", title, x=left_px, y=18, class_="row-name")
    unit = "seconds a task" + (", logarithmic" if across.is_log else "")
    svg.add("text", unit, x=(left_px + width_px - right_px) / 2, y=height_px - 8, class_="tick")


def _across_px(axis: Axis, value: float) -> float:
    return _EDGES_PX[0] + axis.position(value) * (_PLOT_PX[0] - _EDGES_PX[0] - _EDGES_PX[1])


def _upright_px(axis: Axis, value: float) -> float:
    return _PLOT_PX[1] - _EDGES_PX[3] - axis.position(value) * (_PLOT_PX[1] - _EDGES_PX[2] - _EDGES_PX[3])


def table_markdown(content: dict[str, Any]) -> str:
    """The table and the recommendation as Markdown."""
    columns = ("candidate", *SCORE_NAMES.values(), "seconds a task", "latency, s", "tokens a task", "summaries")
    rows: list[Sequence[str]] = []
    for item in content["candidates"]:
        means = [f"{item['scores'][name]['mean']:.3f}" if name in item["scores"] else "-" for name in SCORE_NAMES]
        told = f"{item['num_summaries']} of {item['num_tasks']}"
        seconds = (f"{item['seconds_a_task']:.3g}", latency_of(item))
        rows.append((item["name"], *means, *seconds, tokens_of(item), told))
    empty = [""] * (len(columns) - 2)
    rows += [(name, f"did not run: {error}", *empty) for name, error in content["failed"].items()]
    found = content["recommendation"]
    table = markdown_table(columns, rows, numbers=range(1, len(columns)))
    return "\n".join([table, "", f"Recommended: {found['candidate'] or 'none'}. {found['why']}.", "", found["rule"]])


def latency_of(item: dict[str, Any]) -> str:
    """Median seconds of one summary while others are in flight; a dash where the candidate wrote none."""
    return "-" if item["latency_s"] is None else f"{item['latency_s']:.3g}"


def tokens_of(item: dict[str, Any]) -> str:
    """Tokens of prompts and answers a task; a dash where the backend tells none."""
    if item["prompt_tokens_a_task"] is None:
        return "-"
    return f"{item['prompt_tokens_a_task']:.0f} + {item['generated_tokens_a_task']:.0f}"
