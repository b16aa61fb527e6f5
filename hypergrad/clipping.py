"""Clipping a gradient as ``torch.nn.utils`` does, in a way that can be differentiated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .tensors import dot
from .update_rules import safe_sqrt

Gradient = Sequence[Tensor | None]


@dataclass(frozen=True)
class Clipping:
    """How far a gradient may go.

    Attributes:
        limit: Largest norm of all tensors together, or largest magnitude of each element; 0 for no clipping.
        by: Which of the two.
    """

    limit: float = 0.0
    by: Literal["norm", "value"] = "norm"

    def __bool__(self) -> bool:
        return self.limit > 0

    def __call__(self, gradient: Gradient) -> tuple[Tensor | None, ...]:
        """The clipped gradient, as a differentiable function of the gradient."""
        present = tuple(g for g in gradient if g is not None)
        if not self or not present:
            return tuple(gradient)
        if self.by == "value":
            return tuple(None if g is None else g.clamp(-self.limit, self.limit) for g in gradient)
        # The norm's root has no derivative at zero.
        factor = torch.clamp(self.limit / (safe_sqrt(dot(present, present)) + 1e-6), max=1.0)
        return tuple(None if g is None else g * factor for g in gradient)

    def in_place(self, parameters: Sequence[Tensor]) -> None:
        """Clip the ``.grad`` of parameters."""
        if not self:
            return
        dense = [_dense(p) for p in parameters]
        if self.by == "value":
            torch.nn.utils.clip_grad_value_(dense, self.limit)
        else:
            torch.nn.utils.clip_grad_norm_(dense, self.limit)


def _dense(parameter: Tensor) -> Tensor:
    """The parameter; one with a sparse gradient (``nn.Embedding(sparse=True)``) stands aside for that one's entries."""
    if parameter.grad is None or not parameter.grad.is_sparse:
        return parameter
    parameter.grad = parameter.grad.coalesce()
    entries = parameter.grad.values()
    stands_in = torch.empty_like(entries)
    stands_in.grad = entries  # the same memory
    return stands_in
