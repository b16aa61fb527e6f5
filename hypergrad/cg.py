"""Conjugate gradient for the inverse-Hessian-vector product.

H x = v is solved with matrix-vector products only; H must be symmetric positive definite.
Pedregosa 2016 (arXiv 1602.02355); Rajeswaran et al. 2019 (arXiv 1909.04630), where the damping is their proximal weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .checks import at_least, non_negative, positive
from .errors import warn_once
from .linearization import Linearization
from .method import ImplicitMethod
from .registry import register
from .standalone import Level, apply_method
from .tensors import Tensors, add, dot, scale, zeros_like

if TYPE_CHECKING:
    from torch import Tensor


@register("cg")
@dataclass(frozen=True)
class CG(ImplicitMethod):
    """Conjugate gradient: exact after as many iterations as H has distinct eigenvalues.

    Args:
        iterations: Most products with H to spend.
        alpha: Scales the system and its right-hand side alike, (alpha H) x = alpha v. The solution does not depend on
            it; it can keep a half-precision residual in range.
        damping: Solves (H + damping I) x = v. Raise it when H is singular or indefinite.
        tolerance: Stop when the residual norm is at most this fraction of the norm of v.

    Raises:
        ConfigError: iterations < 1, alpha <= 0, damping < 0 or tolerance < 0.
    """

    iterations: int = 1
    alpha: float = 1.0
    damping: float = 0.0
    tolerance: float = 1e-12

    def __post_init__(self) -> None:
        at_least("cg", "iterations", self.iterations, 1)
        positive("cg", "alpha", self.alpha)
        non_negative("cg", "damping", self.damping)
        non_negative("cg", "tolerance", self.tolerance)

    def solve(self, at: Linearization, vector: Tensors) -> Tensors:
        solution = zeros_like(vector)
        residual = direction = scale(vector, self.alpha)
        squared = dot(residual, residual)
        target = squared * self.tolerance**2
        for iteration in range(self.iterations):
            if squared <= target:  # also where v = 0: then x = 0
                break
            product = scale(add(self.matrix_product(at, direction), direction, self.damping), self.alpha)
            curvature = dot(direction, product)
            if curvature <= 0:
                # Going on would walk away from the solution. The first direction is v itself, the identity's answer
                # (Nocedal & Wright 2006, algorithm 7.1).
                _warn_negative_curvature()
                return vector if iteration == 0 else solution
            step = squared / curvature
            solution = add(solution, direction, step)
            residual = add(residual, product, -step)
            previous, squared = squared, dot(residual, residual)
            direction = add(residual, direction, squared / previous)
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
