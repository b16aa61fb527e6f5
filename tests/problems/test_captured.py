"""Parameters that a training step reads past their module are refused where a derivative would miss them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from multilevel import Config, Engine, EngineConfig, ProblemError

from ..givens import Given, chain, pair

METHODS = ("darts", "identity", "cg", "neumann", "exact", "sama", "unroll")


def refused(name: str, whose: str) -> str:
    return re.escape(f"problem '{name}': training_step reads a parameter of '{whose}' of shape (1,) by a reference")


def fit(read: Callable[[Given], Tensor]) -> Callable[[Given, Any], Tensor]:
    return lambda problem, batch: (problem.module() - read(problem)).square().sum()


def read_lower(problem: Given, batch: Any) -> Tensor:
    return problem.lower.module().square().sum()


def bilevel(method: str, loss: Callable[[Given, Any], Tensor]) -> Engine:
    return pair(loss, read_lower, method=method, engine=EngineConfig(train_iters=4))


def keeping(name: str, how: Callable[[Tensor], Any] = lambda value: value) -> Callable[[Given, Any], Tensor]:
    """A loss that goes on reading the parameter of a problem which it saw at its first step."""

    def loss(problem: Given, batch: Any) -> Tensor:
        owner = problem if name == problem.name else getattr(problem, name)
        kept = vars(problem).setdefault("kept", owner.module.value)
        return (problem.module() - problem.upper.module()).square().sum() + how(kept).square().sum()

    return loss


def keeping_itself(problem: Given, batch: Any) -> Tensor:
    """By ``level``: where training is at copies, what the module holds is no parameter."""
    kept = vars(problem).setdefault("kept", problem.level.parameters[0])
    return (problem.module() - problem.upper.module()).square().sum() + kept.square().sum()


KEPT = {"lower": keeping_itself, "upper": keeping("upper")}
REFUSED = [(method, whose) for method in METHODS for whose in KEPT if (method, whose) != ("unroll", "upper")]


@pytest.mark.parametrize(("method", "whose"), REFUSED)
def test_a_parameter_that_is_kept_is_refused(method: str, whose: str) -> None:
    with pytest.raises(ProblemError, match=refused("lower", whose)):
        bilevel(method, KEPT[whose]).run()


def test_unroll_goes_back_through_graphs_that_lead_to_the_uppers_own_parameters() -> None:
    ends = []
    for loss in (KEPT["upper"], lambda p, batch: KEPT["upper"](vars(p).update(kept=p.upper.module.value) or p, batch)):
        run = bilevel("unroll", loss)
        run.run()
        ends.append(run["upper"].module.value.detach())
    assert torch.equal(*ends)
    assert float(ends[0]) != 1.0


@pytest.mark.parametrize("whose", ["lower", "upper"])
@pytest.mark.parametrize("method", METHODS)
def test_what_is_detached_is_a_constant(method: str, whose: str) -> None:
    run = bilevel(method, keeping(whose, Tensor.detach))
    run.run()
    assert torch.isfinite(run["upper"].module.value).all()


@pytest.mark.parametrize("methods", [("identity", "darts"), ("darts", "cg"), ("cg", "cg"), ("unroll", "identity")])
@pytest.mark.parametrize("whose", ["middle", "top", None])
def test_below_a_response(methods: tuple[str, str], whose: str | None) -> None:
    """Where solutions inside have histories of their own, these are not taken for captured."""
    kept: dict[str, Tensor] = {}

    def bottom(problem: Given, batch: Any) -> Tensor:
        extra = kept[whose].square().sum() if whose else 0.0
        return (problem.module() - problem.middle.module() * problem.top.module()).square().sum() + extra

    names = ["top", "middle", "bottom"]
    losses = [
        fit(lambda p: p.bottom.module() + p.middle.module()),
        fit(lambda p: p.bottom.module() / 2 + p.top.module()),
        bottom,
    ]
    configs = [Config(), *[Config(type=method) for method in methods]]
    problems = [Given(name, loss, config=config) for name, loss, config in zip(names, losses, configs, strict=True)]
    kept.update({problem.name: problem.module.value for problem in problems})
    run = Engine(problems, edges=[*chain(*names), ("top", "bottom")], config=EngineConfig(train_iters=4))
    if whose is None:
        run.run()
        return
    with pytest.raises(ProblemError, match=refused("bottom", whose)):
        run.run()
