"""Whether implementations do the same: a time is believed only of one that follows the hand-written trajectory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from .case import Builder

STEPS = 6
"""Steps of the top problem that are compared. Programs take the last two."""
DOUBLE = 1e-5
"""Largest distance in float64, relative to how far the hand-written loop moved. Central differences leave 1e-8."""

Trajectory: TypeAlias = list[tuple[Tensor, Tensor]]
"""Per problem, its parameters before and after the steps, each as one vector in float64."""


def travelled(build: Builder) -> Trajectory:
    """Take the steps with a new run."""
    run = build()
    before = [_flat(level) for level in run.parameters()]
    for _ in range(STEPS):
        run.step()
    return list(zip(before, [_flat(level) for level in run.parameters()], strict=True))


def distance(expected: Trajectory, got: Trajectory) -> float:
    """Largest distance between two end points of a problem, relative to how far the expected one moved."""
    distances = []
    for (start, end), (other_start, other) in zip(expected, got, strict=True):
        if not torch.equal(start, other_start):
            return float("inf")
        # One that rightly stays where it is, stays.
        moved = (end - start).norm().clamp_min(torch.finfo(torch.float64).tiny)
        distances.append(float((end - other).norm() / moved))
    return max(distances)


def _flat(level: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.detach().reshape(-1).to("cpu", torch.float64, copy=True) for t in level])
