"""One pull back per problem and upper step, and methods as plain functions that agree with the engine."""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor

from multilevel import CG, Config, ConfigError, Engine, EngineConfig, Identity
from multilevel.hypergrad.linearization import Linearization
from multilevel.hypergrad.registry import available
from multilevel.hypergrad.tensors import Tensors

from ..conftest import CLOSED_FORM, EXACT
from ..givens import Given, Vector, assert_same, chain
from .test_relations import ladder

RUNGS = 12


class Counted(Identity):
    """The identity, which counts its pull backs."""

    calls: list[int]

    def pull_back(self, at: Linearization, cotangent: Tensors) -> Tensors:
        self.calls.append(1)
        return super().pull_back(at, cotangent)


def ladder_engine() -> tuple[Engine, dict[str, list[int]]]:
    """Diamonds on top of each other: a corner n constrains nothing, its two sides read the corner below."""
    u2l, values = ladder(RUNGS)
    names = dict.fromkeys(name for edge in (*u2l, *values) for name in edge)
    reads: dict[str, list[str]] = {}
    for upper, lower in values:
        reads.setdefault(upper, []).append(lower)

    def loss(problem: Given, batch: Any) -> Tensor:
        if problem.name == "n0":
            return sum(getattr(problem, name)().sum() for name in reads["n0"])
        if problem.name == f"n{RUNGS}":
            return (problem.module() - problem.n0()).square().sum() / 2
        around = sum(getattr(problem, name)() for name in reads[problem.name])
        return (problem.module() - around).square().sum() / 2

    calls: dict[str, list[int]] = {name: [] for name in names}
    problems = []
    for name in names:
        method = Counted()
        object.__setattr__(method, "calls", calls[name])
        problems.append(Given(name, loss, config=Config(type=method)))
    l2u: dict[str, list[str]] = {}
    for upper, lower in values:
        l2u.setdefault(lower, []).append(upper)
    return Engine(problems, {"u2l": {"n0": [f"n{RUNGS}"]}, "l2u": l2u}), calls


def test_a_ladder_of_diamonds_takes_one_pull_back_a_problem() -> None:
    engine, calls = ladder_engine()
    start = time.perf_counter()
    (got,) = engine.hypergradient("n0")
    seconds = time.perf_counter() - start
    assert got.item() == 2**RUNGS  # the number of paths
    assert {name: len(c) for name, c in calls.items()} == {name: int(name != "n0") for name in calls}
    assert seconds < 2
    engine.step()
    assert all(len(c) == 2 * (name != "n0") for name, c in calls.items())


FUNCTIONS = sorted(set(available()) - {"unroll", "reinforce"})


def three(method: str = "cg") -> Engine:
    """Nonlinear, top reads everything; parameters of several tensors."""
    losses: dict[str, Any] = {
        "low": lambda p, b: torch.cosh(p.module() - p.mid().sin() - p.top() / 3).sum(),
        "mid": lambda p, b: torch.cosh(p.module() - p.top()).sum() + (p.low() * p.module()).sum() / 5,
        "top": lambda p, b: (p.mid() * p.low()).sum() + p.module().square().sum(),
    }
    start = {"low": (0.2, -0.3), "mid": (0.4, 0.1), "top": (0.3, -0.5)}
    problems = [Given(n, loss, Vector(*start[n]), config=Config(type=method)) for n, loss in losses.items()]
    return Engine(problems, edges=[*chain("top", "mid", "low"), ("top", "low")])


def two(method: Any, response: str = "total") -> Engine:
    losses: dict[str, Any] = {
        "low": lambda p, b: torch.cosh(p.module() - p.u()).sum() + torch.cosh(p.module() * p.v()).sum(),
        "u": lambda p, b: (p.low() - 1).square().sum(),
        "v": lambda p, b: p.low().exp().sum(),
    }
    start = {"low": (0.2, -0.3), "u": (0.4, 0.1), "v": (0.3, -0.5)}
    problems = [Given(n, loss, Vector(*start[n]), config=Config(type=method)) for n, loss in losses.items()]
    return Engine(problems, edges=[("u", "low"), ("v", "low")])


def function(name: str) -> Any:
    return getattr(import_module(f"multilevel.hypergrad.{name}"), name, None)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if function(name) is not None])
def test_a_function_equals_the_engine(name: str) -> None:
    engine = two(name)
    low, u, v = (engine[n] for n in ("low", "u", "v"))
    low.level.next_moment()
    vector = [2 * (low.module().detach() - 1)]  # the derivative of u's loss
    got = function(name)(vector, low, u)
    torch.testing.assert_close(got, engine.hypergradient("u"), rtol=EXACT, atol=EXACT)
    both = function(name)(vector, low, [u, v])
    assert len(both) == 2
    torch.testing.assert_close(both[:1], got, rtol=CLOSED_FORM, atol=CLOSED_FORM)
    assert all(p.grad is None for p in (*low.parameters, *u.parameters, *v.parameters))


@pytest.mark.parametrize("name", ["darts", "cg", "neumann", "identity"])
def test_sync_adds_to_grad(name: str) -> None:
    engine = two(name)
    low, u, v = (engine[n] for n in ("low", "u", "v"))
    vector = [torch.tensor([0.3, -0.2])]
    expected = function(name)(vector, low, [u, v])
    for times in (1, 2):
        assert function(name)(vector, low, [u, v], sync=True) is None
        got = (u.module.value.grad, v.module.value.grad)
        torch.testing.assert_close(got, tuple(times * g for g in expected), rtol=EXACT, atol=EXACT)


def test_the_options_are_those_of_the_problem() -> None:
    vector = [torch.tensor([0.3, -0.2])]
    default, precise = two("darts"), two(CG(iterations=10, tolerance=1e-14))
    got = function("cg")(vector, precise["low"], precise["u"])
    loose = function("cg")(vector, default["low"], default["u"])  # one iteration
    exact = function("exact")(vector, default["low"], default["u"])
    torch.testing.assert_close(got, exact, rtol=CLOSED_FORM, atol=CLOSED_FORM)
    assert not torch.allclose(loose[0], exact[0])


def test_a_function_takes_the_total_response_of_a_middle_problem() -> None:
    engine = three("exact")
    top, mid, low = (engine[n] for n in ("top", "mid", "low"))
    cotangent_low, cotangent_mid = ([t.module().detach()] for t in (mid, low))
    to_mid, to_top = function("exact")(cotangent_low, low, [mid, top])
    (through_mid,) = function("exact")([cotangent_mid[0] + to_mid], mid, top)
    expected = 2 * top.module().detach() + to_top + through_mid
    torch.testing.assert_close(engine.hypergradient("top")[0], expected, rtol=CLOSED_FORM, atol=CLOSED_FORM)


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([], r"problem 'low': vector must hold one tensor per trainable parameter, of shapes \[\(2,\)\]; got \[\]"),
        ([torch.ones(3)], r"got \[\(3,\)\]"),
    ],
)
def test_a_vector_that_does_not_fit(vector: list[Tensor], message: str) -> None:
    engine = two("cg")
    with pytest.raises(ConfigError, match=message):
        function("cg")(vector, engine["low"], engine["u"])


def test_a_problem_that_it_does_not_depend_on() -> None:
    engine = two("cg")
    with pytest.raises(
        ConfigError, match="problem 'low': its best response does not depend on 'low'; it depends on: u, v"
    ):
        function("cg")([torch.ones(2)], engine["low"], engine["low"])


def test_methods_agree_where_they_must() -> None:
    """At a quadratic with unit Hessian the identity inverse is exact, whatever the response."""
    losses: dict[str, Any] = {
        "low": lambda p, b: (p.module() - p.up()).square().sum() / 2,
        "up": lambda p, b: p.low().exp().sum(),
    }
    gradients = []
    for method in ("darts", "identity", "cg", "neumann", "exact", "minres", "gmres"):
        problems = [Given(n, loss, Vector(0.1, 0.2), config=Config(type=method)) for n, loss in losses.items()]
        for response in ("total", "direct"):
            engine = Engine(problems, edges=[("up", "low")], config=EngineConfig(response=response))
            gradients.append(engine.hypergradient("up"))
    for gradient in gradients:
        torch.testing.assert_close(gradient, (torch.tensor([0.1, 0.2]).exp(),), rtol=1e-9, atol=1e-9)


def test_a_hypergradient_of_a_leaf_is_its_gradient() -> None:
    engine = two("cg")
    low = engine["low"]
    expected = torch.autograd.grad(low.training_step(None), low.parameters)
    assert_same(engine.hypergradient("low"), expected)
