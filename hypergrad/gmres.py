"""Generalised minimal residual method for the inverse-Hessian-vector product.

A x = v is solved with matrix-vector products only; A need be neither symmetric nor definite.
Saad and Schultz 1986 (GMRES: a generalized minimal residual algorithm).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from typing import TYPE_CHECKING

import torch

from .checks import at_least
from .krylov import KrylovMethod
from .precision import Product, rounding
from .registry import register
from .standalone import Level, apply_method
from .tensors import Tensors, dot, norm, scale, subtract, zeros_like

if TYPE_CHECKING:
    from torch import Tensor


@register("gmres")
@dataclass(frozen=True)
class GMRES(KrylovMethod):
    """The x of the Krylov space with the smallest norm(A x - v), for a matrix that is not symmetric.

    A Hessian is symmetric, and MINRES then finds the same x in the memory of five vectors. The derivative of an update
    direction with a backward pass of its own (a straight-through estimator) is not, and needs this method.

    Args:
        iterations: Most products with A to spend, and one more for each restart and for a warm start.
        restart: Start again after so many iterations, which bounds the memory to that many vectors; ``None``: never.
        damping: Solves (A + damping I) x = v.
        tolerance: Stop when the residual norm is at most this fraction of the norm of v.
        warm_start: Start each upper step from the last one's solution.
        curvature: ``"ggn"`` inverts the Gauss-Newton matrix instead of the derivative of the gradient.

    Raises:
        ConfigError: iterations < 1, restart < 1, damping < 0, tolerance < 0 or an unknown curvature.
    """

    iterations: int = 20
    restart: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restart is not None:
            at_least("gmres", "restart", self.restart, 1)

    def iterate(self, product: Product, right: Tensors, target: float) -> Tensors:
        solution, residual = zeros_like(right), right
        left = self.iterations
        while left > 0:
            steps = min(left, self.restart or left)
            done = _cycle(product, solution, residual, steps, target)
            left -= steps
            if done or not left:
                break
            residual = subtract(right, product(solution))
        return solution


def _cycle(product: Product, solution: Tensors, residual: Tensors, steps: int, target: float) -> bool:
    """Improve ``solution`` in place by up to ``steps`` iterations; return whether nothing is left to do."""
    remaining = norm(residual).item()
    if remaining <= target:
        return True
    basis = [scale(residual, 1.0 / remaining)]
    triangle = _Triangle(remaining)
    for _ in range(steps):
        column, following = _arnoldi(product, basis)
        exhausted = column[-1] <= rounding(residual) * max(abs(h) for h in column)
        triangle.append(column)
        if exhausted or abs(triangle.right[-1]) <= target:
            break
        torch._foreach_div_(following, column[-1])
        basis.append(following)
    for vector, weight in zip(basis, triangle.solve(rounding(residual)), strict=False):
        torch._foreach_add_(solution, vector, alpha=weight)
    return exhausted or abs(triangle.right[-1]) <= target


def _arnoldi(product: Product, basis: list[Tensors]) -> tuple[list[float], Tensors]:
    """A times the last basis vector, made orthogonal to all, and the coefficients taken away (Gram-Schmidt)."""
    vector = tuple(t.clone() for t in product(basis[-1]))
    column = []
    for earlier in basis:
        column.append(dot(earlier, vector).item())
        torch._foreach_add_(vector, earlier, alpha=-column[-1])
    return [*column, norm(vector).item()], vector


class _Triangle:
    """The small least-squares problem min norm(r e_1 - Hessenberg y), kept triangular by rotations."""

    def __init__(self, remaining: float) -> None:
        self.columns: list[list[float]] = []
        self.rotations: list[tuple[float, float]] = []
        self.right = [remaining]  # its last entry is the residual norm, up to sign

    def append(self, column: list[float]) -> None:
        for row, (cosine, sine) in enumerate(self.rotations):
            upper, lower = column[row], column[row + 1]
            column[row], column[row + 1] = cosine * upper + sine * lower, cosine * lower - sine * upper
        upper, lower = column[-2], column[-1]
        pivot = hypot(upper, lower)
        cosine, sine = (upper / pivot, lower / pivot) if pivot else (1.0, 0.0)
        self.rotations.append((cosine, sine))
        self.columns.append([*column[:-2], pivot])
        self.right[-1:] = [cosine * self.right[-1], -sine * self.right[-1]]

    def solve(self, smallest: float) -> list[float]:
        """Back substitution. A pivot of zero (a singular matrix) adds nothing."""
        size = len(self.columns)
        limit = smallest * max(abs(self.columns[k][k]) for k in range(size))
        solution = [0.0] * size
        for row in reversed(range(size)):
            rest = self.right[row] - sum(self.columns[k][row] * solution[k] for k in range(row + 1, size))
            pivot = self.columns[row][row]
            solution[row] = 0.0 if abs(pivot) <= limit else rest / pivot
        return solution


def gmres(vector: Sequence[Tensor], curr: Level, prev: Level | Sequence[Level], sync: bool = False) -> Tensors | None:
    """Pull ``vector`` back through the best response of ``curr`` by GMRES.

    See :func:`multilevel.hypergrad.standalone.apply_method` for the arguments, the result and the errors.
    """
    return apply_method(GMRES, vector, curr, prev, sync)
