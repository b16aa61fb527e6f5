"""What an audit says of one lower level: is it at a minimum, how curved is it, is its mixed derivative one."""

from __future__ import annotations

import torch

from ...hypergrad.errors import second_derivatives
from ...hypergrad.finite_difference import difference_pull_back
from ...hypergrad.hierarchy import Hierarchy
from ...hypergrad.lanczos import extreme_eigenvalues, random_direction
from ...hypergrad.linearization import Linearization
from ...hypergrad.tensors import add, norm, total_size
from .report import LevelReport


def level_report(hierarchy: Hierarchy, name: str, upper: str) -> LevelReport:
    """Measure the (total) objective of a level at its current point.

    Raises:
        ProblemError: It needs second derivatives of an operation that torch has none for.
    """
    level, method = hierarchy.levels[name], hierarchy.method(name)
    inputs = [i for i in hierarchy.inputs[name] if i == upper or i in hierarchy.inside[upper]]
    at = hierarchy.linearize(name, inputs)
    with second_derivatives(f"problem '{name}': the audit"):
        slope = norm(at.decayed(tuple(g.detach() for g in at.gradient), at.solution)).item()
        lowest, highest = extreme_eigenvalues(at.hessian_product, at.solution)
        asymmetric = asymmetry(hierarchy.linearize(name, inputs))
    return LevelReport(
        name=name,
        method=str(method),
        parameters=total_size(level.parameters),
        gradient_norm=slope,
        parameter_norm=norm(level.parameters).item(),
        smallest_curvature=lowest,
        largest_curvature=highest,
        asymmetry=asymmetric,
        through_steps=method.needs_tape,
    )


def asymmetry(at: Linearization) -> float:
    """How much the two orders of the mixed derivative differ: |B q - B' q| / |B q| for a random q.

    B differentiates the gradient of the solution with respect to the inputs, which is what the response obeys; B'
    differences the gradient of the inputs over the solution, which is what finite-difference methods see. They agree up
    to the error of the difference (kinks of ReLU among it) unless the training step detaches part of its loss.
    """
    direction = random_direction(at.solution, seed=0)
    pulled = difference_pull_back(at, direction, radius=torch.finfo(direction[0].dtype).eps ** 0.5)
    product = at.mixed_product(direction)
    size, difference = norm(product).item(), norm(add(product, pulled)).item()
    if size == 0.0:
        return 0.0 if difference == 0.0 else float("inf")
    return difference / size
