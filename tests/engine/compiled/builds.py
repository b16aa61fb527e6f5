"""Small hierarchies to build twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from multilevel import Callback, Config, Engine, EngineConfig

from ...generic import Generic
from ...givens import Given, Loss
from ...hierarchies import diamond, nonlinear_three
from .twins import Build

OptimizerOf = Callable[[Iterable[Tensor]], Optimizer]

sgd: OptimizerOf = partial(torch.optim.SGD, lr=0.05)


def batches(*shape: int, count: int = 3, seed: int = 0) -> list[Tensor]:
    """Random batches, the same at every call."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for _ in range(count)]


def fit(problem: Given, batch: Any) -> Any:
    """Least squares with a penalty that the upper sets."""
    outputs = problem.module(batch[:, :2])
    loss = (outputs - batch[:, 2:]).square().mean()
    decay = sum(p.square().sum() for p in problem.module.parameters())
    return {"loss": loss + problem.upper().exp().mean() * decay / 20, "fit": loss, "outputs": outputs}


def judge(problem: Given, batch: Any) -> Any:
    """Least squares on other batches, and a little of the penalty itself."""
    loss = (problem.lower(batch[:, :2]) - batch[:, 2:]).square().mean()
    return {"loss": loss + problem.module().square().sum() / 50, "fit": loss}


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))


class Weights(nn.Module):
    """A parameter that a call returns."""

    def __init__(self, size: int = 2) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.linspace(-1, 0, size))

    def forward(self) -> Tensor:
        return self.value


def bilevel(
    method: Any = "darts",
    *,
    lower: Loss = fit,
    upper: Loss = judge,
    module: Callable[[], nn.Module] = net,
    optimizer: OptimizerOf = sgd,
    classes: tuple[type[Given], type[Given]] = (Given, Given),
    data: Sequence[Any] | None = None,
    prepare: Callable[[Given, Given], None] = lambda lower, upper: None,
    parts: dict[str, Any] | None = None,
    **settings: Any,
) -> Build:
    """A small network below, its penalty above.

    Args:
        method: Of the lower.
        lower: Its loss.
        upper: That of the upper.
        module: Makes the lower's module.
        optimizer: Makes that of the lower.
        classes: Of lower and upper.
        data: The lower's batches.
        prepare: Gets both problems before the engine does.
        parts: Makes further parts of the lower's, of its optimizer.
        settings: Of the lower.
    """

    def build(config: EngineConfig, callbacks: Sequence[Callback]) -> Engine:
        torch.manual_seed(1)
        inner = module()
        chosen = optimizer(inner.parameters())
        low = classes[0](
            "lower",
            lower,
            inner,
            optimizer=chosen,
            train_data_loader=batches(8, 3) if data is None else data,
            config=Config(type=method, **settings),
            **{key: make(chosen) for key, make in (parts or {}).items()},
        )
        up = classes[1]("upper", upper, Weights(), lr=0.1, train_data_loader=batches(8, 3, seed=1))
        prepare(low, up)
        return Engine([up, low], edges=[("upper", "lower")], config=config, callbacks=callbacks)

    return build


def hierarchy(name: str, method: Any, optimizer: OptimizerOf = sgd) -> Build:
    """One of the conformance table, away from its solution, with one method for all its problems."""
    table = {"chain": nonlinear_three, "diamond": diamond}[name]()

    def build(config: EngineConfig, callbacks: Sequence[Callback]) -> Engine:
        problems = [Generic(n, loss, table.start[n], 0.05, type=method) for n, loss in table.losses.items()]
        for problem in problems:
            problem.optimizer = optimizer(problem.module.parameters())
        u2l: dict[Any, list[Any]] = {}
        l2u: dict[Any, list[Any]] = {}
        for upper, lower in table.constrains:
            u2l.setdefault(upper, []).append(lower)
        for upper, lower in table.reads:
            l2u.setdefault(lower, []).append(upper)
        return Engine(problems, {"u2l": u2l, "l2u": l2u}, config=config, callbacks=callbacks)

    return build
