"""This library's side of a row: the steps of an engine, nothing around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim import SGD

from multilevel import Config, Engine, EngineConfig, Method, Problem

from .bilevel import Bilevel
from .case import COMPILED, OURS, Builder, Setting
from .levels import Levels, Vector

ENDLESS = 10**9
"""More engine steps than any measurement takes: the last one is special."""

EngineBuilder: TypeAlias = Callable[[EngineConfig], "EngineRun"]


class EngineRun:
    """Engine steps, so many for one step of the top problem.

    Args:
        engine: The engine.
        cycle: Engine steps in one step of the top.
        order: The problems' names, the lowest first.
    """

    def __init__(self, engine: Engine, cycle: int, order: Sequence[str]) -> None:
        self.engine, self._cycle, self._order = engine, cycle, order
        self.top = order[-1]

    def step(self) -> None:
        for _ in range(self._cycle):
            self.engine.step()

    def parameters(self) -> Sequence[Sequence[Tensor]]:
        return [self.engine[name].parameters for name in self._order]


def both(build: EngineBuilder, setting: Setting) -> dict[str, Builder]:
    """Builders of the eager and the compiled engine."""
    return {
        OURS: lambda: build(_engine_config(setting.device, compiled=False)),
        COMPILED: lambda: build(_engine_config(setting.device, compiled=True)),
    }


def _engine_config(device: torch.device, *, compiled: bool) -> EngineConfig:
    """The defaults, but for the device."""
    return EngineConfig(train_iters=ENDLESS, device=str(device), compile=compiled)


def relative_error(build: EngineBuilder, setting: Setting, steps: int) -> float | None:
    """How far the hypergradient is from the exact one after so many steps of the top, relative to that."""
    run = build(_engine_config(setting.device, compiled=False))
    for _ in range(steps):
        run.step()
    (row,) = run.engine.audit(run.top, methods=[]).rows
    return row.relative_error


class Lower(Problem):
    """The lower of a :class:`Bilevel`."""

    loss: Callable[..., Tensor]

    def training_step(self, batch: Any) -> Tensor:
        return self.loss(self.module, self.upper.module, batch)


class Upper(Problem):
    """The upper of a :class:`Bilevel`."""

    loss: Callable[..., Tensor]

    def training_step(self, batch: Any) -> Tensor:
        return self.loss(self.lower.module, batch)


def bilevel_engine(bilevel: Bilevel, method: Method) -> EngineBuilder:
    """The engine of two levels."""
    return partial(_bilevel_engine, bilevel, method)


def _bilevel_engine(bilevel: Bilevel, method: Method, config: EngineConfig) -> EngineRun:
    below, above = bilevel.lower(), bilevel.upper()
    lower_batches, upper_batches = bilevel.batches()
    precision = "bf16" if bilevel.reduced else "fp32"
    lower = Lower(
        "lower",
        module=below,
        optimizer=bilevel.lower_optimizer(below.parameters()),
        train_data_loader=lower_batches,
        config=Config(type=method, unroll_steps=bilevel.inner_steps, precision=precision),
    )
    upper = Upper(
        "upper",
        module=above,
        optimizer=bilevel.upper_optimizer(above.parameters()),
        train_data_loader=upper_batches,
        config=Config(precision=precision),
    )
    lower.loss, upper.loss = bilevel.lower_loss, bilevel.upper_loss
    return EngineRun(Engine([upper, lower], edges=[(upper, lower)], config=config), bilevel.inner_steps, LOWEST_FIRST)


LOWEST_FIRST = ("lower", "upper")


class VectorProblem(Problem):
    """One of :class:`Levels`."""

    loss: Callable[..., Tensor]
    reads: Sequence[str]

    def training_step(self, batch: Any) -> Tensor:
        return self.loss(self.module.value, *[getattr(self, name).module.value for name in self.reads])


def levels_engine(levels: Levels) -> EngineBuilder:
    """The engine of a hierarchy of vectors."""
    return partial(_levels_engine, levels)


def _levels_engine(levels: Levels, config: EngineConfig) -> EngineRun:
    problems = {}
    for name, level in levels.levels.items():
        module = Vector(level.start)
        optimizer = SGD(module.parameters(), lr=level.rate)
        settings = Config(type="darts", unroll_steps=level.steps)
        problems[name] = VectorProblem(name, module=module, optimizer=optimizer, config=settings)
        problems[name].loss, problems[name].reads = level.loss, level.reads
    down, up = levels.edges()
    engine = Engine(problems.values(), {"u2l": down, "l2u": up}, config=config)
    return EngineRun(engine, levels.cycle, list(levels.levels))
