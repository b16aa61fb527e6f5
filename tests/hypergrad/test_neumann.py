"""The Neumann series: exactly the partial sum, and honest where it diverges."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from multilevel.hypergrad.errors import ConfigError, NumericsWarning
from multilevel.hypergrad.linearization import Linearization
from multilevel.hypergrad.neumann import Neumann
from multilevel.hypergrad.objective import Evaluation, Objective, State
from multilevel.hypergrad.tensors import flatten, unflatten

from ..conftest import CLOSED_FORM, CONVERGED, EXACT
from .quadratics import SHAPES, Shapes, dense_solve, quadratic, random_tensors, symmetric

SPECTRUM = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0]


@pytest.mark.parametrize("shapes", [[(10,)], SHAPES], ids=["one tensor", "three tensors"])
@pytest.mark.parametrize("iterations", [0, 1, 2, 7, 20])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_exactly_the_partial_sum(shapes: Shapes, iterations: int, alpha: Any) -> None:
    matrix, vector = symmetric(SPECTRUM), random_tensors(*shapes)
    step = torch.eye(10) - alpha * matrix
    series = alpha * sum(torch.linalg.matrix_power(step, k) for k in range(iterations + 1))
    at = quadratic(matrix, shapes)
    got = Neumann(iterations=iterations, alpha=alpha).solve(at, vector)
    torch.testing.assert_close(got, unflatten(series @ flatten(vector), vector), rtol=EXACT, atol=EXACT)
    assert at.products == iterations


def test_identity_hessian_does_not_touch_the_vector() -> None:
    at = Linearization(Objective(lambda theta, phi: Evaluation((theta[0] ** 2).sum() / 2)), (torch.ones(4),), ())
    vector = random_tensors((4,))
    before = vector[0].clone()
    (got,) = Neumann(iterations=100, alpha=0.5).solve(at, vector)
    torch.testing.assert_close(got, before, rtol=EXACT, atol=EXACT)
    assert torch.equal(vector[0], before)


@pytest.mark.parametrize("iterations", [0, 5])
@pytest.mark.parametrize("alpha", [0.1, "auto"])
def test_zero_vector(iterations: int, alpha: Any) -> None:
    (got,) = Neumann(iterations=iterations, alpha=alpha).solve(quadratic(torch.eye(3)), (torch.zeros(3),))
    assert torch.equal(got, torch.zeros(3))


def test_auto_converges_without_being_told_the_scale() -> None:
    for scale in (1e-3, 1.0, 1e4):
        matrix, vector = scale * symmetric(SPECTRUM), random_tensors(*SHAPES)
        got = Neumann(iterations=400, alpha="auto").solve(quadratic(matrix, SHAPES), vector)
        torch.testing.assert_close(got, dense_solve(matrix, vector), rtol=CONVERGED, atol=CONVERGED / scale)


def test_auto_keeps_its_estimate_for_some_upper_steps() -> None:
    matrix, vector = symmetric(SPECTRUM), random_tensors((10,))
    state: State = {}
    method, products = Neumann(iterations=3, alpha="auto", refresh=2), []
    for _ in range(4):
        at = quadratic(matrix, state=state)
        method.pull_back(at, vector)
        products.append(at.products)
    assert products == [23, 3, 23, 3]


def test_auto_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    Neumann(alpha="auto").solve(quadratic(symmetric(SPECTRUM)), random_tensors((10,)))
    assert torch.equal(torch.get_rng_state(), before)


def test_auto_does_not_remember_an_estimate_that_is_not_finite() -> None:
    at = quadratic(torch.full((3, 3), torch.nan))
    Neumann(alpha="auto").pull_back(at, random_tensors((3,)))
    assert "neumann.eigenvalue" not in at.state


def test_divergence_warns_once_with_the_eigenvalue_and_the_way_out() -> None:
    matrix, vector = symmetric([1.0, 2.0, 6.0]), random_tensors((3,))
    method = Neumann(iterations=20, alpha=1.0)
    with pytest.warns(NumericsWarning, match=r"grow by 5 .*eigenvalue of about 6 .*set alpha to about 0.167"):
        method.solve(quadratic(matrix), vector)
    method.solve(quadratic(matrix), vector)  # a second warning would be an error


def test_divergence_by_a_negative_eigenvalue_is_told_apart() -> None:
    matrix, vector = symmetric([1.0, 0.5, -0.5]), random_tensors((3,))
    with pytest.warns(NumericsWarning, match=r"eigenvalue of about -0.5 .*not at a minimum"):
        Neumann(iterations=30, alpha=1.0).solve(quadratic(matrix), vector)


def test_singular_does_not_warn_and_is_right_where_it_can_be() -> None:
    matrix = symmetric([0.0, 0.0, 1.0, 2.0])
    vector = matrix @ torch.ones(4)
    (got,) = Neumann(iterations=200, alpha=0.5).solve(quadratic(matrix), (vector,))
    torch.testing.assert_close(got, torch.linalg.pinv(matrix) @ vector, rtol=CLOSED_FORM, atol=CLOSED_FORM)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_lower_precision(dtype: torch.dtype, tolerance: float) -> None:
    matrix, vector = symmetric(SPECTRUM).to(dtype), random_tensors((10,))[0].to(dtype)
    (got,) = Neumann(iterations=200, alpha=0.2).solve(quadratic(matrix), (vector,))
    (expected,) = dense_solve(matrix.double(), (vector.double(),))
    assert got.dtype == dtype
    assert (got.double() - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": -1}, "neumann: iterations must be a whole number of at least 0, got -1"),
        ({"alpha": 0.0}, "neumann: alpha must be a number above 0, got 0.0"),
        ({"alpha": "aut"}, "neumann: alpha must be a number above 0 or 'auto', got 'aut'"),
        ({"refresh": 0}, "neumann: refresh must be a whole number of at least 1, got 0"),
        ({"curvature": "fisher"}, "neumann: curvature must be 'hessian' or 'ggn', got 'fisher'"),
    ],
)
def test_refused_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Neumann(**options)
