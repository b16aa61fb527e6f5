"""Minimal residual method for the inverse-Hessian-vector product.

H x = v is solved with matrix-vector products only; H must be symmetric, and may be indefinite.
Paige and Saunders 1975 (Solution of sparse indefinite systems of linear equations, section 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from typing import TYPE_CHECKING

import torch

from .krylov import KrylovMethod
from .precision import Product, rounding
from .registry import register
from .standalone import Level, apply_method
from .tensors import Tensors, dot, norm, scale, zeros_like

if TYPE_CHECKING:
    from torch import Tensor


@register("minres")
@dataclass(frozen=True)
class MINRES(KrylovMethod):
    """The x of the Krylov space with the smallest norm(H x - v): right at saddle points, where CG stops.

    Where H is singular and v is outside its range, x is a least-squares solution.

    Args:
        iterations: Most products with H to spend, one more with a warm start.
        damping: Solves (H + damping I) x = v.
        tolerance: Stop when the residual norm is at most this fraction of the norm of v.
        warm_start: Start each upper step from the last one's solution.
        curvature: ``"ggn"`` inverts the Gauss-Newton matrix instead of H.

    Raises:
        ConfigError: iterations < 1, damping < 0, tolerance < 0 or an unknown curvature.
    """

    iterations: int = 20

    def iterate(self, product: Product, right: Tensors, target: float) -> Tensors:
        solution = zeros_like(right)
        remaining = norm(right).item()
        if remaining <= target:
            return solution
        basis, last_basis = scale(right, 1.0 / remaining), zeros_like(right)
        update, last_update = zeros_like(right), zeros_like(right)
        coupling = above = next_above = diagonal = largest = 0.0
        cosine, sine = -1.0, 0.0
        for _ in range(self.iterations):
            # Lanczos: H basis = coupling * last_basis + centre * basis + next_coupling * next_basis.
            image = product(basis)
            torch._foreach_mul_(last_basis, -coupling)
            torch._foreach_add_(last_basis, image)
            centre = dot(basis, last_basis).item()
            torch._foreach_add_(last_basis, basis, alpha=-centre)
            coupling = norm(last_basis).item()
            # The last rotation, then the new one, which removes the entry below the diagonal.
            above, next_above = next_above, sine * coupling
            beside = cosine * diagonal + sine * centre
            corner = sine * diagonal - cosine * centre
            diagonal = -cosine * coupling
            pivot = hypot(corner, coupling)
            largest = max(largest, abs(centre), coupling)
            if hypot(corner, diagonal) <= rounding(right) * largest:
                break  # norm(H residual) / norm(residual): what is left of v lies where H is zero
            cosine, sine = corner / pivot, coupling / pivot
            length, remaining = cosine * remaining, sine * remaining
            # update <- (basis - beside * update - above * last_update) / pivot, in the memory of last_update.
            torch._foreach_mul_(last_update, -above)
            torch._foreach_add_(last_update, update, alpha=-beside)
            torch._foreach_add_(last_update, basis)
            torch._foreach_div_(last_update, pivot)
            update, last_update = last_update, update
            torch._foreach_add_(solution, update, alpha=length)
            if abs(remaining) <= target or coupling <= rounding(right) * largest:
                break
            torch._foreach_div_(last_basis, coupling)
            basis, last_basis = last_basis, basis
        return solution


def minres(vector: Sequence[Tensor], curr: Level, prev: Level | Sequence[Level], sync: bool = False) -> Tensors | None:
    """Pull ``vector`` back through the best response of ``curr`` by MINRES.

    See :func:`multilevel.hypergrad.standalone.apply_method` for the arguments, the result and the errors.
    """
    return apply_method(MINRES, vector, curr, prev, sync)
