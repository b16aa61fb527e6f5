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
