"""Which steps ``unroll`` differentiates: those since the uppers last moved, compared with running all of them anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from multilevel import Callback, Config, Engine, EngineConfig, Problem, ProblemError, Unroll

from ..conftest import FINITE_DIFFERENCE
from ..givens import Given, Vector

SHIFT = 1e-6


class Swept(Callback):
    """The gradients of the upper."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_gradients(self, engine: Engine, problem: Problem, gradients: Any) -> None:
        if problem.name == "upper":
            self.found.append(gradients.total[0].item())


class Goes(Problem):
    """Towards the square of the upper's number, by a loss that is no parabola."""

    def training_step(self, batch: Any) -> Tensor:
        value = self.module.value
        return (value - self.upper.module.value.square()).square().sum() / 2 + value.pow(4).sum() / 4


def engine_of(start: float, lowers: Sequence[Callable[[str], Problem]], callbacks: Sequence[Callback] = ()) -> Engine:
    """An upper that stands still, since its learning rate is zero, above some lowers."""

    def loss(problem: Given, batch: Any) -> Tensor:
        return sum([(lower.module.value - 1).square().sum() for lower in problem.lowers], torch.zeros(()))

    problems = [make(f"lower_{i}") for i, make in enumerate(lowers)]
    upper = Given("upper", loss, Vector(start), lr=0.0)
    edges = [("upper", problem.name) for problem in problems]
    return Engine([upper, *problems], edges=edges, config=EngineConfig(), callbacks=callbacks)


def lower(
    steps: int, optimizer: Callable[[Any], torch.optim.Optimizer], accumulation: int = 1, **method: Any
) -> Callable[[str], Problem]:
    def make(name: str) -> Problem:
        module = Vector(1.0, 0.3)
        config = Config(type=Unroll(**method), unroll_steps=steps, gradient_accumulation=accumulation)
        return Goes(name, module=module, optimizer=optimizer(module.parameters()), config=config)

    return make


def assert_as_by_running_anew(steps: int, lowers: Sequence[Callable[[str], Problem]]) -> None:
    """The last hypergradient of so many steps, of which all those of one loop begin with the shifted upper."""
    swept = Swept()
    engine = engine_of(0.5, lowers, [swept])
    for _ in range(steps):
        engine.step()
    ends = []
    for shift in (SHIFT, -SHIFT):
        engine = engine_of(0.5 + shift, lowers)
        for _ in range(steps):
            engine.step()
        ends.append(engine.last_metrics["upper"]["loss"].item())
    assert swept.found == [pytest.approx((ends[0] - ends[1]) / (2 * SHIFT), rel=FINITE_DIFFERENCE)]


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


@pytest.mark.parametrize("checkpoints", ["graphs", "all", "sqrt"])
@pytest.mark.parametrize(("one", "other"), [(2, 4), (1, 4), (2, 3), (4, 4)])
def test_a_lower_that_waits_for_another_goes_on_with_its_loop(one: int, other: int, checkpoints: Any) -> None:
    lowers = [lower(steps, sgd, checkpoints=checkpoints) for steps in (one, other)]
    assert_as_by_running_anew(max(one, other), lowers)


def centered(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(parameters, lr=0.05, centered=True, momentum=0.5)


def amsgrad(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.05, amsgrad=True, eps=1e-3)


@pytest.mark.parametrize("checkpoints", ["graphs", "all", "sqrt"])
@pytest.mark.parametrize("optimizer", [centered, amsgrad])
def test_an_optimizer_that_begins_with_the_loop(optimizer: Any, checkpoints: Any) -> None:
    """Its states come about within it, in torch's order."""
    assert_as_by_running_anew(3, [lower(3, optimizer, checkpoints=checkpoints)])


@pytest.mark.parametrize("checkpoints", ["graphs", "all", "sqrt"])
def test_a_step_on_batches_from_before_the_upper_moved_is_refused(checkpoints: Any) -> None:
    """The upper steps after 4 batches and after 8, and the first lower on 3 each time: on one from before it moved."""
    engine = engine_of(0.5, [lower(1, sgd, 3, checkpoints=checkpoints), lower(4, sgd, checkpoints=checkpoints)])
    engine["upper"].optimizer.param_groups[0]["lr"] = 0.1
    for _ in range(7):
        engine.step()
    with pytest.raises(ProblemError, match="taken again, end"):
        engine.step()
