"""Conjugate gradient against dense solves, and where it must stop."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from multilevel.hypergrad.cg import CG
from multilevel.hypergrad.errors import ConfigError, NumericsWarning
from multilevel.hypergrad.linearization import Linearization
from multilevel.hypergrad.objective import Evaluation, Objective, State
from multilevel.hypergrad.tensors import Tensors, norm, zeros_like

from ..conftest import CLOSED_FORM, CONVERGED
from .quadratics import SHAPES, Shapes, dense_solve, quadratic, random_tensors, symmetric

SPECTRUM = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0]


def close(got: Tensors, expected: Tensors, tolerance: float) -> None:
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shapes", [[(10,)], SHAPES], ids=["one tensor", "three tensors"])
@pytest.mark.parametrize("alpha", [1.0, 0.1, 7.0])
@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_exact_after_as_many_iterations_as_parameters(shapes: Shapes, alpha: float, damping: float) -> None:
    matrix, vector = symmetric(SPECTRUM), random_tensors(*shapes)
    got = CG(iterations=10, alpha=alpha, damping=damping).solve(quadratic(matrix, shapes), vector)
    close(got, dense_solve(matrix + damping * torch.eye(10), vector), CLOSED_FORM)


def test_exact_after_as_many_iterations_as_distinct_eigenvalues() -> None:
    matrix, vector = symmetric([1.0] * 5 + [4.0] * 5), random_tensors((10,))
    at = quadratic(matrix)
    close(CG(iterations=50).solve(at, vector), dense_solve(matrix, vector), CLOSED_FORM)
    assert at.products == 2


def test_each_iterate_has_the_smallest_error_of_its_krylov_space() -> None:
    matrix, vector = symmetric(SPECTRUM), random_tensors((10,))
    krylov = torch.stack([torch.linalg.matrix_power(matrix, k) @ vector[0] for k in range(3)], dim=1)
    best = krylov @ torch.linalg.solve(krylov.mT @ matrix @ krylov, krylov.mT @ vector[0])
    close(CG(iterations=3).solve(quadratic(matrix), vector), (best,), CLOSED_FORM)


def test_identity_hessian_does_not_touch_the_vector() -> None:
    # The product with this Hessian is the very tensor it was given.
    at = Linearization(Objective(lambda theta, phi: Evaluation((theta[0] ** 2).sum() / 2)), (torch.randn(4),), ())
    vector = random_tensors((4,))
    before = vector[0].clone()
    got = CG(iterations=50, tolerance=0.0).solve(at, vector)
    close(got, (before,), CLOSED_FORM)
    assert torch.equal(vector[0], before)


@pytest.mark.parametrize("warm_start", [False, True])
def test_zero_cotangent_gives_zero(warm_start: bool) -> None:
    at = quadratic(symmetric(SPECTRUM), SHAPES, state={"cg.solution": random_tensors(*SHAPES)})
    (got,) = CG(iterations=5, warm_start=warm_start).pull_back(at, zeros_like(at.solution))
    assert torch.equal(got, torch.zeros(10))


def test_ill_conditioned() -> None:
    matrix, vector = symmetric([10.0**-k for k in range(8)]), random_tensors((8,))
    got = CG(iterations=400).solve(quadratic(matrix), vector)
    close((matrix @ got[0],), vector, CONVERGED)


def test_singular_with_damping() -> None:
    matrix, vector = symmetric([0.0, 0.0, 0.0, 1.0, 2.0, 3.0]), random_tensors((6,))
    got = CG(iterations=6, damping=0.1).solve(quadratic(matrix), vector)
    close(got, dense_solve(matrix + 0.1 * torch.eye(6), vector), CLOSED_FORM)


def test_negative_curvature_stops_with_a_warning_once() -> None:
    matrix, vector = -torch.eye(3), random_tensors((3,))
    with pytest.warns(NumericsWarning, match=r"raise CG\(damping=...\).*minres"):
        got = CG(iterations=5).solve(quadratic(matrix), vector)
    close(got, vector, CLOSED_FORM)  # the identity's answer
    CG(iterations=5).solve(quadratic(matrix), vector)  # a second warning would be an error


def test_negative_curvature_later_keeps_what_was_found() -> None:
    matrix, vector = torch.diag(torch.tensor([1.0, 2.0, -0.1])), (torch.tensor([1.0, 1.0, 0.5]),)
    with pytest.warns(NumericsWarning, match="negative curvature"):
        got = CG(iterations=3).solve(quadratic(matrix), vector)
    kept = CG(iterations=1).solve(quadratic(matrix), vector)
    assert torch.isfinite(got[0]).all()
    assert not torch.equal(kept[0], vector[0])


def test_tolerance_saves_products_and_bounds_the_residual() -> None:
    matrix, vector = symmetric(SPECTRUM), random_tensors((10,))
    at = quadratic(matrix)
    (got,) = CG(iterations=10, tolerance=0.1).solve(at, vector)
    assert at.products < 10
    assert torch.linalg.norm(matrix @ got - vector[0]) <= 0.1 * norm(vector)


@pytest.mark.parametrize("length", [1e-30, 1e30])
def test_float32_does_not_depend_on_the_length_of_the_cotangent(length: float) -> None:
    matrix, (vector,) = symmetric(SPECTRUM).float(), random_tensors((10,))
    (expected,) = CG(iterations=10).solve(quadratic(matrix), (vector.float(),))
    (got,) = CG(iterations=10).solve(quadratic(matrix), (vector.float() * length,))
    torch.testing.assert_close(got / length, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_lower_precision(dtype: torch.dtype, tolerance: float) -> None:
    matrix, vector = symmetric(SPECTRUM).to(dtype), random_tensors(*SHAPES)
    low = tuple(t.to(dtype) for t in vector)
    got = CG(iterations=10).solve(quadratic(matrix, SHAPES), low)
    assert {t.dtype for t in got} == {dtype}
    expected = dense_solve(matrix.double(), tuple(t.double() for t in low))
    torch.testing.assert_close(tuple(t.double() for t in got), expected, rtol=0, atol=tolerance * norm(expected).item())


def test_warm_start_at_the_same_point_needs_one_product() -> None:
    matrix, vector = symmetric(SPECTRUM), random_tensors((10,))
    state: State = {}
    method = CG(iterations=10, tolerance=1e-9, warm_start=True)
    first = method.pull_back(quadratic(matrix, state=state), vector)
    at = quadratic(matrix, state=state)
    second = method.pull_back(at, (3.0 * vector[0],))  # another length needs no other direction
    close(second, (3.0 * first[0],), CONVERGED)
    assert at.products == 1


def test_warm_start_leaves_a_smaller_error_after_the_same_iterations() -> None:
    matrix, (vector,) = symmetric(SPECTRUM), random_tensors((10,))
    state: State = {}
    CG(iterations=10, warm_start=True).pull_back(quadratic(matrix, state=state), (vector,))
    changed = (vector + 0.01 * torch.randn(10),)
    exact = dense_solve(matrix, changed)[0]
    cold = CG(iterations=2).pull_back(quadratic(matrix), changed)[0]
    warm = CG(iterations=2, warm_start=True).pull_back(quadratic(matrix, state=state), changed)[0]
    assert (warm - exact).norm() < 0.1 * (cold - exact).norm()


@pytest.mark.parametrize("kept", [random_tensors((3,)), (torch.full((10,), torch.nan),), (torch.zeros(10),)])
def test_a_useless_warm_start_is_ignored(kept: Tensors) -> None:
    matrix, vector = symmetric(SPECTRUM), random_tensors((10,))
    at = quadratic(matrix, state={"cg.solution": kept})
    got = CG(iterations=10, warm_start=True).pull_back(at, vector)
    close(got, dense_solve(matrix, vector), CLOSED_FORM)


def test_a_pull_back_that_is_differentiated_again_keeps_no_memory() -> None:
    matrix, vector = symmetric(SPECTRUM), random_tensors((10,))
    plain = quadratic(matrix)
    at = Linearization(plain.objective, plain.solution, plain.inputs, differentiable=True)
    CG(iterations=10, warm_start=True).pull_back(at, vector)
    assert plain.state == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "cg: iterations must be a whole number of at least 1, got 0"),
        ({"alpha": 0.0}, "cg: alpha must be a number above 0, got 0.0"),
        ({"damping": -1.0}, "cg: damping must be a number of at least 0, got -1.0"),
        ({"tolerance": "no"}, "cg: tolerance must be a number of at least 0, got 'no'"),
        ({"warm_start": "yes"}, "cg: warm_start must be true or false, got 'yes'"),
        ({"curvature": "fisher"}, "cg: curvature must be 'hessian' or 'ggn', got 'fisher'"),
    ],
)
def test_refused_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CG(**options)
