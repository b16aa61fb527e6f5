"""Every scheduler of torch, used as given: the learning rates of a hand-written loop."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from multilevel import Config, Engine

from ..givens import Given, Vector, assert_same

LAMBDA = {"lr_lambda": lambda step: 0.9**step}


SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, **LAMBDA),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, **LAMBDA),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [1, 4], 0.5),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.3, 3),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.3, 1.0, 4),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.7),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 5),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=2),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.2, total_steps=10),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1, threshold=0.5),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, 2), lr_scheduler.ExponentialLR(o, 0.9)], optimizer=o
    ),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1, 2), lr_scheduler.ExponentialLR(o, 0.9)], [3]
    ),
}


NOT_SCHEDULERS = {"LRScheduler", "_LRScheduler"}


def test_the_table_has_every_scheduler_of_torch() -> None:
    known = {
        name
        for name, cls in vars(lr_scheduler).items()
        if inspect.isclass(cls) and issubclass(cls, lr_scheduler.LRScheduler) and name not in NOT_SCHEDULERS
    }
    assert known - {"SWALR"} <= set(SCHEDULERS)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("size", [1, 2])
def test_a_scheduler_gives_the_learning_rates_of_a_loop_by_hand(name: str, size: int) -> None:
    def parts() -> tuple[nn.Module, Optimizer, Any]:
        net = Vector(1.0)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.5)
        return net, optimizer, SCHEDULERS[name](optimizer)

    rates: list[list[float]] = [[], []]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*epoch parameter.*")
        net, optimizer, scheduler = parts()
        for _ in range(8):
            optimizer.zero_grad()
            loss = net().square().sum()
            loss.backward()
            optimizer.step()
            scheduler.step(*([loss.item()] if name == "ReduceLROnPlateau" else []))
            rates[0].append(optimizer.param_groups[0]["lr"])

        other, optimizer, scheduler = parts()
        config = Config(gradient_accumulation=size)
        problem = Given(
            "p", lambda p, b: p.module().square().sum(), other, optimizer=optimizer, scheduler=scheduler, config=config
        )
        engine = Engine([problem])
        for step in range(8 * size):
            engine.step()
            if (step + 1) % size == 0:
                rates[1].append(optimizer.param_groups[0]["lr"])
    assert rates[0] == rates[1]
    assert len(set(rates[0])) > 1
    assert_same(other.state_dict(), net.state_dict())


def test_an_optimizer_with_a_closure_may_have_a_scheduler() -> None:
    net = Vector(1.0)
    optimizer = torch.optim.LBFGS(net.parameters(), lr=0.5, max_iter=1)
    scheduler = lr_scheduler.StepLR(optimizer, 1, 0.5)
    Engine([Given("p", lambda p, b: p.module().square().sum(), net, optimizer=optimizer, scheduler=scheduler)]).step()
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert net().item() != 1.0
