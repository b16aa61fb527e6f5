"""A graph in two parts computes what it does in one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from multilevel.engine.compiled.halves import halves
from multilevel.hypergrad.errors import TracingError


def given() -> list[Tensor]:
    return [torch.linspace(-1, 2, 6).reshape(2, 3), torch.linspace(0.5, 1, 6).reshape(3, 2), torch.ones(2, 2)]


def graph_of(function: Callable[..., Sequence[Tensor]]) -> fx.GraphModule:
    return make_fx(function, tracing_mode="fake")(*given())


def products(x: Tensor, y: Tensor, late: Tensor) -> list[Tensor]:
    hidden = (x @ y).tanh()
    zeros = torch.zeros(2, 2)
    return [hidden.sum(), hidden * 2, (hidden.t() * late + zeros) @ y.t(), late * 3, hidden.exp() * x.sum() + late]


def test_both_parts_together_are_the_whole() -> None:
    parts, tensors = halves(graph_of(products), [2], 2), given()
    first = parts.now(*tensors[:2])
    handed = [*[tensors[i] for i in parts.inputs], *[first[i] for i in parts.outputs]]
    found = [*first[:2], *parts.later(*handed, tensors[2])]
    torch.testing.assert_close(found, products(*tensors), rtol=0, atol=0)


def test_only_what_takes_time_is_handed_over() -> None:
    """Of the inputs y, of the results the hyperbolic tangent and a product. Views and zeros are made again."""
    parts = halves(graph_of(products), [2], 2)
    assert parts.inputs == [1]
    assert [tuple(example.shape) for example in parts.examples] == [(3, 2), (2, 2), (2, 2), (2, 2)]


def overwrites(x: Tensor, y: Tensor, late: Tensor) -> list[Tensor]:
    hidden = x @ y
    product = hidden * late
    hidden.add_(1)
    return [hidden.sum(), product]


def fills(x: Tensor, y: Tensor, late: Tensor) -> list[Tensor]:
    late.mul_(2)
    return [x.sum(), late]


@pytest.mark.parametrize(
    ("function", "match"), [(overwrites, "writes in place to a tensor that"), (fills, "writes in place to a tensor$")]
)
def test_writes_are_refused(function: Any, match: str) -> None:
    with pytest.raises(TracingError, match=match):
        halves(graph_of(function), [2], 1)
