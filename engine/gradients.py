"""The total gradient of one problem: one backward pass for its own part and the cotangents, one sweep for the rest."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from ..hypergrad.autograd import scalar_gradients
from ..hypergrad.errors import ProblemError
from ..hypergrad.hierarchy import Hierarchy
from ..hypergrad.method import Method
from ..hypergrad.tensors import Tensors, filled
from ..problems.level import ProblemLevel
from .graph import Graph
from .hidden_edges import HiddenEdges
from .relations import Relations
from .repeatability import Repeatability
from .times import Stopwatch

Differentiate = Callable[[Tensor, Tensors], tuple[Tensor | None, ...]]


class LevelGradients(NamedTuple):
    """The gradients of one problem's loss on one batch; one tensor per trainable parameter in each.

    Attributes:
        total: What the problem descends; ``None`` where neither the loss nor any response depends on a parameter.
        direct: The part that its own parameters have in the loss.
        swept: The part through the lowers, the hypergradient proper; ``None`` where no lower responds.
        cotangents: Derivatives of the loss with respect to the lowers' solutions, by name.
    """

    total: tuple[Tensor | None, ...]
    direct: tuple[Tensor | None, ...]
    swept: Tensors | None
    cotangents: Mapping[str, Tensors]


class Gradients:
    """Differentiates losses through a hierarchy.

    Args:
        graph: Who is above whom.
        levels: The problems' levels by name.
        total: Let the lowers of middle levels respond (``response="total"``).
        methods: Methods to use instead of the problems' own, by name.
    """

    def __init__(
        self,
        graph: Graph,
        levels: Mapping[str, ProblemLevel],
        *,
        total: bool,
        methods: Mapping[str, Method] | None = None,
    ) -> None:
        self.relations = Relations(graph)
        self.hierarchy = Hierarchy(
            levels,
            inside=self.relations.inside,
            inputs=self.relations.inputs,
            held=self.relations.held,
            total=total,
            methods=methods,
        )
        self._levels = levels
        # The lowers whose solution enters the loss itself: each gets its cotangent from the one backward pass.
        self._read = {
            name: [m for m in self.relations.inside[name] if name in graph.read_by(m)] for name in graph.order
        }
        self._wrt = self._parameters()
        # A comparison of methods says nothing.
        self._hidden = HiddenEdges(graph, levels) if methods is None else None
        responding = {member for members in self.relations.inside.values() for member in members}
        self._repeatability = Repeatability(responding, levels) if methods is None else None

    def rebound(self) -> Gradients:
        """The same, for what the parameters of the levels are now."""
        new = copy.copy(self)
        new._wrt = new._parameters()
        return new

    def total(
        self,
        name: str,
        loss: Tensor,
        stopwatch: Stopwatch | None = None,
        differentiate: Differentiate = scalar_gradients,
    ) -> LevelGradients:
        """The total gradient of a problem's loss with respect to its own parameters.

        Args:
            name: The problem.
            loss: Its loss at the current parameters, with its graph, which is freed.
            stopwatch: Times the backward pass and the sweep.
            differentiate: Takes the gradients of the loss.

        Raises:
            ProblemError: The loss has no graph, or a parameter was frozen since the engine was built.
        """
        direct, cotangents = self.without_sweep(name, loss, differentiate)
        if stopwatch is not None:
            stopwatch.lap("backward")
        return self.swept(name, direct, cotangents, stopwatch)

    def without_sweep(
        self, name: str, loss: Tensor, differentiate: Differentiate = scalar_gradients
    ) -> tuple[tuple[Tensor | None, ...], dict[str, Tensors]]:
        """The direct gradient and the cotangents of :meth:`total`."""
        own, read = self._levels[name].parameters, self._read[name]
        if not loss.requires_grad:
            raise ProblemError(
                f"problem '{name}': its loss does not depend on any parameter that can be trained; was it computed "
                "under no_grad, detached, or from another problem that is not its lower?"
            )
        if self._hidden is not None:
            self._hidden.look(name, loss)
        try:
            gradients = differentiate(loss, self._wrt[name])
        except RuntimeError as error:
            for member in (name, *read):
                self._refuse_frozen(member, error)
            raise
        if self._repeatability is not None:  # once the graph, which takes the most memory, is gone
            self._repeatability.look(name, loss)
        return gradients[: len(own)], self._cotangents(read, gradients[len(own) :]) if read else {}

    def swept(
        self,
        name: str,
        direct: tuple[Tensor | None, ...],
        cotangents: dict[str, Tensors],
        stopwatch: Stopwatch | None = None,
    ) -> LevelGradients:
        """:meth:`total`, given what :meth:`without_sweep` found."""
        swept = None
        if cotangents:
            swept = self.hierarchy.sweep(name, cotangents)
            if stopwatch is not None:
                stopwatch.lap("sweep")
        if swept is None:
            if direct[0] is None:
                self._refuse_standstill(name, direct)
            return LevelGradients(direct, direct, None, cotangents)
        # The swept part is dense, the direct one perhaps not.
        total = tuple(s if d is None else s + d for d, s in zip(direct, swept, strict=True))
        return LevelGradients(total, direct, swept, cotangents)

    def _parameters(self) -> dict[str, Tensors]:
        """What the loss of each problem is differentiated by: its own parameters and those of the lowers it reads."""
        return {
            name: tuple(p for m in (name, *read) for p in self._levels[m].parameters)
            for name, read in self._read.items()
        }

    def _refuse_frozen(self, name: str, error: RuntimeError) -> None:
        frozen = [tuple(p.shape) for p in self._levels[name].parameters if not p.requires_grad]
        if frozen:
            raise ProblemError(
                f"problem '{name}': a parameter of shape {frozen[0]} does not require a gradient any more, and an "
                "engine trains and differentiates those that did when it was built; freeze parameters before, or build "
                "another engine from where this one is"
            ) from error

    def _refuse_standstill(self, name: str, direct: tuple[Tensor | None, ...]) -> None:
        if all(g is None for g in direct):
            read = ", ".join(self._read[name]) or "none"
            raise ProblemError(
                f"problem '{name}': its loss depends neither on its own parameters nor on the solution of a lower that "
                f"responds to it (such lowers: {read}), so it could not learn; was something detached, or an edge of "
                "'u2l' or 'l2u' left out?"
            )

    def _cotangents(self, read: list[str], flat: tuple[Tensor | None, ...]) -> dict[str, Tensors]:
        cotangents, start = {}, 0
        for member in read:
            parameters = self._levels[member].parameters
            part = flat[start : start + len(parameters)]
            start += len(parameters)
            if any(g is not None for g in part):
                dense = (g.to_dense() if g is not None and g.is_sparse else g for g in part)
                cotangents[member] = filled(dense, parameters)
        return cotangents
