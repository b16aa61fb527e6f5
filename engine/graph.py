"""The hierarchy as a value: which problem is above which, checked once and then only read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

import networkx as nx

from ..hypergrad.errors import GraphError, choices

Edge: TypeAlias = tuple[str, str]

UPPER_TO_LOWER, LOWER_TO_UPPER = "upper_to_lower", "lower_to_upper"


class Graph:
    """Problems (by name) and the edges between them.

    Args:
        names: The problems.
        upper_to_lower: Pairs (upper, lower): the upper's parameters enter the lower's loss.
        lower_to_upper: Pairs (upper, lower): the lower's solution enters the upper's loss.

    Attributes:
        networkx: A :class:`networkx.DiGraph` whose edges point from upper to lower and carry the booleans
            ``upper_to_lower`` and ``lower_to_upper``.
        order: The names in the order in which they step: the leaves, then each problem after its lowers.

    Raises:
        GraphError: A name on an edge is unknown; the edges form a cycle; a problem is on no edge while there are
            others; an upper constrains a lower whose solution never comes back to it.
    """

    def __init__(
        self, names: Iterable[str], *, upper_to_lower: Iterable[Edge] = (), lower_to_upper: Iterable[Edge] = ()
    ) -> None:
        self.networkx: nx.DiGraph[str] = nx.DiGraph()
        self.networkx.add_nodes_from(names)
        for kind, edges in ((UPPER_TO_LOWER, upper_to_lower), (LOWER_TO_UPPER, lower_to_upper)):
            for upper, lower in edges:
                self._add(upper, lower, kind)
        self._refuse_cycles()
        self._refuse_isolated()
        declared = {name: i for i, name in enumerate(self.networkx)}
        lowest_first = nx.lexicographical_topological_sort(
            self.networkx.reverse(), key=lambda name: (self.networkx.out_degree(name) > 0, declared[name])
        )
        self.order: tuple[str, ...] = tuple(lowest_first)
        # Asked for in every level step.
        self._uppers = {name: self._sorted(self.networkx.predecessors(name)) for name in self.order}
        self._lowers = {name: self._sorted(self.networkx.successors(name)) for name in self.order}
        self._constrained = {name: self._sorted(self._along(name, UPPER_TO_LOWER)) for name in self.order}
        self._refuse_dead_ends()

    @property
    def leaves(self) -> tuple[str, ...]:
        """The problems without lowers, in step order."""
        return tuple(name for name in self.order if self.networkx.out_degree(name) == 0)

    def uppers(self, name: str) -> tuple[str, ...]:
        """The problems directly above, in step order."""
        return self._uppers[name]

    def lowers(self, name: str) -> tuple[str, ...]:
        """The problems directly below, in step order."""
        return self._lowers[name]

    def below(self, name: str) -> frozenset[str]:
        """Every problem below, at any distance."""
        return frozenset(nx.descendants(self.networkx, name))

    def constrained_by(self, name: str) -> tuple[str, ...]:
        """The lowers whose loss this problem's parameters enter."""
        return self._constrained[name]

    def read_by(self, name: str) -> tuple[str, ...]:
        """The uppers whose loss this problem's solution enters."""
        return self._sorted(u for u, _, d in self.networkx.in_edges(name, data=True) if d[LOWER_TO_UPPER])

    def enters(self, name: str) -> tuple[str, ...]:
        """The problems whose loss this one's parameters enter, whichever way the edge points."""
        return self._sorted((*self.constrained_by(name), *self.read_by(name)))

    def _add(self, upper: str, lower: str, kind: str) -> None:
        for name in (upper, lower):
            if name not in self.networkx:
                raise GraphError(
                    f"edge {upper} -> {lower}: no problem is named '{name}'{choices(name, self.networkx, 'problems')}"
                )
        if not self.networkx.has_edge(upper, lower):
            self.networkx.add_edge(upper, lower, **{UPPER_TO_LOWER: False, LOWER_TO_UPPER: False})
        self.networkx.edges[upper, lower][kind] = True

    def _along(self, name: str, kind: str) -> Iterator[str]:
        return (lower for _, lower, edge in self.networkx.out_edges(name, data=True) if edge[kind])

    def _sorted(self, names: Iterable[str]) -> tuple[str, ...]:
        position = {name: i for i, name in enumerate(self.order)}
        return tuple(sorted(names, key=position.__getitem__))

    def _refuse_cycles(self) -> None:
        try:
            cycle = nx.find_cycle(self.networkx)
        except nx.NetworkXNoCycle:
            return
        path = " -> ".join([*(edge[0] for edge in cycle), cycle[0][0]])
        raise GraphError(
            f"the edges form a cycle of uppers and lowers: {path}. Each edge must join an upper to a lower: check that "
            "'u2l' lists {upper: [lowers]} and 'l2u' lists {lower: [uppers]}, and remove one edge of the cycle"
        )

    def _refuse_isolated(self) -> None:
        if len(self.networkx) < 2:
            return
        alone = [name for name in self.networkx if self.networkx.degree(name) == 0]
        if alone:
            raise GraphError(
                f"problem '{alone[0]}' is on no edge, so it would never meet the others; "
                "add an edge, or leave the problem out"
            )

    def _refuse_dead_ends(self) -> None:
        for upper in self.order:
            reaching = self._reaching(upper)
            for lower in self.constrained_by(upper):
                if lower not in reaching:
                    raise GraphError(
                        f"edge {upper} -> {lower} has no way back up: the solution of '{lower}' never enters the loss "
                        f"of '{upper}', so '{upper}' could not learn from it. Add a lower-to-upper edge from "
                        f"'{lower}' (or from a problem that it reaches) to '{upper}'"
                    )

    def _reaching(self, upper: str) -> set[str]:
        """The problems below ``upper`` whose value enters its loss, directly or through others below it."""
        below = self.below(upper)
        values = nx.DiGraph((name, to) for name in below for to in self.enters(name) if to == upper or to in below)
        return nx.ancestors(values, upper) if upper in values else set()


def as_edges(mapping: Mapping[str, Iterable[str]], *, upper_first: bool) -> list[Edge]:
    """``{upper: [lowers]}`` (or ``{lower: [uppers]}`` with ``upper_first=False``) as pairs (upper, lower)."""
    return [(a, b) if upper_first else (b, a) for a, several in mapping.items() for b in several]
