"""What a result depends on, looked up in the graph that autograd keeps of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor

NODES = 10_000
"""So far into a graph one looks. torch 2.13 crashes when it frees a chain of 50,000 nodes that Python has seen."""


class Leaves(NamedTuple):
    """Tensors without a history of their own.

    Attributes:
        found: Their identities.
        complete: Whether that is all of them; otherwise the graph is larger than what was looked at.
    """

    found: set[int]
    complete: bool

    def include(self, tensors: Iterable[Tensor]) -> bool:
        """Whether one of some tensors is among them."""
        return any(id(tensor) in self.found for tensor in tensors)


def leaves_behind(result: Tensor, given: Iterable[Tensor] = ()) -> Leaves:
    """The tensors without a history of their own that a result depends on.

    Args:
        result: The result.
        given: Tensors behind which one does not look: what they were computed from is not counted.
    """
    found: set[int] = set()
    seen: set[Any] = {tensor.grad_fn for tensor in given}
    waiting = [result.grad_fn]
    while waiting and len(seen) < NODES:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (variable := getattr(node, "variable", None)) is not None:
            found.add(id(variable))
        waiting.extend(before for before, _ in node.next_functions)
    return Leaves(found, not waiting)
