"""The matrix that implicit methods invert: the Hessian, or its Gauss-Newton part.

The Hessian of a loss l(z, theta) with network outputs z(theta) is

    H = G + sum over k of (dl/dz_k) d2z_k/dtheta2.

G, the generalised Gauss-Newton matrix, is J^T (d2l/dz2) J plus the curvature of what the loss reads from theta
directly (weight decay). It is positive semi-definite wherever the loss is convex in (z, theta), also far from a
minimum, where H is not. Schraudolph 2002 (Fast curvature matrix-vector products); Martens 2020 (arXiv 1412.1193).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from .errors import ConfigError, ProblemError
from .linearization import Linearization
from .method import ImplicitMethod
from .precision import Product
from .tensors import Tensors, add, filled, subtract

KINDS = ("hessian", "ggn")


@dataclass(frozen=True)
class CurvatureMethod(ImplicitMethod):
    """An implicit method that can stand on Gauss-Newton curvature. The mixed derivative stays that of the objective.

    Args:
        curvature: ``"hessian"``, or ``"ggn"``, for which ``training_step`` also returns ``"outputs"``.

    Raises:
        ConfigError: Another curvature.
    """

    curvature: Literal["hessian", "ggn"] = field(default="hessian", kw_only=True)

    def __post_init__(self) -> None:
        if self.curvature not in KINDS:
            raise ConfigError(f"{self.name}: curvature must be 'hessian' or 'ggn', got {self.curvature!r}")

    def operator(self, at: Linearization) -> Product:
        """:meth:`matrix_product` at one point, for many vectors: what they share is computed once."""
        return at.hessian_product if self.curvature == "hessian" else gauss_newton(at, self.name)

    def matrix_product(self, at: Linearization, vector: Tensors) -> Tensors:
        return self.operator(at)(vector)


def gauss_newton(at: Linearization, method: str) -> Product:
    """Return the product with G at a point, differentiable when the linearization is.

    G v = H v - d/dtheta <J(theta)^T c, v> with c = dl/dz held fixed. Taking the curvature of the outputs away from H,
    rather than building J^T (d2l/dz2) J up, keeps the curvature of a regulariser, which has no outputs.

    Raises:
        ProblemError: There are no outputs, or the loss was not computed from them.
    """
    loss, outputs = at.evaluation.loss, at.evaluation.outputs
    if outputs is None:
        raise ProblemError(
            f"{method}: curvature='ggn' needs the tensor in which the loss is convex: training_step must also return "
            "'outputs' (the network's predictions), or set curvature='hessian'"
        )
    slope = _slope(loss, outputs)
    if slope is None:
        raise ProblemError(
            f"{method}: curvature='ggn' needs a loss computed from the 'outputs' that training_step returns, and this "
            "one does not depend on them: return the very tensor that the loss is computed from, not detached"
        )
    weights = slope if at.differentiable else slope.detach()
    with torch.enable_grad():
        through_outputs = _vjp((outputs,), at.solution, (weights,), create_graph=True)
        rest = subtract(at.gradient, through_outputs)

    def product(vector: Tensors) -> Tensors:
        reduced = _vjp(rest, at.solution, vector, create_graph=at.differentiable)
        # Where the result is differentiated again c keeps its history. d/dtheta then also went through c; that part,
        # (dc/dtheta)^T J v, is put back.
        if not at.differentiable or not slope.requires_grad:
            return at.decayed(reduced, vector)
        with torch.enable_grad():
            image = _jvp(outputs, at.solution, vector)
            whole = add(reduced, _vjp((slope,), at.solution, (image,), create_graph=True))
            return at.decayed(whole, vector)

    return product


def _slope(loss: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor | None:
    """dl/dz with its graph; ``None`` where the loss does not depend on the outputs."""
    if not (loss.requires_grad and outputs.requires_grad):
        return None
    slope: torch.Tensor | None = torch.autograd.grad(loss, outputs, create_graph=True, allow_unused=True)[0]
    return slope


def _vjp(values: Tensors, wrt: Tensors, weights: Tensors, *, create_graph: bool) -> Tensors:
    pairs = [(x, w) for x, w in zip(values, weights, strict=True) if x.requires_grad]
    if not pairs:
        return filled([None] * len(wrt), wrt)
    outputs, cotangents = zip(*pairs, strict=True)
    products = torch.autograd.grad(
        outputs, wrt, cotangents, retain_graph=True, create_graph=create_graph, allow_unused=True
    )
    return filled(products, wrt)


def _jvp(outputs: torch.Tensor, wrt: Tensors, vector: Tensors) -> torch.Tensor:
    """J v by two reverse passes: J^T u is linear in u, and its derivative against v is J v."""
    dummy = torch.zeros_like(outputs, requires_grad=True)
    back = _vjp((outputs,), wrt, (dummy,), create_graph=True)
    return _vjp(back, (dummy,), vector, create_graph=True)[0]
