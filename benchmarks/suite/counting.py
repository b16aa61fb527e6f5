"""Counting backward passes: everyone's, where autograd's engine begins them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from torch import Tensor
from torch.autograd import Variable


@dataclass
class Passes:
    """Backward passes.

    Attributes:
        gradients: Of a loss.
        recorded: Of a loss, such that they can be differentiated again.
        products: Of something else than a loss: products of a vector with a Hessian, a mixed derivative, a step.
    """

    gradients: int = 0
    recorded: int = 0
    products: int = 0

    def __str__(self) -> str:
        return f"{self.gradients} / {self.recorded} / {self.products}"


class CountingEngine:
    """Stands before torch's engine.

    Args:
        engine: Torch's.
        passes: Where to count.
    """

    def __init__(self, engine: Any, passes: Passes) -> None:
        self._engine, self._passes = engine, passes

    def run_backward(
        self,
        tensors: Sequence[Tensor],
        gradients: Any,
        keep_graph: bool,
        create_graph: bool,
        *args: Any,
        **options: Any,
    ) -> Any:
        """Count one, and run it."""
        if any(not isinstance(t, Tensor) or t.dim() for t in tensors):  # or where in a graph one was computed
            self._passes.products += 1
        elif create_graph:
            self._passes.recorded += 1
        else:
            self._passes.gradients += 1
        return self._engine.run_backward(tensors, gradients, keep_graph, create_graph, *args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


@contextmanager
def counted() -> Iterator[Passes]:
    """Count those that start inside."""
    passes = Passes()
    with patch.object(Variable, "_execution_engine", CountingEngine(Variable._execution_engine, passes)):
        yield passes
