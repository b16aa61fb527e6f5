"""Nystrom approximation of the inverse-Hessian-vector product.

Hataya and Yamada 2023 (arXiv 2302.09726), equation 6. With C = H[:, I] the columns of H at ``rank`` random places and
W = H[I, I], C W^+ C^T stands for H, and its inverse with damping is that of a small matrix (Woodbury).
H should be positive semi-definite; with curvature="ggn" it is.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .checks import at_least, positive
from .curvature import CurvatureMethod
from .errors import NonFiniteError
from .linearization import Linearization
from .memory import forget_after, recall, renewals
from .precision import Product, like, resolution, working, working_product
from .registry import register
from .standalone import Level, apply_method
from .tensors import Tensors, flatten, scale, subtract, total_size

if TYPE_CHECKING:
    from torch import Tensor


@register("nystrom")
@dataclass(frozen=True)
class Nystrom(CurvatureMethod):
    """(C W^+ C^T + damping I)^{-1} v. Cannot diverge: its norm is at most norm(v) / damping.

    Args:
        rank: Number of columns: products with H to spend for a sketch, and vectors kept. At most the number of
            parameters; with all of them the answer is that of the damped dense solve.
        damping: rho; directions of H outside the sketch count as this curvature.
        reuse: Upper steps that share one sketch; a new one takes other columns.
        seed: Of the choice of columns.
        curvature: ``"ggn"`` sketches the Gauss-Newton matrix instead of H.

    Raises:
        ConfigError: rank < 1, damping <= 0, reuse < 1, seed < 0 or an unknown curvature.
    """

    rank: int = 10
    damping: float = 0.01
    reuse: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("nystrom", "rank", self.rank, 1)
        positive("nystrom", "damping", self.damping)
        at_least("nystrom", "reuse", self.reuse, 1)
        at_least("nystrom", "seed", self.seed, 0)

    def pull_back(self, at: Linearization, cotangent: Tensors) -> Tensors:
        result = super().pull_back(at, cotangent)
        if not at.differentiable:
            forget_after(at.state, self.name, self.reuse, "nystrom.factor")
        return result

    def solve(self, at: Linearization, vector: Tensors) -> Tensors:
        right = working(vector)
        factor = self._factor(at, vector, right)
        # (B B^T + rho I)^{-1} v = (v - B (rho I + B^T B)^{-1} B^T v) / rho: no inverse of W, whose eigenvalues may be
        # tiny, is left in it.
        rows = [f.reshape(len(f), t.numel()) for f, t in zip(factor, right, strict=True)]
        inner = _sum([r @ r.mT for r in rows])
        inner.diagonal().add_(self.damping)
        seen = _sum([r @ t.reshape(-1) for r, t in zip(rows, right, strict=True)])
        weights = torch.cholesky_solve(seen.unsqueeze(1), torch.linalg.cholesky(inner)).squeeze(1)
        low_rank = tuple((weights @ r).view_as(t) for r, t in zip(rows, right, strict=True))
        return like(scale(subtract(right, low_rank), 1.0 / self.damping), vector)

    def _factor(self, at: Linearization, vector: Tensors, right: Tensors) -> Tensors:
        """B^T with B B^T = C W^+ C^T: one tensor of shape (columns, *shape) per solution tensor."""
        kept: Tensors | None = at.state.get("nystrom.factor")
        if kept is not None:
            model = tuple(t.expand(len(kept[0]), *t.shape) for t in right)
            kept = recall(at.state, "nystrom.factor", model)
        if kept is not None:
            return kept
        size = total_size(vector)
        # Not torch.randperm: it would allocate an index per parameter.
        drawn = random.Random(f"{self.seed}/{renewals(at.state, self.name)}")
        chosen = sorted(drawn.sample(range(size), min(self.rank, size)))
        factor = _sketch(working_product(self.operator(at), vector), right, chosen)
        if self.reuse > 1:
            at.state["nystrom.factor"] = factor
        return factor


def _sketch(product: Product, model: Tensors, chosen: list[int]) -> Tensors:
    columns = [product(unit_vector(model, index)) for index in chosen]
    places = torch.tensor(chosen, device=model[0].device)
    core = torch.stack([flatten(column)[places] for column in columns])
    if not core.isfinite().all():
        raise NonFiniteError("nystrom: a product with H is infinite or not a number: the lower problem has diverged")
    values, vectors = torch.linalg.eigh((core + core.mT) / 2)
    # W is singular where H has a lower rank than the sketch, and rounding makes its zeros look like +-1e-16: what they
    # carry of C is noise. Negative eigenvalues break the assumption; without them the result stays bounded.
    kept = values > len(values) * resolution(model) * values.abs().amax()
    mixing = (vectors[:, kept] / values[kept].sqrt()).mT
    return tuple(torch.tensordot(mixing, torch.stack(pieces), dims=1) for pieces in zip(*columns, strict=True))


def unit_vector(model: Tensors, index: int) -> Tensors:
    """1 at ``index``, counted through all tensors one after another, and 0 elsewhere."""
    vector = []
    for tensor in model:
        piece = torch.zeros_like(tensor)
        if 0 <= index < piece.numel():
            piece.view(-1)[index] = 1.0
        index -= piece.numel()
        vector.append(piece)
    return tuple(vector)


def _sum(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).sum(0)


def nystrom(vector: Sequence[Tensor], curr: Level, prev: Level | Sequence[Level], sync: bool = False) -> Tensors | None:
    """Pull ``vector`` back through the best response of ``curr`` by a Nystrom approximation.

    See :func:`multilevel.hypergrad.standalone.apply_method` for the arguments, the result and the errors.
    """
    return apply_method(Nystrom, vector, curr, prev, sync)
