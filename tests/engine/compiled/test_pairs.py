"""The two evaluations of a difference, done together, give what they give one after the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from multilevel.engine.compiled import pairs
from multilevel.engine.compiled.graphs import operations

from ...givens import Given
from .builds import bilevel, fit, hierarchy, net
from .test_numbers import dropping, normalizing
from .twins import Twins

Function = Callable[..., Tensor]
aten = torch.ops.aten
PRODUCTS = (aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default)


@pytest.fixture
def products_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrix products, of which problems are easily made, count as faster together."""
    monkeypatch.setattr(pairs, "GAINING", PRODUCTS)


def evaluation(point: Tensor, shared: Tensor) -> Tensor:
    return torch.tanh(shared @ point).square().sum(dim=0)


def graph_of(function: Callable[..., list[Tensor]], *given: Tensor) -> fx.GraphModule:
    return make_fx(function, tracing_mode="fake")(*given)


def given() -> tuple[Tensor, Tensor, Tensor]:
    """Two points and what is evaluated at both."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(4, 4, generator=generator) for _ in range(3))  # type: ignore[return-value]


def together(graph: fx.GraphModule, pair: tuple[int, int], results: int) -> fx.GraphModule:
    examples = [node.meta["val"] for node in graph.graph.find_nodes(op="placeholder")]
    return pairs.evaluated_together(graph, examples, [[pair]], results)


def products(graph: fx.GraphModule) -> int:
    return len([node for node in graph.graph.nodes if node.target in PRODUCTS])


def both(one: Function, other: Function) -> Callable[..., list[Tensor]]:
    """The difference of two evaluations; then, as marks, both."""

    def function(x: Tensor, y: Tensor, shared: Tensor) -> list[Tensor]:
        a, b = one(x, shared), other(y, shared)
        return [a - b, a, b]

    return function


@pytest.mark.usefixtures("products_gain")
def test_twins_become_one_operation() -> None:
    graph = graph_of(both(evaluation, evaluation), *given())
    expected, _, _ = graph(*given())
    assert products(graph) == 2
    graph = together(graph, (1, 2), results=1)
    assert products(graph) == 1
    (got,) = graph(*given())
    torch.testing.assert_close(got, expected)


@pytest.mark.usefixtures("products_gain")
def test_results_on_the_way_are_still_there() -> None:
    def function(x: Tensor, y: Tensor, shared: Tensor) -> list[Tensor]:
        inner, other_inner = shared @ x, shared @ y
        a, b = inner.sin(), other_inner.sin()
        return [a - b, inner + 1, other_inner.exp(), a, b]

    graph = graph_of(function, *given())
    expected = graph(*given())[:3]
    graph = together(graph, (3, 4), results=3)
    assert products(graph) == 1
    torch.testing.assert_close(graph(*given()), expected)


def longer(point: Tensor, shared: Tensor) -> Tensor:
    return evaluation(point, shared).exp()


def scaled(point: Tensor, shared: Tensor) -> Tensor:
    return torch.tanh(shared @ point * 2).square().sum(dim=0)


def elementwise(point: Tensor, shared: Tensor) -> Tensor:
    return torch.tanh(shared * point).square().sum(dim=0)


def ambiguous(x: Tensor, y: Tensor, shared: Tensor) -> list[Tensor]:
    """One evaluation reads one tensor where the other reads two."""
    a, b = (shared @ x) * x.sum(), (shared @ y) * shared.sum()
    return [a - b, a, b]


def one_after_the_other(x: Tensor, y: Tensor, shared: Tensor) -> list[Tensor]:
    """The second evaluation is at the result of the first."""
    a = shared @ x
    b = shared @ a
    return [a - b, a, b]


def read_too_early(x: Tensor, y: Tensor, shared: Tensor) -> list[Tensor]:
    """Something is made of the first, and the second made of that."""
    a = shared @ x
    b = shared @ a.sin()
    return [a - b, a, b]


def elsewhere(x: Tensor, y: Tensor, shared: Tensor) -> list[Tensor]:
    """Neither is evaluated at one of the points."""
    a, b = shared @ shared, shared @ shared
    return [a - b + x, a, b]


def pair_of_a_pair(x: Tensor, y: Tensor, shared: Tensor) -> list[Tensor]:
    """Both are the same tensor."""
    a = shared @ x
    return [a - y, a, a]


def by_strides(point: Tensor, shared: Tensor) -> Tensor:
    return (shared @ point).as_strided((4,), (5,))


@pytest.mark.usefixtures("products_gain")
@pytest.mark.parametrize(
    "function",
    [
        both(evaluation, scaled),
        both(longer, evaluation),
        both(elementwise, elementwise),
        ambiguous,
        one_after_the_other,
        read_too_early,
        pair_of_a_pair,
        elsewhere,
        both(by_strides, by_strides),
    ],
    ids=[
        "another number",
        "another operation",
        "nothing that gains",
        "ambiguous",
        "in a row",
        "through another",
        "the same",
        "elsewhere",
        "by strides",
    ],
)
def test_what_is_not_alike_stays(function: Callable[..., list[Tensor]]) -> None:
    graph = graph_of(function, *given())
    before, (expected, *_) = operations(graph), graph(*given())
    graph = together(graph, (1, 2), results=1)
    assert operations(graph) == before
    (got,) = graph(*given())
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def convolved(point: Tensor, shared: Tensor) -> Tensor:
    """A convolution with the point's rows as its weights."""
    return torch.conv1d(shared[None, None, 0], point[:, None, :2]).square().sum(dim=1)


@pytest.mark.parametrize(("function", "left"), [(convolved, 1), (evaluation, 2)])
def test_convolutions_gain(function: Function, left: int) -> None:
    graph = graph_of(both(function, function), *given())
    expected, _, _ = graph(*given())
    graph = together(graph, (1, 2), results=1)
    assert products(graph) + len([n for n in graph.graph.nodes if n.target in pairs.GAINING]) == left
    (got,) = graph(*given())
    torch.testing.assert_close(got, expected)


def test_large_evaluations_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "SMALL", 16)
    graph = graph_of(both(convolved, convolved), *given())
    before = operations(graph)
    assert operations(together(graph, (1, 2), results=1)) == before


@pytest.mark.usefixtures("products_gain")
def test_an_operation_that_cannot_be_batched_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise RuntimeError("Batching rule not implemented")

    graph = graph_of(both(evaluation, evaluation), *given())
    monkeypatch.setattr(torch, "vmap", lambda *args, **options: refuse)
    graph = together(graph, (1, 2), results=1)
    assert products(graph) == 2


@pytest.fixture
def batched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many operations each evaluation has that is done together with another."""
    found: list[int] = []
    usual = pairs._stacked

    def noted(one: Any, reads: Any) -> Any:
        stacked = usual(one, reads)
        found.extend([] if stacked is None else [operations(one)])
        return stacked

    monkeypatch.setattr(pairs, "_stacked", noted)
    return found


def layered() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 1))


def in_place() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4), nn.ReLU(inplace=True), nn.Linear(4, 1))


def convolving() -> nn.Module:
    convolution = nn.Sequential(nn.Unflatten(1, (1, 2)), nn.Conv1d(1, 3, 2, padding=1), nn.Tanh(), nn.Flatten())
    return nn.Sequential(convolution, nn.Linear(9, 1))


DARTS: Any = ("darts", {})
SAMA: Any = ("sama", {"optimizer": partial(torch.optim.Adam, lr=0.01)})
MODULES = [net, dropping, normalizing, layered, in_place]
PAIRED = [
    pytest.param(
        *how,
        module,
        id=f"{how[0]}-{module.__name__}",
        marks=pytest.mark.slow if how is SAMA and module is not MODULES[0] else (),
    )
    for how in (DARTS, SAMA)
    for module in MODULES
]


@pytest.mark.usefixtures("recorded", "products_gain")
@pytest.mark.parametrize(("method", "settings", "module"), PAIRED)
def test_differences_are_those_of_the_eager_engine(
    method: str, settings: dict[str, Any], module: Callable[[], nn.Module], batched: list[int]
) -> None:
    twins = Twins(bilevel(method, module=module, **settings))
    twins.step(7)
    twins.assert_equal()
    twins.assert_compiled()
    assert len(batched) == 1


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("method", ["darts", "sama"])
def test_differences_through_convolutions(method: str, batched: list[int]) -> None:
    twins = Twins(bilevel(method, module=convolving))
    twins.step(7)
    twins.assert_equal()
    twins.assert_compiled()
    assert len(batched) == 1


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("problem", ["chain", pytest.param("diamond", marks=pytest.mark.slow)])
def test_differences_at_any_depth(problem: str, batched: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "GAINING", (aten.mul.Tensor,))  # these problems have no matrices
    twins = Twins(hierarchy(problem, "darts"))
    twins.step(7)
    twins.assert_equal()
    twins.assert_compiled()
    assert len(batched) > 1


def masking(problem: Given, batch: Any) -> Any:
    """Random numbers in a part of a tensor."""
    mask = torch.zeros(len(batch), 3)
    mask[:, 1:].bernoulli_(0.7)
    outputs = problem.module(batch[:, :2] * mask[:, :2])
    return (outputs - batch[:, 2:]).square().mean() * problem.upper().exp().mean()


def apart(problem: Given, batch: Any) -> Any:
    """The upper's gradient does not depend on the solution."""
    return fit(problem, batch)["fit"] + problem.upper().exp().square().sum()


@pytest.mark.usefixtures("recorded", "products_gain")
@pytest.mark.parametrize("lower", [masking, apart])
def test_other_losses(lower: Any, batched: list[int]) -> None:
    twins = Twins(bilevel("darts", lower=lower))
    twins.step(7)
    twins.assert_equal()
    twins.assert_compiled()
    assert len(batched) == 1
