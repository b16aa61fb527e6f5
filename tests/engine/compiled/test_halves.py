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


def handed_over(function: Callable[..., Sequence[Tensor]], first: int) -> tuple[list[int], list[tuple[int, ...]]]:
    """The numbers of the inputs that the later half reads, and the shapes of what it is given besides."""
    parts = halves(graph_of(function), [2], first)
    return parts.inputs, [tuple(example.shape) for example in parts.examples[len(parts.inputs) : -1]]


def test_what_both_need_is_computed_once() -> None:
    """The hyperbolic tangent. What only the later half needs is computed there; views and zeros are made again."""
    assert handed_over(products, 2) == ([0, 1], [(2, 2)])


def small_on_the_way(x: Tensor, y: Tensor, late: Tensor) -> list[Tensor]:
    hidden = (x @ y).tanh()
    return [hidden.sum(), hidden.exp().sum(dim=0).sin() * late]


def large_on_the_way(x: Tensor, y: Tensor, late: Tensor) -> list[Tensor]:
    hidden = (x @ y).tanh().sum(dim=0)
    return [hidden.sum(), hidden.expand(2, 2).exp() * late, hidden.sin().outer(hidden).sum() * late]


@pytest.mark.parametrize(("function", "shapes"), [(small_on_the_way, [(2,)]), (large_on_the_way, [(2,)])])
def test_the_fewest_bytes_are_handed_over(function: Callable[..., Sequence[Tensor]], shapes: Any) -> None:
    assert handed_over(function, 1) == ([], shapes)


def test_results_that_are_there_before_are_handed_over() -> None:
    def function(x: Tensor, y: Tensor, late: Tensor) -> list[Tensor]:
        return [x.sum(), (x @ y).exp(), x.sum() + late]

    parts, tensors = halves(graph_of(function), [2], 1), given()
    first = parts.now(*tensors[:2])
    handed = [*[tensors[i] for i in parts.inputs], *[first[i] for i in parts.outputs]]
    torch.testing.assert_close(parts.later(*handed, tensors[2]), function(*tensors)[1:], rtol=0, atol=0)


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
