"""The inverse-Hessian-vector product by a dense factorisation: the yardstick for the others, on small problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .checks import at_least, non_negative
from .curvature import CurvatureMethod
from .errors import ConfigError, NonFiniteError, warn_once
from .linearization import Linearization
from .precision import Product, like, resolution, working, working_product
from .registry import register
from .standalone import Level, apply_method
from .tensors import Tensors, flatten, total_size, unflatten

if TYPE_CHECKING:
    from torch import Tensor


@register("exact")
@dataclass(frozen=True)
class Exact(CurvatureMethod):
    """(H + damping I)^+ v, with H built from one product per parameter; exact up to rounding.

    ^+ is the pseudo-inverse: where H is singular the answer is the shortest least-squares solution, which is the right
    one when v has no component along the flat directions (a scale invariance, say). A warning says when it has one.

    Args:
        damping: Added to the diagonal of H.
        max_size: Refuse problems with more parameters than this: time grows with the cube, memory with the square.
        curvature: ``"ggn"`` inverts the Gauss-Newton matrix instead of H.

    Raises:
        ConfigError: damping < 0, max_size < 1 or an unknown curvature.
    """

    damping: float = 0.0
    max_size: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        non_negative("exact", "damping", self.damping)
        at_least("exact", "max_size", self.max_size, 1)

    def solve(self, at: Linearization, vector: Tensors) -> Tensors:
        size = total_size(vector)
        if size > self.max_size:
            raise ConfigError(
                f"exact: the problem has {size} parameters, more than max_size = {self.max_size}; its Hessian alone "
                f"takes {size**2 * vector[0].element_size() / 2**30:.1f} GiB and {size} products. Use cg, minres or "
                f"nystrom, or raise Exact(max_size={size}) if you mean it"
            )
        right = working(vector)
        matrix = dense(working_product(self.operator(at), vector, self.damping), right)
        return like(unflatten(_pseudo_inverse_product(matrix, flatten(right)), right), vector)


def dense(product: Product, model: Sequence[Tensor]) -> Tensor:
    """The matrix that ``product`` multiplies by, one column per entry of ``model``."""
    size = total_size(model)
    unit = torch.zeros(size, dtype=model[0].dtype, device=model[0].device)
    columns = []
    for index in range(size):
        unit[index] = 1.0
        columns.append(flatten(product(unflatten(unit.clone(), model))))
        unit[index] = 0.0
    return torch.stack(columns, dim=1)


def _pseudo_inverse_product(matrix: Tensor, vector: Tensor) -> Tensor:
    if not matrix.isfinite().all():
        raise NonFiniteError(
            "exact: the Hessian holds values that are infinite or not a number: the lower problem has diverged, or its "
            "loss has no second derivative there (a square root or a norm at zero)"
        )
    left, values, right = _spectrum(matrix)
    flat = values.abs() <= len(values) * resolution((matrix,)) * values.abs().amax()
    coordinates = left.mT @ vector
    if flat.any() and coordinates[flat].norm() > resolution((matrix,)) ** 0.5 * vector.norm():
        warn_once(
            "exact: singular",
            f"exact: H is singular along {int(flat.sum())} of its {len(values)} directions and the cotangent points "
            "along them, so no solution exists; they were left out. Set Exact(damping=...), or regularise the lower.",
        )
    return right @ torch.where(flat, 0.0, coordinates / torch.where(flat, 1.0, values))


def _spectrum(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(U, s, V) with matrix = U diag(s) V^T."""
    skew = (matrix - matrix.mT).abs().amax()
    if skew > resolution((matrix,)) ** 0.5 * matrix.abs().amax():  # a loss with a backward pass of its own
        left, values, right = torch.linalg.svd(matrix)
        return left, values, right.mT
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    return vectors, values, vectors


def exact(vector: Sequence[Tensor], curr: Level, prev: Level | Sequence[Level], sync: bool = False) -> Tensors | None:
    """Pull ``vector`` back through the best response of ``curr`` by a dense solve.

    See :func:`multilevel.hypergrad.standalone.apply_method` for the arguments, the result and the errors.
    """
    return apply_method(Exact, vector, curr, prev, sync)
