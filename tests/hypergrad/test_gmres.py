"""GMRES against dense solves, also of matrices that are not symmetric."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from multilevel.hypergrad.errors import ConfigError
from multilevel.hypergrad.gmres import GMRES
from multilevel.hypergrad.linearization import Linearization
from multilevel.hypergrad.minres import MINRES
from multilevel.hypergrad.objective import Evaluation, Objective, State

from ..conftest import CLOSED_FORM, CONVERGED
from .quadratics import SHAPES, Shapes, dense_solve, quadratic, random_tensors, symmetric

INDEFINITE = [-3.0, -1.0, -0.2, 0.3, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


class _Direction(torch.autograd.Function):
    """A loss whose backward pass is a field of its own: d loss / d theta = M theta."""

    @staticmethod
    def forward(ctx: Any, theta: Tensor, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(theta, matrix)
        return theta.sum()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        theta, matrix = ctx.saved_tensors
        return cotangent * (matrix @ theta), None


def field_with_derivative(matrix: Tensor) -> Linearization:
    def function(theta: tuple[Tensor, ...], phi: tuple[Tensor, ...]) -> Evaluation:
        return Evaluation(_Direction.apply(theta[0], matrix))

    return Linearization(Objective(function), (torch.ones(len(matrix)),), ())


@pytest.mark.parametrize("shapes", [[(10,)], SHAPES], ids=["one tensor", "three tensors"])
@pytest.mark.parametrize("damping", [0.0, 0.05])
def test_exact_after_as_many_iterations_as_parameters(shapes: Shapes, damping: float) -> None:
    matrix, vector = symmetric(INDEFINITE), random_tensors(*shapes)
    got = GMRES(iterations=10, damping=damping).solve(quadratic(matrix, shapes), vector)
    expected = dense_solve(matrix + damping * torch.eye(10), vector)
    torch.testing.assert_close(got, expected, rtol=CLOSED_FORM, atol=CLOSED_FORM)


def test_solves_with_the_transpose_where_the_derivative_is_not_symmetric() -> None:
    # theta* solves G(theta, phi) = 0, so the cotangent goes through (dG/dtheta)^{-T}, and products are vjps.
    matrix, (vector,) = torch.randn(6, 6) + 3 * torch.eye(6), random_tensors((6,))
    (got,) = GMRES(iterations=6).solve(field_with_derivative(matrix), (vector,))
    torch.testing.assert_close(got, torch.linalg.solve(matrix.mT, vector), rtol=CLOSED_FORM, atol=CLOSED_FORM)
    (wrong,) = MINRES(iterations=6).solve(field_with_derivative(matrix), (vector,))
    assert (wrong - got).norm() > 0.01 * got.norm()


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_same_iterates_as_minres_where_the_matrix_is_symmetric(steps: int) -> None:
    matrix, vector = symmetric(INDEFINITE), random_tensors((10,))
    got = GMRES(iterations=steps).solve(quadratic(matrix), vector)
    expected = MINRES(iterations=steps).solve(quadratic(matrix), vector)
    torch.testing.assert_close(got, expected, rtol=CLOSED_FORM, atol=CLOSED_FORM)


def test_restarts_converge_within_the_cap() -> None:
    matrix, vector = symmetric([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), random_tensors((6,))
    at = quadratic(matrix)
    got = GMRES(iterations=60, restart=3, tolerance=1e-10).solve(at, vector)
    torch.testing.assert_close(got, dense_solve(matrix, vector), rtol=CONVERGED, atol=CONVERGED)
    assert at.products < 80


def test_restart_of_one_is_weaker_than_none() -> None:
    matrix, vector = symmetric([1.0, 2.0, 3.0, 40.0]), random_tensors((4,))
    residual = {}
    for restart in (1, None):
        (got,) = GMRES(iterations=4, restart=restart).solve(quadratic(matrix), vector)
        residual[restart] = (matrix @ got - vector[0]).norm().item()
    assert residual[None] < CONVERGED < residual[1]


def test_identity_hessian_with_many_iterations() -> None:
    at = Linearization(Objective(lambda theta, phi: Evaluation((theta[0] ** 2).sum() / 2)), (torch.ones(4),), ())
    vector = random_tensors((4,))
    before = vector[0].clone()
    (got,) = GMRES(iterations=50, tolerance=0.0, restart=5).solve(at, vector)
    torch.testing.assert_close(got, before, rtol=CLOSED_FORM, atol=CLOSED_FORM)
    assert torch.equal(vector[0], before)


def test_zero_vector_and_zero_matrix() -> None:
    assert torch.equal(GMRES().solve(quadratic(torch.eye(3)), (torch.zeros(3),))[0], torch.zeros(3))
    assert torch.equal(GMRES().solve(quadratic(torch.zeros(3, 3)), (torch.ones(3),))[0], torch.zeros(3))


def test_singular_matrix() -> None:
    matrix, (vector,) = symmetric([0.0, 0.0, -1.0, 1.0, 2.0, 3.0]), random_tensors((6,))
    (got,) = GMRES(iterations=6).solve(quadratic(matrix), (vector,))
    torch.testing.assert_close(matrix @ (matrix @ got - vector), torch.zeros(6), rtol=0, atol=CONVERGED)


def test_float32() -> None:
    matrix, (vector,) = symmetric(INDEFINITE).float(), random_tensors((10,))
    (got,) = GMRES(iterations=10).solve(quadratic(matrix), (vector.float(),))
    (expected,) = dense_solve(matrix.double(), (vector,))
    assert (got - expected).norm() <= 1e-4 * expected.norm()


def test_warm_start_at_the_same_point_needs_one_product() -> None:
    matrix, vector = symmetric(INDEFINITE), random_tensors((10,))
    state: State = {}
    method = GMRES(iterations=10, tolerance=1e-8, warm_start=True)
    method.pull_back(quadratic(matrix, state=state), vector)
    at = quadratic(matrix, state=state)
    method.pull_back(at, vector)
    assert at.products == 1


@pytest.mark.parametrize("restart", [0, 1.5, True])
def test_refused_restart(restart: Any) -> None:
    with pytest.raises(ConfigError, match="gmres: restart must be a whole number of at least 1"):
        GMRES(restart=restart)
