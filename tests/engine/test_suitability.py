"""What a method cannot do with a problem is refused when the engine is built."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, SGD

from multilevel import Config, ConfigError, Engine

from ..givens import Given, Vector


def follow(problem: Given, batch: Any) -> Tensor:
    return (problem.module().real - problem.upper()).square().sum()


def built(method: Any, low: nn.Module, upper: Any = None, **options: Any) -> Engine:
    lower = Given("lower", follow, low, config=Config(type=method), **options)
    above = upper or Given("upper", lambda p, b: p.lower().real.square().sum())
    return Engine([above, lower], edges=[("upper", "lower")])


@pytest.mark.parametrize("method", ["cg", "identity", "exact", "darts"])
def test_complex_parameters(method: str) -> None:
    low = Vector(0.0)
    low.value = nn.Parameter(torch.zeros(1, dtype=torch.complex128))
    with pytest.raises(ConfigError, match=r"'lower': a parameter of shape .* is torch.complex128, and .*view_as_real"):
        built(method, low)
    built("unroll", low).step()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["darts", "sama"])
def test_finite_differences_of_coarse_parameters(method: str, dtype: torch.dtype) -> None:
    with pytest.raises(ConfigError, match=f"is {dtype}, and {method} moves parameters by less than .*bf16"):
        built(method, Vector(0.0).to(dtype))
    built("identity", Vector(0.0).to(dtype))


def test_a_learning_rate_that_is_to_be_learned() -> None:
    low, rate = Vector(0.0), torch.tensor(0.1, requires_grad=True)
    with pytest.raises(ConfigError, match=r"its optimizer's lr requires a gradient, and unroll takes .* for constants"):
        built("unroll", low, optimizer=SGD(low.parameters(), lr=rate))
    built("unroll", low, optimizer=SGD(low.parameters(), lr=rate.detach())).step()


def test_an_upper_that_evaluates_its_loss_several_times_in_a_step() -> None:
    def above() -> Given:
        module = Vector(1.0)
        return Given("upper", lambda p, b: p.lower().square().sum(), module, optimizer=LBFGS(module.parameters()))

    with pytest.raises(ConfigError, match=r"problem 'upper': LBFGS evaluates its loss several times .* such as cg"):
        built("unroll", Vector(0.0), above())
    built("identity", Vector(0.0), above()).step()
