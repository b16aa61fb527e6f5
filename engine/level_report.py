"""What an audit says of one lower level: is it at a minimum, how curved is it, is its mixed derivative one."""

from __future__ import annotations

import torch

from ..hypergrad.hierarchy import Hierarchy
from ..hypergrad.lanczos import extreme_eigenvalues, random_direction
from ..hypergrad.linearization import Linearization, evaluate, gradients
from ..hypergrad.tensors import Tensors, filled, norm, subtract, total_size
from .audit_report import LevelReport


def level_report(hierarchy: Hierarchy, name: str, upper: str) -> LevelReport:
    """Measure the (total) objective of a level at its current point."""
    level = hierarchy.levels[name]
    inputs = [i for i in hierarchy.inputs[name] if i == upper or i in hierarchy.inside[upper]]
    at = hierarchy.linearize(name, inputs)
    slope = norm([g.detach() for g in at.gradient]).item()
    lowest, highest = extreme_eigenvalues(at.hessian_product, at.solution)
    return LevelReport(
        name=name,
        method=str(hierarchy.method(name)),
        parameters=total_size(level.parameters),
        gradient_norm=slope,
        parameter_norm=norm(level.parameters).item(),
        smallest_curvature=lowest,
        largest_curvature=highest,
        asymmetry=asymmetry(hierarchy.linearize(name, inputs)),
    )


def asymmetry(at: Linearization) -> float:
    """How much the two orders of the mixed derivative differ: |B q - B' q| / |B q| for a random q.

    B differentiates the gradient of the solution with respect to the inputs, which is what the response obeys; B' the
    other way round, which is what finite-difference methods see. They agree unless the training step detaches.
    """
    direction = random_direction(at.solution, seed=0)
    forward = at.mixed_product(direction)
    other = _other_order(at, direction)
    size = norm(forward).item() if forward else 0.0
    if size == 0.0:
        return 0.0 if not other or norm(other).item() == 0.0 else float("inf")
    return norm(subtract(forward, other)).item() / size


def _other_order(at: Linearization, direction: Tensors) -> Tensors:
    """(d/dtheta dF/dphi) q by two reverse passes: d<u, dF/dphi>/dtheta is linear in u, and q times its slope is it."""
    value = evaluate(at.objective, at.solution, at.inputs)
    slopes = gradients(value.loss, at.inputs, create_graph=True)
    weights = tuple(torch.zeros_like(t, requires_grad=True) for t in at.inputs)
    pairs = [(s, w) for s, w in zip(slopes, weights, strict=True) if s.requires_grad]
    if not pairs:
        return filled([None] * len(at.inputs), at.inputs)
    back = torch.autograd.grad(
        [s for s, _ in pairs], at.solution, [w for _, w in pairs], create_graph=True, allow_unused=True
    )
    rows = [(b, q) for b, q in zip(back, direction, strict=True) if b is not None and b.requires_grad]
    if not rows:
        return filled([None] * len(at.inputs), at.inputs)
    products = torch.autograd.grad([b for b, _ in rows], weights, [q for _, q in rows], allow_unused=True)
    return filled(products, at.inputs)
