"""Hypergradients of an engine against closed forms in float64, each worked out by hand or by dense algebra."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import jacrev
from torch.nn.functional import softplus

from multilevel import CG, Config, Darts, Engine, EngineConfig, Exact, Method, Neumann

from ..conftest import CLOSED_FORM, CONVERGED, FINITE_DIFFERENCE
from ..givens import Given, Vector, pair

SIZE, INPUTS = 6, 3
SPECTRUM = torch.linspace(0.2, 1.6, SIZE, dtype=torch.float64)


def close(got: Any, expected: Any, tolerance: float) -> None:
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


BASIS = torch.linalg.qr(randn(SIZE, SIZE, seed=1))[0]
A, B = BASIS @ SPECTRUM.diag() @ BASIS.mT, randn(SIZE, INPUTS, seed=2)
THETA, PHI, V = randn(SIZE, seed=3), randn(INPUTS, seed=4), randn(SIZE, seed=5)


def quadratic(method: Method) -> Engine:
    """theta' A theta / 2 + theta' B phi below, v' theta + |phi|^2 / 2 above, at any point."""

    def lower(problem: Given, batch: Any) -> Tensor:
        theta, phi = problem.module(), problem.upper()
        return theta @ A @ theta / 2 + theta @ B @ phi

    def upper(problem: Given, batch: Any) -> Tensor:
        return V @ problem.lower() + problem.module().square().sum() / 2

    return pair(lower, upper, method=method, modules=(Vector(*THETA.tolist()), Vector(*PHI.tolist())))


@pytest.mark.parametrize("alpha", [1.0, 0.1])
def test_cg_with_as_many_iterations_as_parameters_is_exact(alpha: float) -> None:
    (got,) = quadratic(CG(iterations=SIZE, alpha=alpha)).hypergradient("upper")
    close(got, PHI - B.mT @ torch.linalg.solve(A, V), CLOSED_FORM)


@pytest.mark.parametrize("alpha", [1.0, 0.4])
@pytest.mark.parametrize("terms", [0, 1, 2, 7])
def test_neumann_is_exactly_its_partial_sum(terms: int, alpha: float) -> None:
    (got,) = quadratic(Neumann(iterations=terms, alpha=alpha)).hypergradient("upper")
    power, total = V, V
    for _ in range(terms):
        power = power - alpha * (A @ power)
        total = total + power
    close(got, PHI - B.mT @ (alpha * total), CLOSED_FORM)


@pytest.mark.parametrize("alpha", [0.01, 1.0])
def test_darts_is_the_mixed_derivative(alpha: float) -> None:
    (got,) = quadratic(Darts(alpha=alpha)).hypergradient("upper")
    close(got, PHI - B.mT @ V, FINITE_DIFFERENCE)


def test_a_step_of_the_engine_moves_by_the_hypergradient() -> None:
    engine = quadratic(CG(iterations=SIZE))
    engine.step()
    theta = THETA - 0.1 * (A @ THETA + B @ PHI)
    close(engine["lower"].module().detach(), theta, CLOSED_FORM)
    close(engine["upper"].module().detach(), PHI - 0.1 * (PHI - B.mT @ torch.linalg.solve(A, V)), CLOSED_FORM)


ROWS, FEATURES = 40, 5
X, Y = randn(2 * ROWS, FEATURES, seed=6), randn(2 * ROWS, seed=7)


@pytest.mark.parametrize("method", [CG(iterations=FEATURES), Exact()], ids=str)
def test_ridge_penalties_per_feature(method: Method) -> None:
    """w* = (X'X/n + diag(exp lam))^-1 X'y/n in closed form, differentiated by autograd through the solve."""
    x, y, x_held, y_held = X[:ROWS], Y[:ROWS], X[ROWS:], Y[ROWS:]

    def solution(lam: Tensor) -> Tensor:
        return torch.linalg.solve(x.mT @ x / ROWS + lam.exp().diag(), x.mT @ y / ROWS)

    def lower(problem: Given, batch: Any) -> Tensor:
        w, lam = problem.module(), problem.upper()
        return (x @ w - y).square().mean() / 2 + (lam.exp() * w.square()).sum() / 2

    def upper(problem: Given, batch: Any) -> Tensor:
        return (x_held @ problem.lower() - y_held).square().mean()

    lam = randn(FEATURES, seed=8)
    engine = pair(lower, upper, method=method, modules=(Vector(*solution(lam).tolist()), Vector(*lam.tolist())))
    expected = jacrev(lambda at: (x_held @ solution(at) - y_held).square().mean())(lam)
    close(engine.hypergradient("upper")[0], expected, CLOSED_FORM)


@pytest.mark.parametrize("method", [CG(iterations=20, tolerance=1e-14), Exact()], ids=str)
def test_logistic_penalties_per_feature(method: Method) -> None:
    """breast_cancer, solved by Newton; the implicit function theorem with a dense Hessian."""
    from sklearn.datasets import load_breast_cancer

    inputs, labels = load_breast_cancer(return_X_y=True)
    x = torch.from_numpy(inputs[:300, :8])
    x, sign = (x - x.mean(0)) / x.std(0), torch.from_numpy(labels[:300] * 2.0 - 1)

    def risk(w: Tensor, rows: slice) -> Tensor:
        return softplus(-sign[rows] * (x[rows] @ w)).mean()

    def penalized(w: Tensor, lam: Tensor) -> Tensor:
        return risk(w, slice(200)) + (lam.exp() * w.square()).sum() / 2

    def held_out(w: Tensor) -> Tensor:
        return risk(w, slice(200, 300))

    lam, w = randn(8, seed=9) - 3, torch.zeros(8)
    for _ in range(20):
        w = w - torch.linalg.solve(jacrev(jacrev(penalized))(w, lam), jacrev(penalized)(w, lam))
    mixed = jacrev(jacrev(penalized), argnums=1)(w, lam)
    expected = -mixed.mT @ torch.linalg.solve(jacrev(jacrev(penalized))(w, lam), jacrev(held_out)(w))

    engine = pair(
        lambda p, b: penalized(p.module(), p.upper()),
        lambda p, b: held_out(p.lower()),
        method=method,
        modules=(Vector(*w.tolist()), Vector(*lam.tolist())),
    )
    close(engine.hypergradient("upper")[0], expected, CONVERGED)


def values(**given: Tensor) -> dict[str, Vector]:
    return {name: Vector(*value.tolist()) for name, value in given.items()}


def test_a_diamond() -> None:
    """top constrains left, which right and low read on the way back up: low* = f(left*), right* = g(left*, low*)."""
    C, D, E = (randn(3, 3, seed=s) / 2 for s in (10, 11, 12))

    def low_solution(left: Tensor) -> Tensor:
        return C @ left.sin()

    def right_solution(left: Tensor, low: Tensor) -> Tensor:
        return D @ (left * low)

    def top_loss(phi: Tensor, left: Tensor, right: Tensor, low: Tensor) -> Tensor:
        return (left + right).cos().sum() + (low * right * phi).sum() + phi.square().sum()

    def total(phi: Tensor) -> Tensor:
        left = (E @ phi).tanh()
        low = low_solution(left)
        return top_loss(phi, left, right_solution(left, low), low)

    losses: dict[str, Any] = {
        "left": lambda p, b: (p.module() - (E @ p.top()).tanh()).square().sum() / 2,
        "low": lambda p, b: (p.module() - low_solution(p.left())).square().sum() / 2,
        "right": lambda p, b: (p.module() - right_solution(p.left(), p.low())).square().sum() / 2,
        "top": lambda p, b: top_loss(p.module(), p.left(), p.right(), p.low()),
    }
    phi = randn(3, seed=13)
    left = (E @ phi).tanh()
    low = low_solution(left)
    modules = values(top=phi, left=left, low=low, right=right_solution(left, low))
    problems = [Given(n, loss, modules[n], config=Config(type=CG(iterations=3))) for n, loss in losses.items()]
    u2l = {"top": ["left"]}
    l2u = {"left": ["top", "low", "right"], "low": ["top", "right"], "right": ["top"]}
    engine = Engine(problems, {"u2l": u2l, "l2u": l2u})
    close(engine.hypergradient("top")[0], jacrev(total)(phi), CLOSED_FORM)


def shared(response: str = "total") -> tuple[Engine, Any, dict[str, Tensor]]:
    """u and v both constrain low and read it."""
    M = A[:3, :3] + torch.eye(3)

    def low_solution(u: Tensor, v: Tensor) -> Tensor:
        return torch.linalg.solve(M, u * v + u.sin())

    losses: dict[str, Any] = {
        "low": lambda p, b: p.module() @ M @ p.module() / 2 - p.module() @ (p.u() * p.v() + p.u().sin()),
        "u": lambda p, b: (p.low() - 1).square().sum() + p.module().square().sum(),
        "v": lambda p, b: p.low().exp().sum() + p.module().square().sum(),
    }
    at = {"u": randn(3, seed=14), "v": randn(3, seed=15)}
    modules = values(low=low_solution(**at), **at)
    problems = [Given(n, loss, modules[n], config=Config(type=CG(iterations=3))) for n, loss in losses.items()]
    edges = [("u", "low"), ("v", "low")]
    return Engine(problems, edges=edges, config=EngineConfig(response=response)), low_solution, at


@pytest.mark.parametrize("response", ["total", "direct"])
def test_a_shared_lower(response: str) -> None:
    engine, low, at = shared(response)
    expected_u = jacrev(lambda u: (low(u, at["v"]) - 1).square().sum() + u.square().sum())(at["u"])
    expected_v = jacrev(lambda v: low(at["u"], v).exp().sum() + v.square().sum())(at["v"])
    close(engine.hypergradient("u")[0], expected_u, CLOSED_FORM)
    close(engine.hypergradient("v")[0], expected_v, CLOSED_FORM)


@pytest.mark.parametrize("method", ["cg", "neumann", "darts", "exact", "identity"])
@pytest.mark.parametrize(("response", "expected"), [("total", 1.7), ("direct", 0.0)])
def test_a_middle_problem_that_acts_through_its_lower(method: str, response: str, expected: float) -> None:
    """low = (z - y)^2 / 2, mid = y^2 / 2 + x z, top = (y - 1)^2 / 2: y* = -x, by way of low alone."""
    losses: dict[str, Any] = {
        "low": lambda p, b: (p.module() - p.mid()).square().sum() / 2,
        "mid": lambda p, b: (p.module().square() / 2 + p.top() * p.low()).sum(),
        "top": lambda p, b: (p.mid() - 1).square().sum() / 2,
    }
    at = {"low": -0.7, "mid": -0.7, "top": 0.7}
    problems = [Given(n, loss, Vector(at[n]), config=Config(type=method)) for n, loss in losses.items()]
    engine = Engine(problems, edges=[("top", "mid"), ("mid", "low")], config=EngineConfig(response=response))
    close(engine.hypergradient("top")[0], torch.tensor([expected]), FINITE_DIFFERENCE)


def test_direct_response_is_its_own_formula() -> None:
    """Single-level Hessian and mixed derivative of each loss, its lowers held fixed."""
    low = {"z": randn(2, seed=16), "y": randn(2, seed=17), "x": randn(2, seed=18)}
    z, y, x = low["z"], low["y"], low["x"]

    def mid_loss(y: Tensor, x: Tensor, z: Tensor) -> Tensor:
        return torch.cosh(y - x).sum() + (y * z * x).sin().sum() / 3 + y.square().sum() / 2

    def top_loss(y: Tensor, x: Tensor) -> Tensor:
        return (y * x).sum() + y.exp().sum()

    losses: dict[str, Any] = {
        "z": lambda p, b: (p.module() - p.y().sin()).square().sum() / 2,
        "y": lambda p, b: mid_loss(p.module(), p.x(), p.z()),
        "x": lambda p, b: top_loss(p.y(), p.module()),
    }
    modules = values(**low)
    problems = [Given(n, loss, modules[n], config=Config(type=Exact())) for n, loss in losses.items()]
    config = EngineConfig(response="direct")
    got = Engine(problems, edges=[("x", "y"), ("y", "z")], config=config).hypergradient("x")[0]
    H, mixed = jacrev(jacrev(mid_loss))(y, x, z), jacrev(jacrev(mid_loss), argnums=1)(y, x, z)
    expected = jacrev(top_loss, argnums=1)(y, x) - mixed.mT @ torch.linalg.solve(H, jacrev(top_loss)(y, x))
    close(got, expected, CLOSED_FORM)
