"""The graph of granularities: nodes, edges, order. Frozen data; imports nothing of ours but errors.

A node is one kind of video-text sample (SVST, LVLT, ...); an edge is the operation that makes it
out of another node. Every node but a source has exactly one edge leading to it.

Paper: GEXIA §3.1 (granularity expansion).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from gex_pipeline.errors import RecipeError

SOURCE_OPERATION = "source"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
_OWN_FOLDERS = ("tables", "report", "cache")  # of an output, beside those of its granularities; see layout.py


@dataclass(frozen=True)
class Node:
    """One granularity: its name, the operation that makes it and the granularity it is made from."""

    name: str
    operation: str = SOURCE_OPERATION
    parent: str | None = None

    @property
    def is_source(self) -> bool:
        """Whether the node holds the clips the user brought."""
        return self.operation == SOURCE_OPERATION


@dataclass(frozen=True)
class GranularityGraph:
    """Nodes by name, in an order in which every parent comes before its children."""

    nodes: Mapping[str, Node]

    @classmethod
    def from_nodes(cls, nodes: Iterable[Node]) -> GranularityGraph:
        """Check the nodes and put them in order.

        Raises:
            RecipeError: a bad name, no source or more than one, an unknown parent, or a cycle.
        """
        by_name: dict[str, Node] = {}
        for node in nodes:
            _check_node(node)
            by_name[node.name] = node
        sources = [node.name for node in by_name.values() if node.is_source]
        if len(sources) != 1:
            found = ", ".join(sources) or "none"
            raise RecipeError(
                f"a recipe has exactly one source granularity (one without 'operation'); found: {found}. "
                "Add for example [granularity.SVST]"
            )
        return cls({name: by_name[name] for name in _topological_order(by_name)})

    @property
    def source(self) -> Node:
        """The node of the clips the user brought."""
        return next(node for node in self.nodes.values() if node.is_source)

    @property
    def derived(self) -> tuple[Node, ...]:
        """Every node that an operation makes, parents first."""
        return tuple(node for node in self.nodes.values() if not node.is_source)

    def children(self, name: str) -> tuple[Node, ...]:
        """The granularities made directly from `name`."""
        return tuple(node for node in self.nodes.values() if node.parent == name)

    def lineage(self, name: str) -> tuple[Node, ...]:
        """The nodes from `name` up to the source, `name` first."""
        found = [self.nodes[name]]
        while (parent := found[-1].parent) is not None:
            found.append(self.nodes[parent])
        return tuple(found)


def _check_node(node: Node) -> None:
    if not _NAME.fullmatch(node.name):
        raise RecipeError(
            f"[granularity.{node.name}]: a granularity's name is up to 32 letters, digits and '_', "
            "beginning with a letter (it becomes a folder and a part of shard names)"
        )
    if node.name.lower() in _OWN_FOLDERS:  # there are file systems that do not tell case
        raise RecipeError(
            f"[granularity.{node.name}]: every output has a folder {node.name.lower()!r} of its own; "
            "give the granularity another name"
        )
    if node.is_source and node.parent is not None:
        raise RecipeError(f"[granularity.{node.name}]: has 'from' but no 'operation'; say which operation makes it")
    if not node.is_source and node.parent is None:
        raise RecipeError(
            f"[granularity.{node.name}]: operation {node.operation!r} needs 'from', the granularity it starts from"
        )


def _topological_order(nodes: Mapping[str, Node]) -> list[str]:
    """Parents before children, otherwise as the recipe has them."""
    order: list[str] = []
    waiting = list(nodes)
    while waiting:
        ready = next((name for name in waiting if (parent := nodes[name].parent) is None or parent in order), None)
        if ready is None:
            _raise_unordered(nodes, waiting)
        order.append(ready)
        waiting.remove(ready)
    return order


def _raise_unordered(nodes: Mapping[str, Node], waiting: list[str]) -> NoReturn:
    for name in waiting:
        parent = nodes[name].parent
        if parent not in nodes:
            raise RecipeError(
                f"[granularity.{name}]: from = {parent!r} is not a granularity of this recipe; there are: "
                + ", ".join(nodes)
            )
    raise RecipeError("these granularities are made from each other in a circle: " + ", ".join(waiting))
