"""A step without its wrappers is the same step, and whoever watches steps still sees each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from torch.optim.optimizer import register_optimizer_step_pre_hook

from multilevel.problems.optimizer_step import PLAIN, direct_step

from ..givens import assert_same


def optimizer_of(cls: type[Optimizer], **options: Any) -> tuple[torch.Tensor, Optimizer]:
    parameter = torch.ones(3, requires_grad=True)
    return parameter, cls([parameter], lr=0.1, **options)


@pytest.mark.parametrize("cls", [*PLAIN, torch.optim.Adamax])
def test_it_is_the_same_step(cls: type[Optimizer]) -> None:
    results = []
    for direct in (True, False):
        torch.manual_seed(0)
        parameter, optimizer = optimizer_of(cls)
        step = direct_step(optimizer) if direct else optimizer.step
        for _ in range(4):
            parameter.grad = torch.randn(3)
            step()
        results.append((parameter.detach(), optimizer.state_dict()))
    assert_same(*results)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True},
    {"weight_decay": 0.1},
    {"maximize": True},
    {"foreach": False},
    {"fused": True},
]


SPARSE: list[dict[str, Any]] = [{}, {"maximize": True}, {"foreach": False}]
"""torch's other steps take dense gradients only."""


@pytest.mark.parametrize(
    ("options", "gradient"),
    [*[(o, g) for o in OPTIONS for g in ("dense", "missing")], *[(o, "sparse") for o in SPARSE]],
    ids=str,
)
def test_gradient_descent_is_torchs_to_the_bit(options: dict[str, Any], gradient: str) -> None:
    results = []
    for direct in (True, False):
        torch.manual_seed(0)
        parameters = [torch.randn(4, 3, requires_grad=True) for _ in range(3)]
        groups = [{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.3, **options}]
        optimizer = SGD(groups, lr=0.1)
        step = direct_step(optimizer) if direct else optimizer.step
        for number in range(4):
            optimizer.param_groups[0]["lr"] = torch.tensor(0.05) if number == 3 else 0.1 / (1 + number)
            given = [torch.randn(4, 3) for _ in parameters]
            for parameter, dense in zip(parameters, given, strict=True):
                parameter.grad = dense
            if gradient != "dense":
                parameters[2].grad = given[2].to_sparse() if gradient == "sparse" else None
            step()
        results.append(([p.detach() for p in parameters], optimizer.state_dict()))
    assert_same(*results)


@pytest.mark.parametrize("cls", [SGD, Adam, AdamW, RMSprop, Adagrad])
def test_hooks_schedulers_and_patches_are_seen(cls: type[Optimizer]) -> None:
    parameter, optimizer = optimizer_of(cls)
    step, seen = direct_step(optimizer), []
    parameter.grad = torch.ones(3)
    handles = [
        optimizer.register_step_pre_hook(lambda *_: seen.append("pre")),
        optimizer.register_step_post_hook(lambda *_: seen.append("post")),
        register_optimizer_step_pre_hook(lambda *_: seen.append("global")),
    ]
    step()
    assert sorted(seen) == ["global", "post", "pre"]
    for handle in handles:
        handle.remove()
    step()
    assert len(seen) == 3
    optimizer.step = lambda: seen.append("patched")  # type: ignore[method-assign,assignment]
    step()
    assert seen[-1] == "patched"


def test_a_scheduler_does_not_complain() -> None:
    parameter, optimizer = optimizer_of(SGD)
    step = direct_step(optimizer)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    parameter.grad = torch.ones(3)
    step()
    scheduler.step()  # warns where it did not see the optimizer step


def test_profilers_see_the_step() -> None:
    parameter, optimizer = optimizer_of(SGD)
    step = direct_step(optimizer)
    parameter.grad = torch.ones(3)
    with torch.profiler.profile() as profile:
        step()
    assert any("SGD.step" in event.key for event in profile.key_averages())


class Mine(SGD):
    """A subclass whose step does something else."""

    def step(self, closure: Any = None) -> None:
        self.stepped = True


def test_a_subclass_steps_as_it_says() -> None:
    _, optimizer = optimizer_of(Mine)
    direct_step(optimizer)()
    assert optimizer.stepped
