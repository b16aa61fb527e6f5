"""The dense solve: right by construction, and clear about what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from multilevel.hypergrad.errors import ConfigError, NonFiniteError, NumericsWarning
from multilevel.hypergrad.exact import Exact
from multilevel.hypergrad.linearization import Linearization
from multilevel.hypergrad.objective import Evaluation, Objective

from ..conftest import CLOSED_FORM, CONVERGED
from .quadratics import SHAPES, Shapes, dense_solve, quadratic, random_tensors, symmetric

INDEFINITE = [-3.0, -1.0, -0.2, 0.3, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


@pytest.mark.parametrize("shapes", [[(10,)], SHAPES], ids=["one tensor", "three tensors"])
@pytest.mark.parametrize("damping", [0.0, 0.05])
def test_equals_a_dense_solve(shapes: Shapes, damping: float) -> None:
    matrix, vector = symmetric(INDEFINITE), random_tensors(*shapes)
    at = quadratic(matrix, shapes)
    got = Exact(damping=damping).solve(at, vector)
    expected = dense_solve(matrix + damping * torch.eye(10), vector)
    torch.testing.assert_close(got, expected, rtol=CLOSED_FORM, atol=CLOSED_FORM)
    assert at.products == 10


def test_pull_back_is_the_implicit_function_theorem() -> None:
    matrix, vector = symmetric(INDEFINITE), random_tensors((10,))
    (got,) = Exact().pull_back(quadratic(matrix), vector)  # theta* = A^{-1} phi
    torch.testing.assert_close(got, torch.linalg.solve(matrix, vector[0]), rtol=CLOSED_FORM, atol=CLOSED_FORM)


def test_singular_and_consistent_is_silent() -> None:
    matrix = symmetric([0.0, 0.0, 1.0, 2.0])
    vector = matrix @ torch.ones(4)
    (got,) = Exact().solve(quadratic(matrix), (vector,))
    torch.testing.assert_close(got, torch.linalg.pinv(matrix) @ vector, rtol=CONVERGED, atol=CONVERGED)


def test_singular_and_inconsistent_warns() -> None:
    matrix, (vector,) = symmetric([0.0, 0.0, 1.0, 2.0]), random_tensors((4,))
    with pytest.warns(NumericsWarning, match="singular along 2 of its 4 directions"):
        (got,) = Exact().solve(quadratic(matrix), (vector,))
    expected = torch.linalg.pinv(matrix, hermitian=True) @ vector
    torch.testing.assert_close(got, expected, rtol=CONVERGED, atol=CONVERGED)


def test_zero_hessian_gives_zero() -> None:
    with pytest.warns(NumericsWarning, match="singular along 3 of its 3"):
        (got,) = Exact().solve(quadratic(torch.zeros(3, 3)), (torch.ones(3),))
    assert torch.equal(got, torch.zeros(3))


def test_too_many_parameters() -> None:
    with pytest.raises(ConfigError, match=r"11 parameters, more than max_size = 10.*Use cg.*Exact\(max_size=11\)"):
        Exact(max_size=10).solve(quadratic(torch.eye(11)), (torch.ones(11),))


def test_a_hessian_that_is_not_finite() -> None:
    at = Linearization(Objective(lambda theta, phi: Evaluation(theta[0].norm())), (torch.zeros(2),), ())
    with pytest.raises(NonFiniteError, match="exact: the Hessian holds values"):
        Exact().solve(at, (torch.ones(2),))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
def test_lower_precision(dtype: torch.dtype, tolerance: float) -> None:
    matrix, (vector,) = symmetric(INDEFINITE).to(dtype), random_tensors((10,))
    (got,) = Exact().solve(quadratic(matrix), (vector.to(dtype),))
    (expected,) = dense_solve(matrix.double(), (vector.to(dtype).double(),))
    assert got.dtype == dtype
    assert (got.double() - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"damping": -1.0}, "exact: damping must be a number of at least 0, got -1.0"),
        ({"max_size": 0}, "exact: max_size must be a whole number of at least 1, got 0"),
    ],
)
def test_refused_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Exact(**options)
