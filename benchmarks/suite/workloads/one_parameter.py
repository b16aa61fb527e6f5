"""W6: one number below, one above. There is next to nothing to compute, so what is measured is everything else."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD

from ..approaches import DARTS
from ..bilevel import Bilevel
from ..case import Row, Setting
from ..levels import Level, Levels, Vector
from ..rows import bilevel_row, levels_row

RATE, UPPER_RATE = 0.3, 1e-3
"""The upper is slow, so that it is not there before a measurement ends: a cotangent of zero has no length."""


def number(value: float, setting: Setting) -> Vector:
    """A module of one parameter."""
    return Vector(torch.full((1,), value, device=setting.device, dtype=setting.dtype))


def distance(own: Tensor) -> Tensor:
    """(z - 1)^2 / 2"""
    return (own - 1).square().sum() / 2


class AloneLoop:
    """Plain training of one number."""

    def __init__(self, level: Level) -> None:
        self.value, self.loss = level.start.clone().requires_grad_(), level.loss
        self.optimizer = SGD([self.value], lr=level.rate)

    def step(self) -> None:
        (self.value.grad,) = torch.autograd.grad(self.loss(self.value), self.value)
        self.optimizer.step()

    def parameters(self) -> list[list[Tensor]]:
        return [[self.value]]


def problem(setting: Setting) -> Bilevel:
    """(z - phi)^2 / 2 below, (z - 1)^2 / 2 above."""

    def lower_loss(low: Any, top: Any, batch: Any) -> Tensor:
        return (low.value - top.value).square().sum() / 2

    return Bilevel(
        setting=setting,
        lower=partial(number, 3.0, setting),
        upper=partial(number, 0.0, setting),
        lower_loss=lower_loss,
        upper_loss=lambda low, batch: distance(low.value),
        lower_optimizer=partial(SGD, lr=RATE),
        upper_optimizer=partial(SGD, lr=UPPER_RATE),
        batches=lambda: (None, None),
    )


def rows(setting: Setting) -> list[Row]:
    """darts with a lower step for each upper one; and no upper at all."""
    level = Level(torch.full((1,), 3.0, device=setting.device, dtype=setting.dtype), distance, rate=UPPER_RATE)
    alone = Levels(setting, {"alone": level})
    return [
        bilevel_row("W6", problem(setting), DARTS, error=True),
        levels_row("W6", "no upper", alone, partial(AloneLoop, level), error=False),
    ]
