"""DARTS: the identity for the inverse Hessian, a central difference of first-order gradients for the mixed derivative.

Liu, Simonyan and Yang 2019 (arXiv 1806.09055), equations 7 and 8 without the lower learning rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from .checks import positive
from .finite_difference import difference_pull_back
from .linearization import Linearization
from .method import InverseMethod
from .registry import register
from .standalone import Level, apply_method
from .tensors import Tensors

if TYPE_CHECKING:
    from torch import Tensor


@register("darts")
@dataclass(frozen=True)
class Darts(InverseMethod):
    """- [dF/dphi(theta + r v) - dF/dphi(theta - r v)] / 2r with r = alpha / norm(v).

    Two first-order gradients, no double backward. On a quadratic it equals - B v exactly, B the mixed derivative; the
    distance to the true hypergradient is that of the identity to H^{-1}.

    It differences dF/dphi over theta, which is the mixed derivative of the *objective*. Where ``training_step``
    detaches part of its loss the update direction is no gradient, the two mixed derivatives differ, and this method is
    wrong (60-120 % on Meta-Weight-Net with ``loss.detach()``): use ``identity``, ``neumann`` or ``cg`` there.

    Args:
        alpha: Length of the shift in the space of the solution.

    Raises:
        ConfigError: alpha <= 0.
    """

    differences: ClassVar[bool] = True

    alpha: float = 0.01

    def __post_init__(self) -> None:
        positive("darts", "alpha", self.alpha)

    def pull_back(self, at: Linearization, cotangent: Tensors) -> Tensors:
        return difference_pull_back(at, self.solve(at, cotangent), self.alpha)

    def solve(self, at: Linearization, vector: Tensors) -> Tensors:
        return vector


def darts(vector: Sequence[Tensor], curr: Level, prev: Level | Sequence[Level], sync: bool = False) -> Tensors | None:
    """Pull ``vector`` back through the best response of ``curr`` by a central difference.

    See :func:`multilevel.hypergrad.standalone.apply_method` for the arguments, the result and the errors.
    """
    return apply_method(Darts, vector, curr, prev, sync)
