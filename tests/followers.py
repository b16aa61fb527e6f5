"""Two levels of which the lower follows the upper, for tests of single laws with every method."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from multilevel import Engine, Unroll

from .conftest import CLOSED_FORM
from .givens import Given, pair

NEVER = 10**6
METHODS = ["darts", "identity", "neumann", "cg", "minres", "gmres", "nystrom", "sama", "exact", "unroll"]
every_method = pytest.mark.parametrize("method", METHODS)


def follow(problem: Given, batch: Any) -> Tensor:
    """|low - up|^2 / 2: the Hessian is the identity, the solution the upper itself."""
    return (problem.module() - problem.upper()).square().sum() / 2


def reach_one(problem: Given, batch: Any) -> Tensor:
    return (problem.lower() - 1).square().sum() / 2


def ready(lower: Any, upper: Any, method: Any, **parts: Any) -> Engine:
    """An engine whose lower has taken one step where the method needs that."""
    engine = pair(lower, upper, method=method, steps=NEVER, lr=parts.pop("lr", 1.0), **parts)
    if method == "unroll" or isinstance(method, Unroll):
        engine.step()
    return engine


def close(got: Tensor, expected: Tensor | list[float], within: float = CLOSED_FORM) -> None:
    torch.testing.assert_close(got, torch.as_tensor(expected), rtol=within, atol=within)


def weighted(*weights: float) -> Any:
    """A lower loss with the Hessian diag(weights)."""

    def loss(problem: Given, batch: Any) -> Tensor:
        return (torch.tensor(weights) * problem.module().square()).sum() / 2 - problem.module() @ problem.upper()

    return loss


def linear(problem: Given, batch: Any) -> Tensor:
    """An upper loss with the cotangent (1, 1, ...)."""
    return problem.lower().sum()
