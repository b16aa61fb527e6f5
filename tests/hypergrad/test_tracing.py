"""Solvers that read no numbers equal those that do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from multilevel import CG
from multilevel.hypergrad.errors import TracingError
from multilevel.hypergrad.gmres import GMRES
from multilevel.hypergrad.minres import MINRES
from multilevel.hypergrad.tensors import Tensors, scale
from multilevel.hypergrad.tracing import is_readable, is_tracing, look, tracing

from ..conftest import CLOSED_FORM
from .quadratics import SHAPES, quadratic, random_tensors, symmetric

pytestmark = pytest.mark.filterwarnings("ignore::multilevel.NumericsWarning")

REST = [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0]
SPECTRA = {
    "positive": [0.5, *REST],
    "negative at once": [-value for value in (0.5, *REST)],
    "negative later": [-3.0, *REST],
    "identity": [1.0] * 10,
}
CGS = [
    CG(1),
    CG(4),
    CG(15),
    CG(6, alpha=0.1),
    CG(6, damping=0.3),
    CG(8, tolerance=0.1),
    CG(3, tolerance=2.0),
]


def close(got: Tensors, expected: Tensors) -> None:
    torch.testing.assert_close(got, expected, rtol=CLOSED_FORM, atol=CLOSED_FORM, equal_nan=True)


def both(method: CG, matrix: torch.Tensor, vector: Tensors) -> tuple[Tensors, Tensors, bool]:
    """The solution without and with reading, and whether the former saw negative curvature."""
    expected = method.solve(quadratic(matrix, SHAPES), vector)
    with tracing() as looks:
        got = method.solve(quadratic(matrix, SHAPES), vector)
    ((met,),) = [tensor.tolist() for tensor in looks.seen]
    return got, expected, met


@pytest.mark.parametrize("method", CGS, ids=repr)
@pytest.mark.parametrize("name", SPECTRA)
def test_cg_equals_the_one_that_reads(method: CG, name: str) -> None:
    got, expected, met = both(method, symmetric(SPECTRA[name]), random_tensors(*SHAPES))
    close(got, expected)
    if method.tolerance < 1:
        assert not met or "negative" in name
        assert met or name != "negative at once"


@pytest.mark.parametrize("size", [0.0, 1e-200, 1e200, float("nan"), float("inf")])
def test_vectors_of_any_size(size: float) -> None:
    got, expected, _ = both(CG(4), symmetric(SPECTRA["positive"]), scale(random_tensors(*SHAPES), size))
    close(scale(got, 1 / size if 0 < size < 1e300 else 1.0), scale(expected, 1 / size if 0 < size < 1e300 else 1.0))


@pytest.mark.parametrize("warm", [None, 0.0, 1.0, -3.0])
@pytest.mark.parametrize("name", SPECTRA)
def test_a_warm_start_equals_the_one_that_reads(warm: float | None, name: str) -> None:
    key, found = "cg.solution", []
    for reading in (True, False):
        state: dict[str, Any] = {} if warm is None else {key: scale(random_tensors(*SHAPES, seed=7), warm)}
        at = quadratic(symmetric(SPECTRA[name]), SHAPES, state=state)
        method = CG(3, warm_start=True)
        if reading:
            pulled = method.pull_back(at, random_tensors(*SHAPES))
        else:
            with tracing():
                pulled = method.pull_back(at, random_tensors(*SHAPES))
        found.append((pulled, state[key]))
    close(found[1][0], found[0][0])
    close(found[1][1], found[0][1])


def test_a_start_that_is_not_finite_is_left_alone() -> None:
    found = []
    for reading in (True, False):
        state: dict[str, Any] = {"cg.solution": scale(random_tensors(*SHAPES), float("nan"))}
        at = quadratic(symmetric(SPECTRA["positive"]), SHAPES, state=state)
        if reading:
            found.append(CG(3, warm_start=True).pull_back(at, random_tensors(*SHAPES)))
        else:
            with tracing():
                found.append(CG(3, warm_start=True).pull_back(at, random_tensors(*SHAPES)))
    close(found[1], found[0])


@pytest.mark.parametrize("method", [MINRES(3), GMRES(3)], ids=repr)
def test_solvers_that_decide_by_numbers_say_so(method: Any) -> None:
    with tracing(), pytest.raises(TracingError, match=f"{method.name} looks at numbers"):
        method.solve(quadratic(symmetric(SPECTRA["positive"]), SHAPES), random_tensors(*SHAPES))


def test_looks_are_shown_at_once_or_collected() -> None:
    shown: list[list[float]] = []
    numbers = (torch.tensor(1.0), torch.tensor(2.0))
    look(numbers, shown.append)
    assert shown == [[1.0, 2.0]]
    assert is_readable(numbers[0])
    with tracing() as looks:
        assert is_tracing()
        assert not is_readable(numbers[0])
        look(numbers, shown.append)
    assert len(shown) == 1
    looks.who[0](looks.seen[0].tolist())
    assert shown == [[1.0, 2.0]] * 2
    assert not is_tracing()


def test_tracing_ends_with_an_error_too() -> None:
    with pytest.raises(KeyError), tracing():
        raise KeyError
    assert not is_tracing()
