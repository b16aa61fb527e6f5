"""Whose parameters a loss depends on without an edge that says so, and on whose it does not though one does."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from torch import Tensor

from ..hypergrad.errors import NumericsWarning
from ..hypergrad.leaves import leaves_behind
from ..problems.level import ProblemLevel
from .graph import Graph


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
        self._declared = {
            name: [other for other in graph.order if name in graph.constrained_by(other)] for name in graph.order
        }
        self._unseen = set(graph.order)

    def look(self, name: str, loss: Tensor) -> None:
        """Warn of those of a problem's loss, when it is the first of them."""
        if name not in self._unseen:
            return
        self._unseen.remove(name)
        if not self._undeclared[name] and not self._declared[name]:
            return
        leaves = leaves_behind(loss)
        for other in self._undeclared[name]:
            if leaves.include(self._levels[other].parameters):
                warnings.warn(
                    f"problem '{name}': its loss depends on parameters of '{other}', and no edge says so, so no "
                    f"gradient takes that way. Declare ('{name}', '{other}') or ('{other}', '{name}') in edges, the "
                    "upper first (or u2l and l2u in dependencies), or detach what is read if that is meant",
                    NumericsWarning,
                    stacklevel=2,
                )
        if self._levels[name].enters_otherwise or not leaves.complete:
            return
        for other in self._declared[name]:
            if not leaves.include(self._levels[other].parameters):
                warnings.warn(
                    f"problem '{name}': its loss depends on no parameter of '{other}', though an edge says so, and no "
                    "hypergradient goes that way. Was something detached, read as a number (.item()), or written to "
                    "optimizer.param_groups?",
                    NumericsWarning,
                    stacklevel=2,
                )
