"""The mixed product B v by a central difference of first-order gradients."""

from __future__ import annotations

import torch

from .linearization import Linearization
from .tensors import Tensors, norm, scale, subtract


def difference_product(at: Linearization, vector: Tensors, radius: float) -> Tensors:
    """[dF/dphi(theta + r v) - dF/dphi(theta - r v)] / 2r with r = radius / norm(v); zero where v is zero.

    On a GPU the step stays a tensor: reading it would make the host wait for the device.
    """
    with torch.no_grad():
        step = _step(norm(vector), radius)
    offset = scale(vector, step)
    forward, backward = at.input_gradient(offset), at.input_gradient(offset, sign=-1.0)
    return scale(subtract(forward, backward), 0.5 / step)


def _step(length: torch.Tensor, radius: float) -> float | torch.Tensor:
    if length.device.type == "cpu":
        return radius / (length.item() or 1.0)
    return radius / torch.where(length > 0, length, torch.ones_like(length))
