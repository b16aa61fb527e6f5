"""MINRES against dense solves: definite, indefinite and singular matrices."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from multilevel.hypergrad.errors import ConfigError
from multilevel.hypergrad.linearization import Linearization
from multilevel.hypergrad.minres import MINRES
from multilevel.hypergrad.objective import Evaluation, Objective, State
from multilevel.hypergrad.tensors import norm

from ..conftest import CLOSED_FORM, CONVERGED
from .quadratics import SHAPES, Shapes, dense_solve, quadratic, random_tensors, symmetric

DEFINITE = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0]
INDEFINITE = [-3.0, -1.0, -0.2, 0.3, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


@pytest.mark.parametrize("shapes", [[(10,)], SHAPES], ids=["one tensor", "three tensors"])
@pytest.mark.parametrize("spectrum", [DEFINITE, INDEFINITE, [-x for x in DEFINITE]])
@pytest.mark.parametrize("damping", [0.0, 0.05])
def test_exact_after_as_many_iterations_as_parameters(shapes: Shapes, spectrum: list[float], damping: float) -> None:
    matrix, vector = symmetric(spectrum), random_tensors(*shapes)
    got = MINRES(iterations=10, damping=damping).solve(quadratic(matrix, shapes), vector)
    expected = dense_solve(matrix + damping * torch.eye(10), vector)
    torch.testing.assert_close(got, expected, rtol=CONVERGED, atol=CONVERGED)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_each_iterate_has_the_smallest_residual_of_its_krylov_space(steps: int) -> None:
    matrix, (vector,) = symmetric(INDEFINITE), random_tensors((10,))
    krylov = torch.stack([torch.linalg.matrix_power(matrix, k) @ vector for k in range(steps)], dim=1)
    best = krylov @ torch.linalg.lstsq(matrix @ krylov, vector[:, None]).solution[:, 0]
    (got,) = MINRES(iterations=steps).solve(quadratic(matrix), (vector,))
    torch.testing.assert_close(got, best, rtol=CLOSED_FORM, atol=CLOSED_FORM)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_identity_hessian_with_many_iterations(sign: float) -> None:
    at = Linearization(Objective(lambda theta, phi: Evaluation(sign * (theta[0] ** 2).sum() / 2)), (torch.ones(4),), ())
    vector = random_tensors((4,))
    before = vector[0].clone()
    (got,) = MINRES(iterations=50, tolerance=0.0).solve(at, vector)
    torch.testing.assert_close(got, sign * before, rtol=CLOSED_FORM, atol=CLOSED_FORM)
    assert torch.equal(vector[0], before)


def test_zero_vector_and_zero_matrix() -> None:
    assert torch.equal(MINRES().solve(quadratic(torch.eye(3)), (torch.zeros(3),))[0], torch.zeros(3))
    assert torch.equal(MINRES().solve(quadratic(torch.zeros(3, 3)), (torch.ones(3),))[0], torch.zeros(3))


def test_singular_and_inconsistent_gives_a_least_squares_solution() -> None:
    matrix, (vector,) = symmetric([0.0, 0.0, -1.0, 1.0, 2.0, 3.0]), random_tensors((6,))
    (got,) = MINRES(iterations=30).solve(quadratic(matrix), (vector,))
    torch.testing.assert_close(matrix @ (matrix @ got - vector), torch.zeros(6), rtol=0, atol=CONVERGED)
    assert got.norm() < 100 * vector.norm()


def test_singular_and_consistent_gives_the_shortest_solution() -> None:
    matrix = symmetric([0.0, 0.0, -1.0, 1.0, 2.0, 3.0])
    vector = matrix @ torch.ones(6)
    (got,) = MINRES(iterations=30).solve(quadratic(matrix), (vector,))
    torch.testing.assert_close(got, torch.linalg.pinv(matrix) @ vector, rtol=CONVERGED, atol=CONVERGED)


def test_ill_conditioned() -> None:
    matrix, (vector,) = symmetric([(-0.1) ** k for k in range(6)]), random_tensors((6,))
    (got,) = MINRES(iterations=200).solve(quadratic(matrix), (vector,))
    torch.testing.assert_close(matrix @ got, vector, rtol=CONVERGED, atol=CONVERGED)


def test_the_residual_that_it_tracks_is_the_true_one() -> None:
    matrix, vector = symmetric(INDEFINITE), random_tensors((10,))
    at = quadratic(matrix)
    (got,) = MINRES(iterations=10, tolerance=0.2).solve(at, vector)
    assert at.products < 10
    assert torch.linalg.norm(matrix @ got - vector[0]) <= 0.2 * norm(vector) * (1 + CLOSED_FORM)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.2)])
def test_lower_precision(dtype: torch.dtype, tolerance: float) -> None:
    matrix, (vector,) = symmetric([-2.0, -1.0, 1.0, 2.0]).to(dtype), random_tensors((4,))
    (got,) = MINRES(iterations=10).solve(quadratic(matrix), (vector.to(dtype),))
    (expected,) = dense_solve(matrix.double(), (vector.to(dtype).double(),))
    assert got.dtype == dtype
    assert (got.double() - expected).norm() <= tolerance * expected.norm()


def test_warm_start_at_the_same_point_needs_one_product() -> None:
    matrix, vector = symmetric(INDEFINITE), random_tensors(*SHAPES)
    state: State = {}
    method = MINRES(iterations=10, tolerance=1e-8, warm_start=True)
    method.pull_back(quadratic(matrix, SHAPES, state=state), vector)
    at = quadratic(matrix, SHAPES, state=state)
    method.pull_back(at, vector)
    assert at.products == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 2.5}, "minres: iterations must be a whole number of at least 1, got 2.5"),
        ({"damping": -1.0}, "minres: damping must be a number of at least 0"),
        ({"curvature": None}, "minres: curvature must be 'hessian' or 'ggn', got None"),
    ],
)
def test_refused_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MINRES(**options)
