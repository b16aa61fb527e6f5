"""Where to draw the problems of a graph: lowers under uppers, edges with few crossings, long edges around the boxes.

Sugiyama, Tagawa and Toda 1981: rows by longest path from the leaves, a placeholder in every row that an edge passes,
and sweeps that move each box towards the mean of its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx

from .graph import Edge, Graph

SWEEPS = 8
PASSING = 0.65
"""Columns between a box and an edge that passes it; boxes are one column apart."""


@dataclass(frozen=True)
class Layout:
    """Positions on a grid, rows counted from the leaves upward.

    Args:
        boxes: (column, row) of every problem; columns are centred on 0.
        routes: Per edge (upper, lower), the points that it passes between the two boxes, from the top.
    """

    boxes: dict[str, tuple[float, int]]
    routes: dict[Edge, list[tuple[float, int]]]

    @property
    def width(self) -> float:
        """Distance between the outermost columns in use."""
        columns = [x for x, _ in [*self.boxes.values(), *(p for route in self.routes.values() for p in route)]]
        return max(columns) - min(columns)

    @property
    def height(self) -> int:
        """Number of the top row."""
        return max(row for _, row in self.boxes.values())


def rows(graph: Graph) -> dict[str, int]:
    """The row of every problem: 0 for a leaf, else one more than the highest of its lowers."""
    row: dict[str, int] = {}
    for name in graph.order:
        row[name] = 1 + max((row[lower] for lower in graph.lowers(name)), default=-1)
    return row


def layout(graph: Graph) -> Layout:
    """Place the problems of a graph."""
    row = dict(rows(graph))
    routes = {edge: _placeholders(edge, row) for edge in graph.networkx.edges}
    joined: nx.Graph[str] = nx.Graph()
    joined.add_nodes_from(row)
    for (upper, lower), passed in routes.items():
        nx.add_path(joined, [upper, *passed, lower])
        row.update({name: row[upper] - 1 - i for i, name in enumerate(passed)})
    column = _columns(joined, row)
    return Layout(
        {name: (column[name], row[name]) for name in graph.order},
        {edge: [(column[name], row[name]) for name in passed] for edge, passed in routes.items()},
    )


def _placeholders(edge: Edge, row: dict[str, int]) -> list[str]:
    upper, lower = edge
    return [f"{upper}/{lower}/{between}" for between in range(row[upper] - 1, row[lower], -1)]


def _columns(joined: nx.Graph, row: dict[str, int]) -> dict[str, float]:
    """Columns one apart at least, each near the mean of its neighbours in the rows above and below."""
    members: dict[int, list[str]] = {}
    for name in joined:
        members.setdefault(row[name], []).append(name)
    column = {name: float(i) for names in members.values() for i, name in enumerate(names)}
    order = sorted(members)
    for _ in range(SWEEPS):
        for number, towards in [*((r, -1) for r in order), *((r, 1) for r in reversed(order))]:
            wished = {name: _mean(column, joined, row, name, number + towards) for name in members[number]}
            members[number].sort(key=lambda name, wished=wished: wished[name])  # type: ignore[misc]
            column.update(_spread([wished[name] for name in members[number]], members[number]))
    middle = (max(column.values()) + min(column.values())) / 2
    return {name: x - middle for name, x in column.items()}


def _mean(column: dict[str, float], joined: nx.Graph, row: dict[str, int], name: str, beside: int) -> float:
    near = [column[other] for other in joined[name] if row[other] == beside]
    return sum(near) / len(near) if near else column[name]


def _spread(wished: list[float], names: list[str]) -> dict[str, float]:
    """Move sorted columns apart as far as they need, and back so that their mean stays where it was wished."""
    placed: list[float] = []
    for i, x in enumerate(wished):
        placed.append(max(x, placed[-1] + _distance(names[i - 1], names[i])) if placed else x)
    shift = (sum(wished) - sum(placed)) / len(placed)
    return {name: x + shift for name, x in zip(names, placed, strict=True)}


def _distance(left: str, right: str) -> float:
    # A problem's name is an identifier, so a slash tells a placeholder.
    return PASSING if "/" in left or "/" in right else 1.0
