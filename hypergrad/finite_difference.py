"""The pull back - B v, with B the mixed derivative, by a central difference of first-order gradients."""

from __future__ import annotations

import math

import torch

from .linearization import Linearization
from .tensors import Tensors, norm, scale, subtract
from .tracing import is_readable


def difference_pull_back(at: Linearization, vector: Tensors, radius: float) -> Tensors:
    """- [dF/dphi(theta + r v) - dF/dphi(theta - r v)] / 2r with r = radius / norm(v); zero where v is zero.

    On a GPU the step stays a tensor, for reading it would make the host wait; so it does while a program is recorded.
    """
    with torch.no_grad():
        step = _step(norm(vector), radius)
    forward, backward = at.input_gradient(vector, step), at.input_gradient(vector, -step)
    inverse = 0.5 / step if isinstance(step, torch.Tensor) or step else math.inf  # an infinite vector, a step of zero
    return scale(subtract(backward, forward), inverse)


def _step(length: torch.Tensor, radius: float) -> float | torch.Tensor:
    """radius / length; the radius where the length is zero, or so small that the quotient would overflow."""
    smallest = torch.finfo(length.dtype).tiny
    if is_readable(length):
        value = length.item()
        return radius if value < smallest else radius / value
    return radius / torch.where(length < smallest, torch.ones_like(length), length)
