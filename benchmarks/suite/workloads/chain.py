"""W5: three levels of quadratics, each following the solution of the one before it; 64 numbers a level.

top   phi: |y - 1|^2 / 2                  phi enters the low
mid   y:   (y - B z)' A (y - B z) / 2     two steps for each of the top's
low   z:   (z - C phi)' D (z - C phi) / 2     five steps for each of the mid's
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.optim import SGD

from ..by_hand import darts, set_gradients
from ..case import Row, Setting
from ..levels import Level, Levels
from ..rows import levels_row

LOW_STEPS, MID_STEPS = 5, 2
RATE, TOP_RATE = 0.3, 1e-2


def problem(setting: Setting) -> Levels:
    """The three levels."""
    size = setting.pick(64, tiny=4)
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def place(tensor: Tensor) -> Tensor:
        return tensor.to(setting.device, setting.dtype)

    def follower(matrix: Tensor, link: Tensor, own: Tensor, other: Tensor) -> Tensor:
        apart = own - link @ other
        return apart @ (matrix @ apart) / 2

    def following() -> partial[Tensor]:
        basis, _ = torch.linalg.qr(random(size, size))
        matrix = basis @ torch.diag(torch.linspace(0.5, 1.5, size, dtype=torch.float64)) @ basis.T
        return partial(follower, place(matrix), place(random(size, size) / size**0.5))

    low = Level(place(random(size)), following(), ("top",), RATE, LOW_STEPS)
    mid = Level(place(random(size)), following(), ("low",), RATE, MID_STEPS)
    top = Level(place(random(size)), lambda own, mid: (mid - 1).square().sum() / 2, ("mid",), TOP_RATE)
    return Levels(setting, {"low": low, "mid": mid, "top": top}, LOW_STEPS * MID_STEPS)


class ChainLoop:
    """The three levels in one loop; the top's derivative goes back through two central differences."""

    def __init__(self, levels: Levels) -> None:
        below, between, above = levels.levels.values()
        self.low_of, self.mid_of, self.top_of = below.loss, between.loss, above.loss
        self.low, self.mid, self.top = (level.start.clone().requires_grad_() for level in (below, between, above))
        self.low_optimizer = SGD([self.low], lr=below.rate)
        self.mid_optimizer = SGD([self.mid], lr=between.rate)
        self.top_optimizer = SGD([self.top], lr=above.rate)

    def step(self) -> None:
        low, mid, top = [self.low], [self.mid], [self.top]
        for _ in range(MID_STEPS):
            for _ in range(LOW_STEPS):
                set_gradients(low, torch.autograd.grad(self.low_loss(), low))
                self.low_optimizer.step()
            set_gradients(mid, torch.autograd.grad(self.mid_loss(), mid))
            self.mid_optimizer.step()
        v = torch.autograd.grad(self.top_of(self.top, self.mid), mid)
        v = darts(self.mid_loss, mid, low, v)
        set_gradients(top, darts(self.low_loss, low, top, v))
        self.top_optimizer.step()

    def low_loss(self) -> Tensor:
        return self.low_of(self.low, self.top)

    def mid_loss(self) -> Tensor:
        return self.mid_of(self.mid, self.low)

    def parameters(self) -> list[list[Tensor]]:
        return [[self.low], [self.mid], [self.top]]


def rows(setting: Setting) -> list[Row]:
    """darts at both edges."""
    levels = problem(setting)
    return [levels_row("W5", "darts", levels, partial(ChainLoop, levels))]
