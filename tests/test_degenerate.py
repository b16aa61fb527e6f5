"""Input on which other libraries returned NaN, zero or nonsense: what is defined here, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from multilevel import CG, Neumann
from multilevel.hypergrad.errors import NumericsWarning

from .conftest import FINITE_DIFFERENCE
from .followers import NEVER, close, every_method, linear, reach_one, ready, weighted
from .givens import Given, Vector, pair


@every_method
@pytest.mark.filterwarnings("ignore:.*depends on no parameter of 'upper'.*:multilevel.NumericsWarning")
def test_a_lower_loss_that_does_not_depend_on_the_upper(method: str) -> None:
    engine = ready(
        lambda p, b: (p.module() - 2).square().sum(), reach_one, method, modules=[Vector(1.5), Vector(1.0)], lr=0.1
    )
    close(engine.hypergradient("upper")[0], [0.0], 0.0)


def test_a_series_that_diverges_says_so() -> None:
    engine = pair(weighted(1.0, 6.0), linear, method=Neumann(20, 1.0), modules=[Vector(0.0, 0.0), Vector(0.0, 0.0)])
    with pytest.warns(NumericsWarning, match=r"eigenvalue of about 6.*alpha"):
        engine.hypergradient("upper")


def test_cg_without_a_tolerance_may_run_past_convergence() -> None:
    modules = [Vector(*[0.0] * 3), Vector(*[0.0] * 3)]
    engine = pair(weighted(1.0, 2.0, 3.0), linear, method=CG(50, tolerance=0.0), modules=modules)
    close(engine.hypergradient("upper")[0], [1.0, 1 / 2, 1 / 3])


@every_method
def test_the_upper_may_be_read_as_an_expanded_sum(method: str) -> None:
    """The gradient of ``sum()`` is one number in many places; writing to it in place would fail."""

    def lower(problem: Given, batch: Any) -> Tensor:
        return (problem.module() - problem.upper().sum()).square().sum() / 2

    engine = ready(lower, linear, method, modules=[Vector(2.0), Vector(1.0, 0.5, 0.5)])
    expected = 1 / 1.01 if method == "nystrom" else 1.0
    close(engine.hypergradient("upper")[0], [expected] * 3, FINITE_DIFFERENCE)
    engine.step()


def reweighted(*, detach: bool) -> Any:
    """The loss of Meta-Weight-Net: each sample's loss times a weight that is computed from it."""

    def loss(problem: Given, batch: Any) -> Tensor:
        losses = torch.cosh(problem.module() - torch.tensor([0.5, -1.0, 2.0]))
        seen = losses.detach() if detach else losses
        return ((problem.upper() * seen).sigmoid() * losses).sum()

    return loss


@pytest.mark.parametrize("method", ["identity", "unroll", "darts", "sama"])
@pytest.mark.parametrize("detach", [False, True])
def test_a_detached_loss_is_right_with_autograd_and_off_with_differences(method: str, detach: bool) -> None:
    """Against the derivative of the step that the lower takes, by finite differences of steps."""
    start, at = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, -0.3, 0.6])

    def step(upper: Tensor) -> Tensor:
        """The lower after one step of SGD with a learning rate of 1."""
        engine = pair(reweighted(detach=detach), linear, modules=[Vector(*start), Vector(*upper)], steps=NEVER, lr=1.0)
        engine.step()
        return engine["lower"].module.value.detach()

    size = 1e-5
    truth = torch.stack([(step(at + size * e) - step(at - size * e)).sum() / (2 * size) for e in torch.eye(3)])
    type_: Any = {"name": method, "alpha": 1e-4} if method in ("darts", "sama") else method
    engine = pair(
        reweighted(detach=detach), linear, method=type_, modules=[Vector(*start), Vector(*at)], steps=NEVER, lr=1.0
    )
    if method == "unroll":
        engine.step()
    error = ((engine.hypergradient("upper")[0] - truth).norm() / truth.norm()).item()
    if detach and method in ("darts", "sama"):
        assert error > 0.1
    else:
        assert error < FINITE_DIFFERENCE
