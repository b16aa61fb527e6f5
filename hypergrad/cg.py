"""Conjugate gradient for the inverse-Hessian-vector product.

H x = v is solved with matrix-vector products only; H must be symmetric positive definite.
Pedregosa 2016 (arXiv 1602.02355); Rajeswaran et al. 2019 (arXiv 1909.04630), whose proximal weight is the damping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .checks import positive
from .errors import warn_once
from .krylov import KrylovMethod
from .precision import Product
from .registry import register
from .standalone import Level, apply_method
from .tensors import Tensors, add, dot, inner, scale, zeros_like
from .tracing import look

if TYPE_CHECKING:
    from torch import Tensor


@register("cg")
@dataclass(frozen=True)
class CG(KrylovMethod):
    """Conjugate gradient: exact after as many iterations as H has distinct eigenvalues.

    Args:
        iterations: Most products with H to spend, one more with a warm start.
        alpha: Scales the system and its right-hand side alike, (alpha H) x = alpha v. The solution does not depend on
            it.
        damping: Solves (H + damping I) x = v. Raise it when H is singular or indefinite.
        tolerance: Stop when the residual norm is at most this fraction of the norm of v. On a GPU each look at it makes
            the host wait: with the default, nothing is looked at there, and all iterations are spent.
        warm_start: Start each upper step from the last one's solution.
        curvature: ``"ggn"`` inverts the Gauss-Newton matrix instead of H.

    Raises:
        ConfigError: iterations < 1, alpha <= 0, damping < 0, tolerance < 0 or an unknown curvature.
    """

    iterations: int = 1
    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("cg", "alpha", self.alpha)

    def iterate(self, product: Product, right: Tensors, target: float) -> Tensors:
        solution = zeros_like(right)
        residual = scale(right, self.alpha)
        direction = tuple(t.clone() for t in residual)
        squared = inner(residual, residual)
        for iteration in range(self.iterations):
            if squared <= (self.alpha * target) ** 2:
                break
            image = product(direction)
            curvature = self.alpha * inner(direction, image)
            if curvature <= 0:
                # Going on would walk away from the solution. The first direction is v itself, the identity's answer
                # (Nocedal & Wright 2006, algorithm 7.1).
                _warn_negative_curvature()
                return right if iteration == 0 else solution
            step = squared / curvature
            torch._foreach_add_(solution, direction, alpha=step)
            torch._foreach_add_(residual, image, alpha=-step * self.alpha)
            previous, squared = squared, inner(residual, residual)
            torch._foreach_mul_(direction, squared / previous)
            torch._foreach_add_(direction, residual)
        return solution

    def iterate_unread(self, product: Product, right: Tensors, target: float) -> Tensors:
        solution = zeros_like(right)
        residual = direction = scale(right, self.alpha)
        squared = dot(residual, residual)
        going, met = ~(squared <= (self.alpha * target) ** 2), torch.zeros_like(squared, dtype=torch.bool)
        for iteration in range(self.iterations):
            image = product(direction)
            curvature = self.alpha * dot(direction, image)
            wrong = going & (curvature <= 0)
            going, met = going & ~wrong, met | wrong
            if iteration == 0:
                solution = tuple(torch.where(wrong, v, s) for v, s in zip(right, solution, strict=True))
            step = torch.where(going, squared / curvature, 0.0)
            solution = add(solution, direction, step)
            residual = add(residual, image, -step * self.alpha)
            previous, squared = squared, dot(residual, residual)
            direction = add(residual, direction, torch.where(going, squared / previous, 0.0))
            going = going & ~(squared <= (self.alpha * target) ** 2)
        look((met,), lambda numbers: _warn_negative_curvature() if numbers[0] else None)
        return solution


def _warn_negative_curvature() -> None:
    warn_once(
        "cg: negative curvature",
        "cg met a direction of zero or negative curvature and stopped there: the lower problem is not at a strict "
        "minimum. Train the lower further (unroll_steps), raise CG(damping=...) above the most negative curvature, "
        "or use minres, which accepts indefinite Hessians.",
    )


def cg(vector: Sequence[Tensor], curr: Level, prev: Level | Sequence[Level], sync: bool = False) -> Tensors | None:
    """Pull ``vector`` back through the best response of ``curr`` by conjugate gradient.

    See :func:`multilevel.hypergrad.standalone.apply_method` for the arguments, the result and the errors.
    """
    return apply_method(CG, vector, curr, prev, sync)
