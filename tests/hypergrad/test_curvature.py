"""Gauss-Newton curvature against dense J^T (d2l/dz2) J, and differentiated again inside nested levels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.functional import hessian, jacobian

from multilevel.hypergrad.cg import CG
from multilevel.hypergrad.curvature import CurvatureMethod
from multilevel.hypergrad.errors import ProblemError
from multilevel.hypergrad.exact import Exact
from multilevel.hypergrad.gmres import GMRES
from multilevel.hypergrad.identity import Identity
from multilevel.hypergrad.linearization import Linearization
from multilevel.hypergrad.minres import MINRES
from multilevel.hypergrad.neumann import Neumann
from multilevel.hypergrad.nystrom import Nystrom
from multilevel.hypergrad.objective import Evaluation, Objective
from multilevel.hypergrad.response import best_response, respond
from multilevel.hypergrad.tensors import Tensors, flatten, unflatten

from ..conftest import CLOSED_FORM, CONVERGED, FINITE_DIFFERENCE
from .quadratics import SHAPES, quadratic, random_tensors, symmetric

WEIGHTS = ((3, 4), (3,), (2, 3))
INPUTS = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, 1, 1, 0, 1])


def predict(theta: Tensors) -> Tensor:
    return F.linear(torch.tanh(F.linear(INPUTS, theta[0], theta[1])), theta[2])


def objective(decay: float = 0.0) -> Objective:
    """Cross-entropy of a small network, each example weighted by exp(phi), plus weight decay outside the outputs."""

    def function(theta: Tensors, inputs: Tensors) -> Evaluation:
        outputs = predict(theta)
        loss = (inputs[0].exp() * F.cross_entropy(outputs, LABELS, reduction="none")).sum()
        return Evaluation(loss + decay / 2 * flatten(theta).square().sum(), outputs)

    return Objective(function)


def dense_gauss_newton(theta: Tensors, phi: Tensor, decay: float) -> Tensor:
    J = jacobian(lambda flat: predict(unflatten(flat, theta)).reshape(-1), flatten(theta))

    def loss(z: Tensor) -> Tensor:
        return (phi.exp() * F.cross_entropy(z.view(5, 2), LABELS, reduction="none")).sum()

    return J.mT @ hessian(loss, predict(theta).reshape(-1)) @ J + decay * torch.eye(J.shape[1])


@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.7])
def test_product_equals_the_dense_matrix(differentiable: bool, decay: float) -> None:
    theta, (phi,), vector = random_tensors(*WEIGHTS), random_tensors((5,), seed=5), random_tensors(*WEIGHTS, seed=6)
    at = Linearization(objective(decay), theta, (phi,), differentiable=differentiable)
    got = CG(curvature="ggn").matrix_product(at, vector)
    expected = dense_gauss_newton(theta, phi, decay) @ flatten(vector)
    torch.testing.assert_close(flatten(got), expected, rtol=CLOSED_FORM, atol=CLOSED_FORM)
    hessian_product = flatten(at.hessian_product(vector))
    assert (hessian_product - expected).norm() > 0.01 * expected.norm()


@pytest.mark.parametrize("decay", [0.0, 0.7])
def test_derivative_of_the_product(decay: float) -> None:
    theta, (phi,), vector = random_tensors(*WEIGHTS), random_tensors((5,), seed=5), random_tensors(*WEIGHTS, seed=6)

    def product(*tensors: Tensor) -> Tensors:
        at = Linearization(objective(decay), tensors[:3], tensors[3:], differentiable=True)
        return CG(curvature="ggn").matrix_product(at, vector)

    assert torch.autograd.gradcheck(product, tuple(t.requires_grad_() for t in (*theta, phi)))


@pytest.mark.parametrize(
    "method",
    [
        CG(iterations=40, curvature="ggn"),
        MINRES(iterations=40, curvature="ggn"),
        GMRES(iterations=40, curvature="ggn"),
        Exact(curvature="ggn"),
        Neumann(iterations=2000, alpha="auto", curvature="ggn"),
        Nystrom(rank=21, damping=1e-4, curvature="ggn"),
    ],
    ids=lambda method: method.name,
)
def test_every_solver_inverts_it(method: CurvatureMethod) -> None:
    theta, (phi,), vector = random_tensors(*WEIGHTS), random_tensors((5,), seed=5), random_tensors(*WEIGHTS, seed=6)
    at = Linearization(objective(1.0), theta, (phi,))
    got = at.inverse_product(method, vector)
    expected = torch.linalg.solve(
        dense_gauss_newton(theta, phi, 1.0 + getattr(method, "damping", 0.0)), flatten(vector)
    )
    torch.testing.assert_close(flatten(got), expected, rtol=CONVERGED, atol=CONVERGED)


def test_the_mixed_derivative_stays_that_of_the_objective() -> None:
    theta, phi, vector = random_tensors(*WEIGHTS), random_tensors((5,), seed=5), random_tensors(*WEIGHTS, seed=6)
    (got,) = Exact(curvature="ggn").pull_back(Linearization(objective(1.0), theta, phi), vector)
    solved = torch.linalg.solve(dense_gauss_newton(theta, phi[0], 1.0), flatten(vector))
    (expected,) = Identity().pull_back(Linearization(objective(1.0), theta, phi), unflatten(solved, theta))
    torch.testing.assert_close(got, expected, rtol=CONVERGED, atol=CONVERGED)


def central_difference(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-5) -> Tensor:
    rows = torch.eye(len(at)) * step
    return torch.stack([(function(at + row) - function(at - row)) / (2 * step) for row in rows])


# Linear outputs with a squared loss: the Gauss-Newton matrix is the Hessian, so derivatives of re-solved problems are
# the truth at every order.
DESIGN = torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TARGETS = torch.randn(6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def ridge(lam: Tensor) -> Tensor:
    weight = 1 + lam.sum() ** 2
    return torch.linalg.solve(weight * DESIGN.mT @ DESIGN + torch.diag(lam.exp()), weight * DESIGN.mT @ TARGETS)


def respond_ridge(method: CurvatureMethod, lam: Tensor) -> Tensor:
    def function(theta: Tensors, inputs: Tensors) -> Evaluation:
        outputs = DESIGN @ theta[0]
        fit = (1 + inputs[0].sum() ** 2) * (outputs - TARGETS).square().sum() / 2
        return Evaluation(fit + (inputs[0].exp() * theta[0] ** 2).sum() / 2, outputs)

    return respond(method, Objective(function), (ridge(lam.detach()),), (lam,))[0]


@pytest.mark.parametrize(
    "method",
    [CG(iterations=10, curvature="ggn"), Exact(curvature="ggn"), MINRES(curvature="ggn"), GMRES(curvature="hessian")],
    ids=repr,
)
def test_second_derivative_through_the_solve(method: CurvatureMethod) -> None:
    def hypergradient(lam: Tensor) -> Tensor:
        lam = lam.detach().requires_grad_()
        return torch.autograd.grad(respond_ridge(method, lam).pow(3).sum(), lam)[0]

    lam = torch.tensor([0.3, -0.2, 0.5], requires_grad=True)
    (gradient,) = torch.autograd.grad(respond_ridge(method, lam).pow(3).sum(), lam, create_graph=True)
    got = torch.stack([torch.autograd.grad(g, lam, retain_graph=True)[0] for g in gradient])
    torch.testing.assert_close(
        gradient, central_difference(lambda x: ridge(x).pow(3).sum(), lam.detach()), rtol=0, atol=FINITE_DIFFERENCE
    )
    torch.testing.assert_close(got, central_difference(hypergradient, lam.detach()), rtol=0, atol=FINITE_DIFFERENCE)


@pytest.mark.parametrize(
    "method",
    [
        CG(iterations=10),
        pytest.param(MINRES(), marks=pytest.mark.slow),
        pytest.param(GMRES(), marks=pytest.mark.slow),
        Exact(),
        Neumann(iterations=40, alpha="auto"),
        pytest.param(Nystrom(rank=3, damping=1e-9, reuse=2), marks=pytest.mark.slow),
    ],
    ids=repr,
)
def test_three_nested_levels(method: CurvatureMethod) -> None:
    """low = argmin of a function of mid, mid = argmin of a function of low and top; the top's total derivative."""

    def low_objective(z: Tensor, y: Tensor) -> Tensor:
        return ((z - y.sin()) ** 2).sum() / 2 + 0.1 * (z**4).sum()

    def mid_objective(y: Tensor, x: Tensor, solver: Callable[[Tensor], Tensor]) -> Tensor:
        return (y - x).square().sum() / 2 + 0.3 * solver(y).square().sum() + 0.1 * y[0] * y[1]

    def solve_low(y: Tensor) -> Tensor:
        z = y.detach().sin()
        for _ in range(40):
            z = z - (z - y.detach().sin() + 0.4 * z**3) / (1 + 1.2 * z**2)
        return z

    def total_mid_gradient(y: Tensor, x: Tensor) -> Tensor:
        z = solve_low(y)
        slope = y.cos() / (1 + 1.2 * z**2)
        return y - x + 0.6 * z * slope + 0.1 * y.flip(0)

    def solve_mid(x: Tensor) -> Tensor:
        y = x.detach().clone()
        for _ in range(200):
            y = y - 0.5 * total_mid_gradient(y, x.detach())
        return y

    def low(y: Tensor) -> Tensor:
        return best_response(low_objective, solve_low(y), y, method=method)

    def mid(x: Tensor) -> Tensor:
        return best_response(lambda y, x: mid_objective(y, x, low), solve_mid(x), x, method=method)

    def top(x: Tensor) -> Tensor:
        y = solve_mid(x)
        return (y**2).sum() + solve_low(y).prod()

    x = torch.tensor([0.7, -0.4], requires_grad=True)
    y = mid(x)
    ((y**2).sum() + low(y).prod()).backward()
    torch.testing.assert_close(x.grad, central_difference(top, x.detach()), rtol=0, atol=FINITE_DIFFERENCE)


@pytest.mark.parametrize("method", [CG(curvature="ggn"), Neumann(curvature="ggn"), Nystrom(curvature="ggn")], ids=repr)
def test_outputs_are_required(method: CurvatureMethod) -> None:
    at = quadratic(symmetric([1.0] * 10), SHAPES)
    with pytest.raises(ProblemError, match=f"{method.name}: curvature='ggn' needs .* must also return 'outputs'"):
        method.solve(at, random_tensors(*SHAPES))


@pytest.mark.parametrize("outputs", [lambda theta: theta[0].detach(), lambda theta: theta[0] * 1], ids=["cut", "other"])
def test_outputs_that_the_loss_was_not_computed_from(outputs: Callable[[Tensors], Tensor]) -> None:
    at = Linearization(
        Objective(lambda theta, phi: Evaluation((theta[0] ** 2).sum(), outputs(theta))), random_tensors((3,)), ()
    )
    with pytest.raises(ProblemError, match="return the very tensor that the loss is computed from, not detached"):
        CG(curvature="ggn").solve(at, random_tensors((3,)))


def test_linear_loss_has_no_curvature_of_its_own() -> None:
    at = Linearization(
        Objective(lambda theta, phi: Evaluation((outputs := theta[0] ** 2).sum(), outputs)), random_tensors((3,)), ()
    )
    (got,) = CG(curvature="ggn").matrix_product(at, random_tensors((3,), seed=3))
    torch.testing.assert_close(got, torch.zeros(3), rtol=0, atol=CLOSED_FORM)
