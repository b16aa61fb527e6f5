"""The identity for the inverse Hessian, autograd for the mixed derivative ("T1-T2", Jacobian-free).

Luketina et al. 2016 (arXiv 1511.06727), equation 5; Fung et al. 2022 (arXiv 2103.12803) for implicit networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .linearization import Linearization
from .method import ImplicitMethod
from .registry import register
from .standalone import Level, apply_method
from .tensors import Tensors

if TYPE_CHECKING:
    from torch import Tensor


@register("identity")
@dataclass(frozen=True)
class Identity(ImplicitMethod):
    """- (d2F / dphi dtheta) v: one double backward and no product with H.

    What DARTS approximates by a finite difference, so also right in the directions that matter only where H is close
    to a multiple of the identity; its length is off by the scale of H.
    """

    def solve(self, at: Linearization, vector: Tensors) -> Tensors:
        return vector


def identity(
    vector: Sequence[Tensor], curr: Level, prev: Level | Sequence[Level], sync: bool = False
) -> Tensors | None:
    """Pull ``vector`` back through the best response of ``curr`` with the identity for the inverse Hessian.

    See :func:`multilevel.hypergrad.standalone.apply_method` for the arguments, the result and the errors.
    """
    return apply_method(Identity, vector, curr, prev, sync)
