"""Python's and numpy's random numbers, drawn by data: looking back at a moment must not move them."""

from __future__ import annotations

import random

import torch
from torch import nn

from multilevel import Config, Engine, EngineConfig, Problem


class Drawing(Problem):
    """Draws its batches from Python's generator."""

    def get_batch(self) -> float:
        self.drawn = [*getattr(self, "drawn", []), random.random()]
        return self.drawn[-1]


class Lower(Drawing):
    def training_step(self, batch: float) -> torch.Tensor:
        return (self.module.weight - batch * self.upper.module.weight).square().sum()


class Upper(Drawing):
    def training_step(self, batch: float) -> torch.Tensor:
        return (self.lower.module.weight - batch).square().sum()


def test_no_number_is_drawn_twice() -> None:
    problems = []
    for cls, name in ((Lower, "lower"), (Upper, "upper")):
        module = nn.Linear(1, 1, bias=False)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
        problems.append(cls(name, module=module, optimizer=optimizer, config=Config(type="darts")))
    lower, upper = problems
    engine = Engine(problems, edges=[(upper, lower)], config=EngineConfig(seed=0))
    for _ in range(4):
        engine.step()
    random.seed(0)
    numbers = [random.random() for _ in range(8)]
    assert (lower.drawn, upper.drawn) == (numbers[::2], numbers[1::2])
