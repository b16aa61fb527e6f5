"""Extreme eigenvalues against torch.linalg.eigvalsh."""

from __future__ import annotations

import pytest
import torch

from multilevel.hypergrad.lanczos import extreme_eigenvalues, largest_eigenvalue, random_direction
from multilevel.hypergrad.precision import Product
from multilevel.hypergrad.tensors import Tensors, flatten, norm, unflatten

from ..conftest import CLOSED_FORM, CONVERGED, EXACT
from .quadratics import SHAPES, random_tensors, symmetric

SPECTRA = {
    "definite": [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0],
    "indefinite": [-3.0, -1.0, -0.2, 0.3, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    "clustered": [1.0] * 8 + [1.0 + 1e-6, 100.0],
    "one value": [2.0] * 10,
    "negative": [-5.0] + [-1.0] * 9,
}


def multiplier(matrix: torch.Tensor) -> Product:
    def product(vector: Tensors) -> Tensors:
        return unflatten(matrix @ flatten(vector), vector)

    return product


@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
def test_lanczos_is_exact_with_as_many_iterations_as_parameters(spectrum: list[float]) -> None:
    got = extreme_eigenvalues(multiplier(symmetric(spectrum)), random_tensors(*SHAPES), iterations=30)
    assert got == pytest.approx((min(spectrum), max(spectrum)), rel=CLOSED_FORM)


def test_lanczos_finds_both_ends_of_a_large_spectrum() -> None:
    spectrum = torch.cat([torch.linspace(0.0, 1.0, 198), torch.tensor([-0.5, 30.0])])
    low, high = extreme_eigenvalues(lambda v: (spectrum * v[0],), (spectrum,), iterations=30)
    assert (low, high) == pytest.approx((-0.5, 30.0), rel=CONVERGED)


def test_estimates_stay_inside_the_spectrum() -> None:
    spectrum = torch.linspace(-1.0, 3.0, 100)
    for iterations in (1, 2, 5):
        low, high = extreme_eigenvalues(lambda v: (spectrum * v[0],), (spectrum,), iterations)
        assert -1.0 <= low <= high <= 3.0
        assert abs(largest_eigenvalue(lambda v: (spectrum * v[0],), (spectrum,), iterations)) <= 3.0


@pytest.mark.parametrize("spectrum", [[1.0, 2.0, 6.0], [1.0, 2.0, -6.0]])
def test_power_iteration_keeps_the_sign(spectrum: list[float]) -> None:
    got = largest_eigenvalue(multiplier(symmetric(spectrum)), random_tensors((3,)), iterations=60)
    assert got == pytest.approx(spectrum[-1], rel=CLOSED_FORM)


def test_zero_and_identity() -> None:
    like = random_tensors(*SHAPES)
    assert largest_eigenvalue(multiplier(torch.zeros(10, 10)), like) == 0.0
    assert extreme_eigenvalues(multiplier(torch.zeros(10, 10)), like) == (0.0, 0.0)
    assert largest_eigenvalue(lambda v: v, like) == pytest.approx(1.0, rel=EXACT)
    assert extreme_eigenvalues(lambda v: v, like) == pytest.approx((1.0, 1.0), rel=EXACT)


def test_start_depends_on_the_seed_alone_and_is_in_working_precision() -> None:
    before = torch.get_rng_state()
    like = (torch.zeros(3, dtype=torch.bfloat16), torch.zeros((), dtype=torch.bfloat16))
    first, again, other = (random_direction(like, seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert first[0].dtype == torch.float32
    assert norm(first).item() == pytest.approx(1.0, rel=1e-6)
    assert torch.equal(torch.get_rng_state(), before)


def test_not_a_number_comes_back_as_one() -> None:
    low, high = extreme_eigenvalues(multiplier(torch.full((3, 3), torch.nan)), random_tensors((3,)))
    assert low != low
    assert high != high
