"""Engines over the hierarchies of :mod:`oracles`: the same losses, read through Problems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from multilevel import Config, Engine, EngineConfig, Method, Problem

from .oracles import Field, Hierarchy, Values


class Vector(nn.Module):
    """A parameter that a call returns."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value.clone())

    def forward(self) -> Tensor:
        return self.value


class Generic(Problem):
    """A problem with a loss of the oracle's kind: a function of its own vector and its neighbours'."""

    def __init__(self, name: str, loss: Field, value: Tensor, lr: float, **config: Any) -> None:
        module = Vector(value)
        optimizer = torch.optim.SGD(module.parameters(), lr=lr)
        super().__init__(name, module=module, optimizer=optimizer, config=Config(**config))
        self.loss = loss

    def training_step(self, batch: Any) -> Tensor:
        return self.loss({name: problem() for name, problem in self.reachable.items()})


def engine_of(
    hierarchy: Hierarchy,
    values: Values,
    methods: Method | Mapping[str, Method],
    *,
    lr: float = 1.0,
    unroll_steps: Mapping[str, int] | None = None,
    response: str = "total",
    classes: Mapping[str, type[Generic]] | None = None,
) -> Engine:
    """An engine with the parameters at ``values``.

    Args:
        hierarchy: The losses and edges.
        values: The parameters.
        methods: How best responses are differentiated: one for all, or by problem.
        lr: Of every problem's SGD.
        unroll_steps: By problem, 1 by default.
        response: Of the engine.
        classes: By problem, :class:`Generic` by default.
    """
    problems = [
        (classes or {}).get(name, Generic)(
            name,
            loss,
            values[name],
            lr,
            unroll_steps=(unroll_steps or {}).get(name, 1),
            **_type(methods if isinstance(methods, Method) else methods.get(name)),
        )
        for name, loss in hierarchy.losses.items()
    ]
    dependencies: dict[str, dict[Any, list[Any]]] = {"u2l": {}, "l2u": {}}
    for upper, lower in hierarchy.constrains:
        dependencies["u2l"].setdefault(upper, []).append(lower)
    for upper, lower in hierarchy.reads:
        dependencies["l2u"].setdefault(lower, []).append(upper)
    return Engine(problems, dependencies, config=EngineConfig(response=response))


def _type(method: Method | None) -> dict[str, Method]:
    return {} if method is None else {"type": method}


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    return ((got - expected).norm() / expected.norm()).item()
