"""Who responds to whom: read off the graph, once.

* followers(j): the problems below j whose solution moves when theta_j moves.
* inside(j): the followers that the loss of j depends on, directly or through other followers, in the order in which
  they respond.
* inputs(j): every other problem whose value enters the loss of j or of a member of inside(j): what the best response
  of j depends on.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import networkx as nx

from ..hypergrad.errors import NumericsWarning
from .graph import Graph


class Relations:
    """The relations of every problem of a graph.

    Attributes:
        inside: Per problem, its followers that matter to it, in the order in which they respond.
        inputs: Per problem, the others that its best response depends on.
        held: ``held[j][m]``, for a member m of inside(j): those of its inputs that stay fixed while it responds to j.
            Siblings that constrain a common lower play a game, and each responds to the other's current parameters.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._enters = {name: set(graph.enters(name)) for name in graph.order}
        self._position = {name: i for i, name in enumerate(graph.order)}
        members = {name: self._members(name) for name in graph.order}
        self.inputs = {name: self._inputs(name, members[name]) for name in graph.order}
        self.held = {name: self._games(name, members[name]) for name in graph.order}
        self.inside = {name: self._respond_in_order(name, members[name]) for name in graph.order}

    def followers(self, name: str) -> set[str]:
        """The problems below ``name`` whose solution moves with it."""
        below = self._graph.below(name)
        found: set[str] = set()
        front = list(self._graph.constrained_by(name))
        while front:
            current = front.pop()
            if current not in found:
                found.add(current)
                front.extend(self._enters[current] & below)
        return found

    def _members(self, name: str) -> set[str]:
        followers = self.followers(name)
        values = nx.DiGraph([(f, to) for f in followers for to in self._enters[f] if to == name or to in followers])
        return (nx.ancestors(values, name) if name in values else set()) & followers

    def _inputs(self, name: str, inside: set[str]) -> tuple[str, ...]:
        members = inside | {name}
        return self._sorted(other for other in self._enters if other not in members and self._enters[other] & members)

    def _games(self, name: str, inside: set[str]) -> dict[str, frozenset[str]]:
        held: dict[str, frozenset[str]] = {}
        for players in nx.strongly_connected_components(self._responds(inside)):
            if len(players) > 1:
                held.update({player: frozenset(players - {player}) for player in players})
                warnings.warn(
                    f"problems {', '.join(self._sorted(players))} constrain a common lower, so that each responds to "
                    f"the other: a game below '{name}'. Each one's best response is taken with the others held fixed",
                    NumericsWarning,
                    stacklevel=2,
                )
        return held

    def _respond_in_order(self, name: str, inside: set[str]) -> tuple[str, ...]:
        responds = self._responds(inside)
        responds.remove_edges_from([(i, m) for m, fixed in self.held[name].items() for i in fixed])
        return tuple(nx.lexicographical_topological_sort(responds, key=lambda m: -self._position[m]))

    def _responds(self, inside: set[str]) -> nx.DiGraph:
        responds: nx.DiGraph[str] = nx.DiGraph()
        responds.add_nodes_from(self._sorted(inside))
        responds.add_edges_from((i, m) for m in inside for i in self.inputs[m] if i in inside)
        return responds

    def _sorted(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(names, key=self._position.__getitem__))
