"""Bugs of TorchOpt (B23 to B25), hypertorch (B26), BOAT (B27 to B35), higher (B37), jaxopt (B42), each as a law."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from multilevel import CG, Config, Engine, EngineConfig, Exact, Method, Neumann, best_response
from multilevel.hypergrad.errors import NonFiniteError

from .conftest import CONVERGED, EXACT
from .followers import NEVER, close, every_method, follow, linear, reach_one, ready, weighted
from .givens import Given, Vector, assert_same, flat_state, pair


@pytest.mark.parametrize("method", [CG(2), Neumann(200, 0.3), Exact()], ids=lambda m: m.name)
def test_b23_b26b_several_tensors_are_one_system(method: Method) -> None:
    """x^2 + x y + y^2 - x a - y b over two tensors: (2 1; 1 2)^-1 (1, 1) = (1, 1) / 3; its diagonal gives 1 / 2."""

    def objective(solution: dict[str, Tensor], a: Tensor, b: Tensor) -> Tensor:
        x, y = solution["x"], solution["y"]
        return (x.square() + x * y + y.square() - x * a - y * b).sum()

    a, b = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    response = best_response(objective, {"x": torch.zeros(1), "y": torch.zeros(1)}, a, b, method=method)
    got = torch.autograd.grad((response["x"] + response["y"]).sum(), (a, b))
    close(torch.cat(got), [1 / 3, 1 / 3], CONVERGED)


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad])
def test_b24_an_inner_gradient_of_exactly_zero(optimizer: type[torch.optim.Optimizer]) -> None:
    """The root of a second moment has no derivative at zero; its product with a zero gradient does."""
    low = Vector(2.0, 3.0)
    given = Given(
        "lower",
        lambda p, b: (p.module()[0] - p.upper()[0]).square() + 0 * p.module()[1],
        low,
        optimizer=optimizer(low.parameters(), lr=0.1),
        config=Config(type="unroll", unroll_steps=NEVER),
    )
    engine = Engine([Given("upper", reach_one, Vector(1.0, 1.0)), given], edges=[("upper", "lower")])
    engine.step()
    got = engine.hypergradient("upper")[0]
    assert got.isfinite().all()
    assert got[1] == 0


def test_b25_inputs_may_stand_anywhere() -> None:
    def objective(x: Tensor, constant: float, unused: Tensor, a: Tensor) -> Tensor:
        return (constant * x.square() / 2 - x * a).sum()

    a = torch.ones(2, requires_grad=True)
    response = best_response(objective, torch.full((2,), 0.25), 4.0, torch.ones(3), a, method=CG(2))
    close(torch.autograd.grad(response.sum(), a)[0], [0.25, 0.25])


def test_b25a_b42_second_derivatives_of_a_response() -> None:
    """x* = a / (1 + b): d2x / da db = - 1 / (1 + b)^2, and by the solve's own derivative."""

    def objective(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return ((1 + b) * x.square() / 2 - x * a).sum()

    a, b = torch.tensor([3.0], requires_grad=True), torch.tensor([1.0], requires_grad=True)
    response = best_response(objective, torch.tensor([1.5]), a, b, method=CG(3))
    (slope,) = torch.autograd.grad(response.sum(), a, create_graph=True)
    close(slope.detach(), [0.5])
    close(torch.autograd.grad(slope.sum(), b)[0], [-0.25])


@pytest.mark.parametrize(("iterations", "expected"), [(0, 0.5), (1, 0.75), (2, 0.875)])
def test_b25b_neumann_counts_products(iterations: int, expected: float) -> None:
    """K products make K + 1 terms, here of 1 / 2, 1 / 4, ...; the same K everywhere."""
    engine = pair(weighted(1.0), linear, method=Neumann(iterations, 0.5), modules=[Vector(0.0), Vector(0.0)])
    close(engine.hypergradient("upper")[0], [expected])


@pytest.mark.parametrize("iterations", [1, 5])
def test_b26_b27_cg_returns_the_iterate_that_converged(iterations: int) -> None:
    engine = pair(follow, linear, method=CG(iterations), modules=[Vector(2.0), Vector(2.0)])
    close(engine.hypergradient("upper")[0], [1.0])


def test_b26_two_distinct_eigenvalues_and_twenty_iterations() -> None:
    modules = [Vector(*[0.0] * 4), Vector(*[0.0] * 4)]
    engine = pair(weighted(1.0, 1.0, 3.0, 3.0), linear, method=CG(20), modules=modules)
    close(engine.hypergradient("upper")[0], [1.0, 1.0, 1 / 3, 1 / 3], EXACT)


def test_b26a_the_first_step_with_momentum_is_that_of_torch() -> None:
    """Zero gradient, momentum 0.9: the parameter stays at 1, and so does the derivative of where it started."""
    low = Vector(1.0)
    optimizer = torch.optim.SGD(low.parameters(), lr=0.5, momentum=0.9)
    given = Given("lower", follow, low, optimizer=optimizer, config=Config(type="unroll", unroll_steps=NEVER))
    engine = Engine([Given("upper", linear, Vector(1.0)), given], edges=[("upper", "lower")])
    engine.step()
    engine.step()
    assert low.value.item() == 1.0
    # theta_1 = x / 2 + ..., b_2 = 0.9 b_1 + g_2: d theta_2 / dx = 1/2 + 1/2 (0.9 + (1 - 1/2)).
    close(engine.hypergradient("upper")[0], [0.5 + 0.5 * (0.9 + 0.5)])


@every_method
def test_b28_the_uppers_grad_is_left_alone(method: str) -> None:
    def lower(problem: Given, batch: Any) -> Tensor:
        return follow(problem, batch) + 3 * problem.upper().sum()

    engine = ready(lower, reach_one, method, modules=[Vector(2.0), Vector(2.0)])
    engine["upper"].module.value.grad = torch.tensor([7.0])
    engine.hypergradient("upper")
    assert_same(engine["upper"].module.value.grad, torch.tensor([7.0]))


def test_b29_every_step_of_an_inner_loop_has_its_own_gradient() -> None:
    engine = pair(follow, linear, method="unroll", modules=[Vector(0.0), Vector(2.0)], steps=NEVER, lr=0.1)
    for _ in range(11):
        engine.step()
    close(engine["lower"].module.value.detach(), [2 * (1 - 0.9**11)])
    close(engine.hypergradient("upper")[0], [1 - 0.9**11])


def test_b30_the_history_of_a_solution_does_not_count_twice() -> None:
    a = torch.tensor([2.0], requires_grad=True)
    unrolled = a * 0.1 + 1.8  # one step of the lower, with its graph
    response = best_response(lambda x, a: (x - a).square().sum() / 2, unrolled, a, method=CG(2))
    close(torch.autograd.grad(response.sum(), a)[0], [1.0])


@every_method
def test_b33_a_zero_upper_gradient_gives_zero_and_moves_nothing(method: str) -> None:
    def constant_in_lower(problem: Given, batch: Any) -> Tensor:
        return 0 * problem.lower().sum() + problem.module().sum()

    engine = ready(follow, constant_in_lower, method, modules=[Vector(2.0, 3.0), Vector(2.0, 3.0)])
    before = flat_state(engine)
    close(engine.hypergradient("upper")[0], [1.0, 1.0], 0.0)
    assert_same(flat_state(engine), before)


@pytest.mark.parametrize("method", ["darts", "cg", "identity"])
def test_b35_a_hypergradient_that_is_no_number_is_refused_and_named(method: str) -> None:
    def broken(problem: Given, batch: Any) -> Tensor:
        return follow(problem, batch) * (problem.upper() - problem.upper()).sum().sqrt()

    engine = pair(broken, reach_one, method=method, engine=EngineConfig(log_step=1))
    with pytest.raises(NonFiniteError, match=r"upper|lower"):
        engine.step()


def test_b37_b38_maximize_is_part_of_the_update() -> None:
    low = Vector(1.0)
    optimizer = torch.optim.SGD(low.parameters(), lr=0.1, maximize=True)
    given = Given(
        "lower", lambda p, b: -follow(p, b), low, optimizer=optimizer, config=Config(type="unroll", unroll_steps=NEVER)
    )
    engine = Engine([Given("upper", linear, Vector(2.0)), given], edges=[("upper", "lower")])
    engine.step()
    close(low.value.detach(), [1.1])
    close(engine.hypergradient("upper")[0], [0.1])
