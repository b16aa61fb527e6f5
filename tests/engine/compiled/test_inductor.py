"""The compiler itself: few programs, for each takes seconds to make."""

from __future__ import annotations

import os
import shutil
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multilevel import CG, Neumann

from ...givens import Given
from .builds import batches, bilevel, hierarchy, sgd
from .solo import solo
from .test_kept import Spread
from .twins import Twins

pytestmark = [
    pytest.mark.filterwarnings("ignore::multilevel.NumericsWarning"),
    pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler here"),
]

ADAM = partial(torch.optim.Adam, lr=0.01)
METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "darts": ("darts", {}),
    "identity": ("identity", {}),
    "neumann": (Neumann(2, 0.1), {}),
    "cg": (CG(2, damping=0.5), {}),
    "cg warm": (CG(2, warm_start=True), {}),
    "sama": ("sama", {}),
    "sama adam": ("sama", {"optimizer": ADAM}),
}


def dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.3), nn.Linear(2, 1))


def line() -> nn.Module:
    return nn.Linear(2, 1)


def test_two_levels() -> None:
    twins = Twins(bilevel(CG(1, damping=0.5), module=line))
    twins.step(6)
    twins.assert_equal()
    twins.assert_compiled()
    assert all(compilation.seconds > 0 for compilation in twins.compiled.compilations.values())


def normalized() -> nn.Module:
    """A convolution and a normalization by sample: with layouts of the compiler's own, gradients were wrong."""
    convolution = nn.Sequential(nn.Unflatten(1, (4, 8, 8)), nn.Conv2d(4, 4, 1), nn.InstanceNorm2d(4, affine=True))
    return nn.Sequential(convolution, nn.Softplus(), nn.Flatten(), nn.Linear(256, 3))


def test_vectors_across_a_normalization() -> None:
    def loss(problem: Given, batch: Tensor) -> Tensor:
        return -problem.module(batch).log_softmax(dim=1)[:, 0].mean()

    twins = Twins(solo(loss, normalized, data=lambda: batches(6, 256), optimizer=sgd))
    twins.step(7)
    twins.assert_equal()
    twins.assert_compiled()


@pytest.mark.slow
def test_dropout_and_running_statistics() -> None:
    twins = Twins(bilevel(CG(1, damping=0.5, warm_start=True), module=dropping))
    twins.step(7)
    twins.assert_equal()
    twins.assert_compiled()


@pytest.mark.slow
@pytest.mark.parametrize("problem", ["bilevel", "chain", "diamond"])
@pytest.mark.parametrize("key", METHODS)
def test_every_method_on_every_hierarchy(key: str, problem: str) -> None:
    method, parts = METHODS[key]
    twins = Twins(bilevel(method, **parts) if problem == "bilevel" else hierarchy(problem, method, **parts))
    twins.step(8)
    twins.assert_equal()
    twins.assert_compiled()


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts",
    [{"module": dropping}, {"module": dropping, "optimizer": ADAM}, {"module": Spread}],
    ids=["sgd", "adam", "gaps"],
)
def test_unroll_in_two_halves(parts: dict[str, Any]) -> None:
    twins = Twins(bilevel("unroll", unroll_steps=3, **parts))
    twins.step(21)
    twins.assert_equal()
    twins.assert_compiled()
