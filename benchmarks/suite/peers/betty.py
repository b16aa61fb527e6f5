"""betty-ml: problems with dependencies, the nearest relative. Its cap on Python (< 3.11) is lifted to install it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from betty.configs import Config, EngineConfig
from betty.engine import Engine
from betty.logging.logger_base import get_logger
from betty.problems import ImplicitProblem, IterativeProblem
from torch import Tensor
from torch.optim import SGD

from multilevel import CG, Darts, Method, Neumann, Sama

from ..bilevel import Bilevel
from ..case import Setting, UnavailableError
from ..levels import Levels, Vector


class BettyRun:
    """Steps of betty's engine.

    Args:
        engine: The engine.
        cycle: Its steps in one step of the top.
        problems: The lowest first.
    """

    def __init__(self, engine: Engine, cycle: int, problems: Sequence[Any]) -> None:
        self.engine, self._cycle, self._problems = engine, cycle, problems
        engine.train()

    def step(self) -> None:
        for _ in range(self._cycle):
            self.engine.global_step += 1
            self.engine.train_step()

    def parameters(self) -> Sequence[Sequence[Tensor]]:
        return [list(problem.trainable_parameters()) for problem in self._problems]


def bilevel_run(problem: Bilevel, method: Method) -> BettyRun:
    """Two levels."""
    unrolled = method.name == "unroll"
    below, above = problem.lower(), problem.upper()
    lower_batches, upper_batches = problem.batches()
    precision = "bf16" if problem.reduced else "fp32"
    lower = (_UnrolledLower if unrolled else _Lower)(
        "lower",
        Config(unroll_steps=problem.inner_steps, precision=precision, **_settings(method)),
        below,
        problem.lower_optimizer(below.parameters()),
        train_data_loader=lower_batches,
    )
    upper = _Upper(
        "upper",
        Config(first_order=not unrolled, precision=precision),
        above,
        problem.upper_optimizer(above.parameters()),
        train_data_loader=upper_batches,
    )
    lower.loss, upper.loss = problem.lower_loss, problem.upper_loss
    engine = _engine(problem.setting, [upper, lower], {"u2l": {upper: [lower]}, "l2u": {lower: [upper]}})
    return BettyRun(engine, problem.inner_steps, [lower, upper])


def levels_run(problem: Levels) -> BettyRun:
    """More levels, by darts; it follows every path on its own."""
    made = {}
    for name, level in problem.levels.items():
        module = Vector(level.start)
        # Several paths go back through one loss.
        settings = Config(type="darts", unroll_steps=level.steps, retain_graph=True)
        made[name] = _VectorProblem(name, settings, module, SGD(module.parameters(), lr=level.rate))
        made[name].loss, made[name].reads = level.loss, level.reads
    down, up = ({made[a]: [made[b] for b in others] for a, others in edges.items()} for edges in problem.edges())
    engine = _engine(problem.setting, list(made.values()), {"u2l": down, "l2u": up})
    return BettyRun(engine, problem.cycle, list(made.values()))


def _engine(setting: Setting, problems: Sequence[Any], dependencies: Mapping[str, Any]) -> Engine:
    get_logger().setLevel(logging.WARNING)
    takes = "cuda" if torch.cuda.is_available() else "cpu"
    strategy = "default" if setting.device.type == takes else "cpu"
    return Engine(problems, EngineConfig(strategy=strategy), dependencies)


def _settings(method: Method) -> dict[str, Any]:
    if isinstance(method, Neumann):
        return {"type": "neumann", "neumann_iterations": method.iterations, "neumann_alpha": method.alpha}
    if isinstance(method, CG):
        return {"type": "cg", "cg_iterations": method.iterations}
    if isinstance(method, Darts):
        return {"type": "darts", "darts_alpha": method.alpha}
    if isinstance(method, Sama):
        return {"type": "sama", "sama_adam_alpha": method.alpha}
    if method.name == "unroll":
        return {}
    raise UnavailableError(f"has no {method.name}")


class _DataIfAny:
    """A problem without data gets the batch ``None``."""

    train_data_loader: Any

    def get_batch(self) -> Any:
        return None if self.train_data_loader is None else super().get_batch()  # type: ignore[misc]


class _Lower(_DataIfAny, ImplicitProblem):
    loss: Callable[..., Tensor]

    def training_step(self, batch: Any) -> Tensor:
        return self.loss(self.module, self.upper.module, batch)


class _UnrolledLower(_DataIfAny, IterativeProblem):
    loss: Callable[..., Tensor]

    def training_step(self, batch: Any) -> Tensor:
        return self.loss(self, self.upper.module, batch)


class _Upper(_DataIfAny, ImplicitProblem):
    loss: Callable[..., Tensor]

    def training_step(self, batch: Any) -> Tensor:
        # Through the problem: the module of one that is unrolled is a function of parameters.
        return self.loss(self.lower if self.config.first_order is False else self.lower.module, batch)


class _VectorProblem(_DataIfAny, ImplicitProblem):
    loss: Callable[..., Tensor]
    reads: Sequence[str]

    def training_step(self, batch: Any) -> Tensor:
        return self.loss(self.module.value, *[getattr(self, name).module.value for name in self.reads])
