"""The half of a recorded graph that runs later, if ever: compiled when it first does."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence

from torch import Tensor, fx

from ...hypergrad.errors import CompileWarning, TracingError
from ...hypergrad.tensors import laid_out
from .graphs import operations
from .halves import Halves
from .lowering import Function
from .parts import compiled_in_parts
from .shown import show
from .trial import NUDGE, NUDGES, coarsest, difference, digests, nudged, spread


class Later:
    """Computes some outputs of the later half.

    Args:
        parts: The halves.
        outputs: The numbers of the outputs; ``None`` for what is not asked for, or not there.
        name: The problem.
        took: Is told how many seconds it took to compile.
    """

    def __init__(self, parts: Halves, outputs: Sequence[int | None], name: str, took: Callable[[float], None]) -> None:
        self._parts = parts
        self._name = name
        self._took = took
        self._asked = [number for number in outputs if number is not None]
        self._places = [None if number is None else self._asked.index(number) for number in outputs]
        self._function: Function | None = None
        self._untried: fx.GraphModule | None = None

    def __call__(self, given: Sequence[Tensor]) -> list[Tensor | None]:
        """The outputs, given what the later half takes."""
        if not self._asked:
            return [None] * len(self._places)
        if self._function is None:
            self._function = self._compiled()
        inputs = list(map(laid_out, given, self._parts.examples))
        found = self._function(*inputs)
        if self._untried is not None:
            found = self._tried(self._untried, inputs, found)
        return [None if place is None else found[place] for place in self._places]

    def _compiled(self) -> Function:
        graph = fx.GraphModule(self._parts.later, fx.Graph())
        results = graph.graph.graph_copy(self._parts.later.graph, {})
        assert isinstance(results, (list, tuple))
        graph.graph.output([results[number] for number in self._asked])
        graph.graph.eliminate_dead_code()
        graph.recompile()
        begun = time.perf_counter()
        with show(f"the way back through the steps of '{self._name}'", operations(graph)):
            try:
                function = compiled_in_parts(graph, self._parts.examples)
                self._untried = graph
                return function
            except TracingError:  # run as it is, it does the same
                return graph
            finally:
                self._took(time.perf_counter() - begun)

    def _tried(self, graph: fx.GraphModule, inputs: Sequence[Tensor], found: Sequence[Tensor]) -> Sequence[Tensor]:
        """What it found, and goes on with: that of the graph as it is, where the compiler made something else of it."""
        precision, mine, right = coarsest(graph), digests(found), digests(graph(*inputs))
        if not any(digest.size for digest in right):  # whatever computes zeros would agree on them
            return found
        self._untried = None
        if difference(right, mine, precision, 0.0) is None:
            return found
        others = [digests(graph(*nudged(inputs, NUDGE * precision, seed))) for seed in range(NUDGES)]
        if (differs := difference(right, mine, precision, spread(right, others))) is None:
            return found
        warnings.warn(
            f"the way back through the steps of problem '{self._name}' is not compiled and runs eagerly: its program "
            f"finds other derivatives than what it was made of ({differs})",
            CompileWarning,
            stacklevel=2,
        )
        self._function = graph
        return list(graph(*inputs))
