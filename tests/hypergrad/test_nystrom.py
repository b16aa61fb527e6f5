"""The Nystrom approximation against the dense formula that it stands for."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from multilevel.hypergrad.errors import ConfigError, NonFiniteError
from multilevel.hypergrad.linearization import Linearization
from multilevel.hypergrad.nystrom import Nystrom, unit_vector
from multilevel.hypergrad.objective import State
from multilevel.hypergrad.tensors import flatten, unflatten

from ..conftest import CLOSED_FORM, CONVERGED
from .quadratics import SHAPES, Shapes, dense_solve, quadratic, random_tensors, symmetric

SPECTRUM = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0]
LOW_RANK = [0.0] * 7 + [1.0, 2.0, 3.0]


@pytest.mark.parametrize("shapes", [[(10,)], SHAPES], ids=["one tensor", "three tensors"])
@pytest.mark.parametrize("spectrum", [SPECTRUM, LOW_RANK, [0.0] * 10, [10.0**-k for k in range(10)]])
@pytest.mark.parametrize("rank", [10, 1000])
def test_full_rank_is_the_damped_dense_solve(shapes: Shapes, spectrum: list[float], rank: int) -> None:
    matrix, vector = symmetric(spectrum), random_tensors(*shapes)
    at = quadratic(matrix, shapes)
    got = Nystrom(rank=rank, damping=0.1).solve(at, vector)
    expected = dense_solve(matrix + 0.1 * torch.eye(10), vector)
    torch.testing.assert_close(got, expected, rtol=CONVERGED, atol=CONVERGED)
    assert at.products == 10


def test_a_sketch_as_wide_as_the_rank_of_h_is_enough() -> None:
    matrix, vector = symmetric(LOW_RANK), random_tensors((10,))
    got = Nystrom(rank=5, damping=0.01).solve(quadratic(matrix), vector)
    torch.testing.assert_close(got, dense_solve(matrix + 0.01 * torch.eye(10), vector), rtol=CONVERGED, atol=CONVERGED)


def test_equals_the_formula_of_the_paper() -> None:
    matrix, vector, rho = symmetric(SPECTRUM), random_tensors(*SHAPES), 0.3
    chosen = sorted(random.Random("7/0").sample(range(10), 4))
    columns = matrix[:, chosen]
    approximation = columns @ torch.linalg.solve(matrix[chosen][:, chosen], columns.mT)
    expected = torch.linalg.solve(approximation + rho * torch.eye(10), flatten(vector))
    got = Nystrom(rank=4, damping=rho, seed=7).solve(quadratic(matrix, SHAPES), vector)
    torch.testing.assert_close(got, unflatten(expected, vector), rtol=CLOSED_FORM, atol=CLOSED_FORM)


def test_indefinite_stays_bounded_and_positive() -> None:
    matrix, (vector,) = symmetric([-3.0, -1.0, -0.2, 0.3, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), random_tensors((10,))
    for seed in range(20):
        (got,) = Nystrom(rank=5, damping=0.5, seed=seed).solve(quadratic(matrix), (vector,))
        assert got.norm() <= vector.norm() / 0.5
        assert torch.dot(got, vector) > 0


def test_reuse_spends_no_products_and_then_draws_other_columns() -> None:
    matrix, vector = symmetric(SPECTRUM), random_tensors((10,))
    state: State = {}
    method, products, results = Nystrom(rank=4, reuse=3), [], []
    for _ in range(7):
        at = quadratic(matrix, state=state)
        results.append(method.pull_back(at, vector)[0])
        products.append(at.products)
    assert products == [4, 0, 0, 4, 0, 0, 4]
    assert torch.equal(results[0], results[2])
    assert not torch.allclose(results[0], results[3])


def test_without_reuse_nothing_large_is_kept() -> None:
    at = quadratic(symmetric(SPECTRUM))
    Nystrom(rank=4).pull_back(at, random_tensors((10,)))
    assert not any(isinstance(value, tuple) for value in at.state.values())


def test_reuse_forgets_a_sketch_of_other_shapes() -> None:
    state: State = {}
    Nystrom(rank=4, reuse=5).pull_back(quadratic(symmetric(SPECTRUM), state=state), random_tensors((10,)))
    at = quadratic(torch.eye(3), state=state)
    (got,) = Nystrom(rank=4, reuse=5, damping=1.0).pull_back(at, (torch.ones(3),))
    torch.testing.assert_close(got, torch.full((3,), 0.5), rtol=CLOSED_FORM, atol=CLOSED_FORM)


def test_solves_that_are_differentiated_again_do_not_age_the_sketch() -> None:
    plain, vector = quadratic(symmetric(SPECTRUM)), random_tensors((10,))
    for _ in range(3):
        at = Linearization(plain.objective, plain.solution, plain.inputs, differentiable=True)
        Nystrom(rank=4, reuse=2).pull_back(at, vector)
    assert "nystrom.uses" not in plain.state


def test_columns_come_from_the_seed_alone() -> None:
    matrix, vector = symmetric(SPECTRUM), random_tensors((10,))
    before = torch.get_rng_state(), random.getstate()
    first, again, other = (Nystrom(rank=3, seed=s).solve(quadratic(matrix), vector)[0] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_zero_vector() -> None:
    (got,) = Nystrom(rank=2).solve(quadratic(torch.eye(3)), (torch.zeros(3),))
    assert torch.equal(got, torch.zeros(3))


def test_unit_vectors_count_through_all_tensors() -> None:
    model = random_tensors(*SHAPES)
    for index in range(10):
        assert torch.equal(flatten(unit_vector(model, index)), torch.eye(10)[index])


def test_a_hessian_that_is_not_finite() -> None:
    with pytest.raises(NonFiniteError, match="nystrom: a product with H is infinite or not a number"):
        Nystrom(rank=2).solve(quadratic(torch.full((3, 3), torch.nan)), (torch.ones(3),))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_lower_precision(dtype: torch.dtype, tolerance: float) -> None:
    matrix, (vector,) = symmetric(SPECTRUM).to(dtype), random_tensors((10,))
    (got,) = Nystrom(rank=10, damping=0.1).solve(quadratic(matrix), (vector.to(dtype),))
    (expected,) = dense_solve(matrix.double() + 0.1 * torch.eye(10), (vector.to(dtype).double(),))
    assert got.dtype == dtype
    assert (got.double() - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "nystrom: rank must be a whole number of at least 1, got 0"),
        ({"damping": 0.0}, "nystrom: damping must be a number above 0, got 0.0"),
        ({"reuse": 0}, "nystrom: reuse must be a whole number of at least 1, got 0"),
        ({"seed": -1}, "nystrom: seed must be a whole number of at least 0, got -1"),
    ],
)
def test_refused_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Nystrom(**options)
