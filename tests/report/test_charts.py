from __future__ import annotations

from gex_pipeline.report.axis import value_axis
from gex_pipeline.report.charts import graph_chart, score_chart
from gex_pipeline.report.figures import NodeFigures, ScoreFigures
from tests.report.page import Page


def node(name: str, parent: str | None = None, operation: str = "source") -> NodeFigures:
    media = "clips" if parent is None else "video"
    symbol = {"integrate": "⊕", "compress_text": "Θ_t"}.get(operation, operation)
    return NodeFigures(name, operation, symbol, parent, media, 1234, 3, 1, 10, 60.0, 20, {})


def test_the_graph_names_nodes_counts_and_operations() -> None:
    nodes = [node("A"), node("B", "A", "integrate"), node("C", "B", "integrate"), node("D", "B", "compress_text")]
    page = Page(graph_chart(nodes, ["A", "B", "C", "D"]))
    assert [page.text.count(name) for name in "ABCD"] == [1, 1, 1, 1]
    assert page.text.count("⊕") == 2
    assert "Θ t" in page.text
    assert "1 234 samples" in page.text
    assert len([path for path in page.of("path") if path["class"] == "edge"]) == 3


def test_no_two_nodes_of_a_graph_overlap() -> None:
    nodes = [node("A")] + [node(f"N{n}", "A", "integrate") for n in range(4)] + [node("Z", "N2", "compress_text")]
    page = Page(graph_chart(nodes, []))
    places = {(box["x"], box["y"]) for box in page.of("rect") if box["class"] == "node"}
    assert len(places) == 6


def test_names_in_charts_are_escaped() -> None:
    axis = value_axis(0.0, 1.0, 4)
    empty = dict.fromkeys(("num", "mean", "std", "min", "p05", "median", "p95", "max"))
    figures = ScoreFigures("LVST", '"><script>x</script>', empty, 1, axis, (0, 0, 0, 0), (1, 0, 0, 0), 0.5, None)
    page = Page(score_chart(figures, "g1"))
    assert not page.of("script")
    assert "<script>" in page.of("svg")[0]["aria-label"]


def test_rejected_bars_have_the_scale_of_all_bars() -> None:
    axis = value_axis(0.0, 1.0, 2)
    statistics = {"num": 3, "mean": 0.75, "std": 0.0}
    figures = ScoreFigures("LVST", "s", statistics, 1, axis, (0, 3), (1, 0), None, None)
    whole, rejected = [path["d"] for path in Page(score_chart(figures, "g1")).of("path")]
    assert whole.startswith(rejected.removesuffix("z"))
