"""Truncated Neumann series for the inverse-Hessian-vector product.

Lorraine, Vicol and Duvenaud 2020 (arXiv 1911.02590), equation 5 and algorithm 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Literal

import torch

from .checks import at_least, positive
from .curvature import CurvatureMethod
from .errors import ConfigError, warn_once
from .lanczos import largest_eigenvalue
from .linearization import Linearization
from .memory import forget_after
from .precision import Product, like, working, working_product
from .registry import register
from .standalone import Level, apply_method
from .tensors import Tensors, dot
from .tracing import look

if TYPE_CHECKING:
    from torch import Tensor


@register("neumann")
@dataclass(frozen=True)
class Neumann(CurvatureMethod):
    """H^{-1} v ~ alpha * sum over k = 0..K of (I - alpha H)^k v, with K = iterations.

    Converges when every eigenvalue of alpha H lies between 0 and 2; warns when the terms grow.

    Args:
        iterations: K, the number of products with H. 0 leaves alpha * v.
        alpha: Step of the series, about 1 / (largest eigenvalue of H); ``"auto"`` estimates that by 20 products.
        refresh: Upper steps between two estimates for ``"auto"``.
        curvature: ``"ggn"`` inverts the Gauss-Newton matrix instead of H.

    Raises:
        ConfigError: iterations < 0, alpha <= 0, refresh < 1 or an unknown curvature.
    """

    iterations: int = 1
    alpha: float | Literal["auto"] = 1.0
    refresh: int = field(default=100, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("neumann", "iterations", self.iterations, 0)
        at_least("neumann", "refresh", self.refresh, 1)
        if isinstance(self.alpha, str):
            if self.alpha != "auto":
                raise ConfigError(f"neumann: alpha must be a number above 0 or 'auto', got {self.alpha!r}")
        else:
            positive("neumann", "alpha", self.alpha)

    def pull_back(self, at: Linearization, cotangent: Tensors) -> Tensors:
        result = super().pull_back(at, cotangent)
        if self.alpha == "auto" and not at.differentiable:
            forget_after(at.state, self.name, self.refresh, "neumann.eigenvalue")
        return result

    def solve(self, at: Linearization, vector: Tensors) -> Tensors:
        operator = self.operator(at)
        alpha = self._step(at, operator, vector)
        right = working(vector)
        total = tuple(t.clone() for t in right)
        if self.iterations:
            _add_terms(working_product(operator, vector), total, right, alpha, self.iterations)
        torch._foreach_mul_(total, alpha)
        return like(total, vector)

    def _step(self, at: Linearization, operator: Product, vector: Tensors) -> float:
        if not isinstance(self.alpha, str):
            return self.alpha
        eigenvalue: float | None = at.state.get("neumann.eigenvalue")
        if eigenvalue is None:
            eigenvalue = abs(largest_eigenvalue(operator, vector))
            if isfinite(eigenvalue):  # one diverged step must not spoil the next hundred
                at.state["neumann.eigenvalue"] = eigenvalue
        return 1.0 / eigenvalue if eigenvalue > 0 else 1.0


def _add_terms(product: Product, total: Tensors, right: Tensors, alpha: float, iterations: int) -> None:
    """Add (I - alpha H)^k right to ``total``, for k = 1..iterations."""
    term = tuple(t.clone() for t in right)
    for left in reversed(range(iterations)):
        image = product(term)
        last = (dot(term, term), dot(term, image)) if not left else None
        torch._foreach_add_(term, image, alpha=-alpha)
        torch._foreach_add_(total, term)
    if last is not None:
        look((*last, dot(term, term)), lambda numbers: _check_growth(*numbers, alpha=alpha))


def _check_growth(squared: float, curvature: float, squared_next: float, *, alpha: float) -> None:
    """Warn if the last term is longer than the one before it.

    For a symmetric H that ratio rises with k, and is above 1 only when some eigenvalue of alpha H is outside [0, 2].
    The last terms have turned towards its eigenvector, so their Rayleigh quotient estimates it at no cost.
    """
    if not squared_next > 1.001 * squared:
        return
    eigenvalue = curvature / squared if squared else float("nan")
    remedy = (
        f"alpha must be below 2 / (largest eigenvalue) = {2 / eigenvalue:.3g}; set alpha to about "
        f"{1 / eigenvalue:.3g}, or alpha='auto'"
        if eigenvalue > 0
        else "the lower problem is not at a minimum: train it further (unroll_steps), or use curvature='ggn' or minres"
    )
    warn_once(
        "neumann: growing terms",
        f"neumann: the terms of the series grow by {(squared_next / squared) ** 0.5:.3g} each, so more iterations make "
        f"it worse. H has an eigenvalue of about {eigenvalue:.3g} and alpha = {alpha:.3g}: {remedy}.",
    )


def neumann(vector: Sequence[Tensor], curr: Level, prev: Level | Sequence[Level], sync: bool = False) -> Tensors | None:
    """Pull ``vector`` back through the best response of ``curr`` by a truncated Neumann series.

    See :func:`multilevel.hypergrad.standalone.apply_method` for the arguments, the result and the errors.
    """
    return apply_method(Neumann, vector, curr, prev, sync)
