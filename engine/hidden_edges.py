"""Whose parameters a loss depends on without an edge that says so: no gradient takes that way."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..hypergrad.errors import NumericsWarning
from ..problems.level import ProblemLevel
from .graph import Graph

NODES = 10_000
"""So far into a graph one looks. torch 2.13 crashes when it frees a chain of 50,000 nodes that Python has seen."""


class HiddenEdges:
    """Looks at the first loss of each problem.

    Args:
        graph: The edges that were declared.
        levels: The problems' levels by name.
    """

    def __init__(self, graph: Graph, levels: Mapping[str, ProblemLevel]) -> None:
        self._levels = levels
        self._undeclared = {
            name: [other for other in graph.order if other != name and name not in graph.enters(other)]
            for name in graph.order
        }
        self._unseen = set(graph.order)

    def look(self, name: str, loss: Tensor) -> None:
        """Warn of those of a problem's loss, when it is the first of them."""
        if name not in self._unseen:
            return
        self._unseen.remove(name)
        leaves = _leaves(loss) if self._undeclared[name] else set()
        for other in self._undeclared[name]:
            if any(id(p) in leaves for p in self._levels[other].parameters):
                warnings.warn(
                    f"problem '{name}': its loss depends on parameters of '{other}', and no edge says so, so no "
                    f"gradient takes that way. Declare ('{name}', '{other}') or ('{other}', '{name}') in edges, the "
                    "upper first (or u2l and l2u in dependencies), or detach what is read if that is meant",
                    NumericsWarning,
                    stacklevel=2,
                )


def _leaves(loss: Tensor) -> set[int]:
    """The identities of the tensors without a history of their own that a loss depends on."""
    found: set[int] = set()
    seen: set[Any] = set()
    waiting = [loss.grad_fn]
    while waiting and len(seen) < NODES:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (variable := getattr(node, "variable", None)) is not None:
            found.add(id(variable))
        waiting.extend(before for before, _ in node.next_functions)
    return found
