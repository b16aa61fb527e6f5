"""The pull back - B v, with B the mixed derivative, by a central difference of first-order gradients."""

from __future__ import annotations

import math

import torch

from .linearization import Linearization
from .tensors import Tensors, length, norm, scale, subtract
from .tracing import is_readable, note_pair


def difference_pull_back(at: Linearization, vector: Tensors, radius: float) -> Tensors:
    """- [dF/dphi(theta + r v) - dF/dphi(theta - r v)] / 2r with r = radius / norm(v); zero where v is zero.

    On a GPU the step stays a tensor, for reading it would make the host wait; so it does while a program is recorded.
    """
    with torch.no_grad():
        step = _step(vector, radius)
    forward, backward = at.input_gradient(vector, step), at.input_gradient(vector, -step)
    note_pair(forward, backward)
    inverse = 0.5 / step if isinstance(step, torch.Tensor) or step else math.inf  # an infinite vector, a step of zero
    return scale(subtract(backward, forward), inverse)


def _step(vector: Tensors, radius: float) -> float | torch.Tensor:
    """radius / norm(v); the radius where that norm is zero, or so small that the quotient would overflow."""
    smallest = torch.finfo(vector[0].dtype).tiny
    if is_readable(vector[0]):
        size = length(vector)
        return radius if size < smallest else radius / size
    unread = norm(vector)
    return radius / torch.where(unread < smallest, torch.ones_like(unread), unread)
