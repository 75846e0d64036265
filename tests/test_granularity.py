from __future__ import annotations

import dataclasses

import pytest

from gex_pipeline.errors import RecipeError
from gex_pipeline.granularity import GranularityGraph, Node
from gex_pipeline.layout import Layout

SVST = Node("SVST")


def graph(*nodes):
    return GranularityGraph.from_nodes(nodes)


def test_parents_come_before_their_children_whatever_the_order_of_the_recipe():
    found = graph(Node("LVST", "compress_text", "LVLT"), Node("LVLT", "integrate", "SVST"), SVST)
    assert list(found.nodes) == ["SVST", "LVLT", "LVST"]
    assert found.source == SVST
    assert [node.name for node in found.derived] == ["LVLT", "LVST"]


def test_nodes_keep_the_order_of_the_recipe_where_parents_allow_it():
    found = graph(SVST, Node("IT", "compress_video", "SVST"), Node("LVLT", "integrate", "SVST"))
    assert list(found.nodes) == ["SVST", "IT", "LVLT"]


def test_children_and_lineage_follow_the_edges():
    found = graph(SVST, Node("LVLT", "integrate", "SVST"), Node("LVST", "compress_text", "LVLT"))
    assert [node.name for node in found.children("SVST")] == ["LVLT"]
    assert found.children("LVST") == ()
    assert [node.name for node in found.lineage("LVST")] == ["LVST", "LVLT", "SVST"]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([Node("LVLT", "integrate", "SVST")], "exactly one source granularity.*found: none"),
        ([SVST, Node("OTHER")], "exactly one source granularity.*found: SVST, OTHER"),
        (
            [SVST, Node("LVLT", "integrate", "SVT")],
            r"\[granularity.LVLT\]: from = 'SVT' is not .* there are: SVST, LVLT",
        ),
        (
            [SVST, Node("A", "integrate", "B"), Node("B", "integrate", "A")],
            "made from each other in a circle: A, B",
        ),
        ([SVST, Node("A", "integrate", "A")], "made from each other in a circle: A"),
        ([SVST, Node("LVLT", "integrate", None)], r"\[granularity.LVLT\]: operation 'integrate' needs 'from'"),
        ([SVST, Node("LVLT", parent="SVST")], r"\[granularity.LVLT\]: has 'from' but no 'operation'"),
    ],
)
def test_a_graph_that_is_none_is_refused_saying_what_is_wrong(nodes, message):
    with pytest.raises(RecipeError, match=message):
        graph(*nodes)


@pytest.mark.parametrize("name", ["", "9A", "L-V", "../x", "a.b", "a b", "A" * 33, "Ä", "x\n"])
def test_a_name_that_cannot_be_a_folder_is_refused(name):
    with pytest.raises(RecipeError, match=r"a granularity's name is up to 32 letters"):
        graph(Node(name))


@pytest.mark.parametrize("name", ["tables", "report", "cache", "Tables", "CACHE"])
def test_a_name_that_is_a_folder_of_every_output_is_refused(name):
    """A granularity named `tables` had its shards written among the tables of its own output."""
    message = rf"\[granularity.{name}\]: every output has a folder '{name.lower()}' of its own; .*another name"
    with pytest.raises(RecipeError, match=message):
        graph(Node(name))


def test_every_folder_that_an_output_has_beside_its_granularities_is_refused_as_a_name():
    layout = Layout("output")
    own = {
        layout.table("clips", 0),
        layout.part("clips", 0, "a"),
        layout.losses("SVST", 0),
        layout.report("report.html"),
        layout.response_cache,
    }
    for folder in {uri.split("/")[1] for uri in own}:
        with pytest.raises(RecipeError, match=r"of its own"):
            graph(Node(folder))
    files = {layout.manifest, layout.run_state, layout.run_lock}
    assert all("." in uri.split("/")[1] for uri in files), "no name has a dot"


def test_nodes_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SVST.name = "other"
