"""W8: ladders of diamonds, for what problems cost and what paths do.

The lowest problem follows the top, and its solution comes back up through two problems a rung: three problems more for
each diamond, and twice as many paths. Every problem takes one step for each of the top's; 64 numbers a problem.
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

RATE, TOP_RATE = 0.3, 1e-2
DIAMONDS = (1, 2, 4, 8)


def problem(setting: Setting, diamonds: int) -> Levels:
    """The ladder; ``node0`` is the top, and the last node the lowest."""
    size = setting.pick(64, tiny=4)
    generator = torch.Generator().manual_seed(0)

    def level(loss: partial[Tensor], *reads: str, rate: float = RATE) -> Level:
        start = torch.randn(size, generator=generator, dtype=torch.float64)
        return Level(start.to(setting.device, setting.dtype), loss, reads, rate)

    levels = {f"node{diamonds}": level(partial(_follow, 1.0), "node0")}
    for rung in reversed(range(diamonds)):
        levels[f"left{rung}"] = level(partial(_follow, 0.9), f"node{rung + 1}")
        levels[f"right{rung}"] = level(partial(_follow, 1.1), f"node{rung + 1}")
        if rung:
            levels[f"node{rung}"] = level(partial(_meet), f"left{rung}", f"right{rung}")
    levels["node0"] = level(partial(_judge), "left0", "right0", rate=TOP_RATE)
    return Levels(setting, levels)


def _follow(factor: float, own: Tensor, other: Tensor) -> Tensor:
    return (own - factor * other).square().sum() / 2


def _meet(own: Tensor, left: Tensor, right: Tensor) -> Tensor:
    return (own - (left + right) / 2).square().sum() / 2


def _judge(own: Tensor, left: Tensor, right: Tensor) -> Tensor:
    return ((left + right) / 2 - 1).square().sum() / 2


class LadderLoop:
    """Every problem once, the lowest first; then back down, once through each, adding up where two meet."""

    def __init__(self, levels: Levels) -> None:
        self.levels = levels.levels
        self.values = {name: level.start.clone().requires_grad_() for name, level in self.levels.items()}
        self.optimizers = {name: SGD([self.values[name]], lr=level.rate) for name, level in self.levels.items()}
        *self.below, self.top = self.levels

    def step(self) -> None:
        for name in self.below:
            own = [self.values[name]]
            set_gradients(own, torch.autograd.grad(self.loss(name), own))
            self.optimizers[name].step()
        read = self.levels[self.top].reads
        gradients = torch.autograd.grad(self.loss(self.top), self.of(read))
        # Copies: of a sum's terms both gradients are one tensor, and darts writes to it.
        cotangents = {name: gradient.clone() for name, gradient in zip(read, gradients, strict=True)}
        for name in reversed(self.below):
            read = self.levels[name].reads
            parts = darts(partial(self.loss, name), [self.values[name]], self.of(read), [cotangents.pop(name)])
            for other, part in zip(read, parts, strict=True):
                cotangents[other] = cotangents[other] + part if other in cotangents else part
        set_gradients([self.values[self.top]], [cotangents[self.top]])
        self.optimizers[self.top].step()

    def loss(self, name: str) -> Tensor:
        level = self.levels[name]
        return level.loss(self.values[name], *self.of(level.reads))

    def of(self, names: tuple[str, ...]) -> list[Tensor]:
        return [self.values[name] for name in names]

    def parameters(self) -> list[list[Tensor]]:
        return [[value] for value in self.values.values()]


def rows(setting: Setting) -> list[Row]:
    """One row a height; the tests need not climb to the top."""
    made = []
    for diamonds in DIAMONDS[:2] if setting.tiny else DIAMONDS:
        levels = problem(setting, diamonds)
        label = f"{len(levels.levels)} problems, {2**diamonds} paths"
        made.append(levels_row("W8", label, levels, partial(LadderLoop, levels), error=diamonds < 4))
    return made
