"""The total gradient of one problem: one backward pass for its own part and the cotangents, one sweep for the rest."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..hypergrad.errors import NonFiniteError, ProblemError
from ..hypergrad.hierarchy import Hierarchy
from ..hypergrad.method import Method
from ..hypergrad.tensors import Tensors, filled, norm
from ..problems.level import ProblemLevel
from .graph import Graph
from .relations import Relations


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

    def total(self, name: str, loss: Tensor) -> tuple[Tensor | None, ...]:
        """The total gradient of a problem's loss with respect to its own parameters.

        Args:
            name: The problem.
            loss: Its loss at the current parameters, with its graph, which is freed.

        Returns:
            One tensor per trainable parameter; ``None`` where neither the loss nor any response depends on it.

        Raises:
            ProblemError: The loss has no graph.
        """
        own, read = self._levels[name].parameters, self._read[name]
        if not loss.requires_grad:
            raise ProblemError(
                f"problem '{name}': its loss does not depend on any parameter that can be trained; was it computed "
                "under no_grad, detached, or from another problem that is not its lower?"
            )
        lowers = [p for m in read for p in self._levels[m].parameters]
        gradients = torch.autograd.grad(loss, (*own, *lowers), allow_unused=True)
        direct = gradients[: len(own)]
        swept = self.hierarchy.sweep(name, self._cotangents(read, gradients[len(own) :])) if read else None
        if swept is None:
            self._refuse_standstill(name, direct)
            return direct
        return tuple(s if d is None else s + d for d, s in zip(direct, swept, strict=True))  # s is dense, d perhaps not

    def check_finite(self, name: str, gradients: tuple[Tensor | None, ...], loss: Tensor) -> None:
        """Refuse a gradient that is infinite or not a number. Makes the host wait for the device.

        Raises:
            NonFiniteError: Naming the level, its edges, their methods and the norms.
        """
        present = [g.coalesce().values() if g.is_sparse else g for g in gradients if g is not None]
        size = norm(present).item() if present else 0.0
        value = loss.item()
        if abs(value) < float("inf") and size < float("inf"):
            return
        through = ", ".join(f"{name} -> {m} by {self.hierarchy.method(m)}" for m in self.relations.inside[name])
        raise NonFiniteError(
            f"problem '{name}': loss {value:g}, norm of its gradient {size:g}"
            + (f" (total, through {through})" if through else "")
            + ". Lower the learning rate, clip (gradient_clipping), or damp the method"
        )

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
                cotangents[member] = filled((g.to_dense() if g is not None else None for g in part), parameters)
        return cotangents
