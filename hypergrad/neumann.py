"""Truncated Neumann series for the inverse-Hessian-vector product.

Lorraine, Vicol and Duvenaud 2020 (arXiv 1911.02590), equation 5 and algorithm 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .checks import at_least, positive
from .linearization import Linearization
from .method import ImplicitMethod
from .registry import register
from .standalone import Level, apply_method
from .tensors import Tensors, add, scale

if TYPE_CHECKING:
    from torch import Tensor


@register("neumann")
@dataclass(frozen=True)
class Neumann(ImplicitMethod):
    """H^{-1} v ~ alpha * sum over k = 0..K of (I - alpha H)^k v, with K = iterations.

    Converges when every eigenvalue of alpha H lies between 0 and 2.

    Args:
        iterations: K, the number of products with H. 0 leaves alpha * v.
        alpha: Step of the series, about 1 / (largest eigenvalue of H).

    Raises:
        ConfigError: iterations < 0 or alpha <= 0.
    """

    iterations: int = 1
    alpha: float = 1.0

    def __post_init__(self) -> None:
        at_least("neumann", "iterations", self.iterations, 0)
        positive("neumann", "alpha", self.alpha)

    def solve(self, at: Linearization, vector: Tensors) -> Tensors:
        term = total = vector
        for _ in range(self.iterations):
            term = add(term, self.matrix_product(at, term), -self.alpha)
            total = add(total, term)
        return scale(total, self.alpha)


def neumann(vector: Sequence[Tensor], curr: Level, prev: Level | Sequence[Level], sync: bool = False) -> Tensors | None:
    """Pull ``vector`` back through the best response of ``curr`` by a truncated Neumann series.

    See :func:`multilevel.hypergrad.standalone.apply_method` for the arguments, the result and the errors.
    """
    return apply_method(Neumann, vector, curr, prev, sync)
