"""Matrix products for the host: the same results, lying in memory as before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from multilevel.engine.compiled import products

from ...conftest import EXACT
from ...givens import Given
from .builds import batches, bilevel, fit
from .twins import Twins

aten = torch.ops.aten
Function = Callable[[Tensor, Tensor, Tensor], Any]

ROWS, WIDTH, COLUMNS = 70, 5, 3


def given() -> list[Tensor]:
    """Many samples, the weights of a few classes, and a bias."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator) for shape in ((ROWS, WIDTH), (COLUMNS, WIDTH), (COLUMNS,))]


def rewritten(function: Function) -> tuple[fx.GraphModule, fx.GraphModule]:
    """A recorded function before and after."""
    before = make_fx(function, tracing_mode="fake")(*given())
    examples = [node.meta["val"] for node in before.graph.find_nodes(op="placeholder")]
    return before, products.for_host(before, examples)


def shapes_of_products(graph: fx.GraphModule) -> list[tuple[int, ...]]:
    return [tuple(n.meta["val"].shape) for n in graph.graph.nodes if n.target in (aten.mm.default, aten.bmm.default)]


def predicted(x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
    return [torch.addmm(b, x, w.t()).log_softmax(dim=1).sum()]


def handed_out(x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
    """Results that lie as the product does."""
    product = x @ w.t()
    return [product, product.exp()]


def viewed(x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
    """Views that a transposed product does not have."""
    product = torch.nn.functional.linear(x.view(7, 10, WIDTH), w, b)
    return [product.view(-1), product.sin().view(10, 21).sum(0)]


def batched(x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
    return [torch.bmm(x.expand(2, ROWS, WIDTH), torch.stack([w.t(), w.t() + 1])).sum(1)]


@pytest.mark.parametrize("function", [predicted, handed_out, viewed, batched])
def test_narrow_products_are_turned(function: Function) -> None:
    before, after = rewritten(function)
    assert all(shape[-2:] == (COLUMNS, ROWS) for shape in shapes_of_products(after))
    assert not after.graph.find_nodes(op="call_function", target=aten.addmm.default)
    expected, got = before(*given()), after(*given())
    torch.testing.assert_close(got, expected, rtol=EXACT, atol=EXACT)
    assert [t.stride() for t in got] == [t.stride() for t in expected]


def wide(x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
    return [x.t() @ x]


def by_strides(x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
    return [(x @ w.t()).as_strided((ROWS,), (COLUMNS,))]


def as_pairs(x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
    """Needs two numbers next to each other."""
    return [torch.view_as_complex(torch.mm(x, w[:2].t()).abs()).abs()]


def by_alias(x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
    return [aten._reshape_alias((x @ w.t()), (ROWS * COLUMNS,), (1,))]


def scattered(x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
    return [torch.as_strided_scatter(x @ w.t(), x[:, 0], (ROWS,), (COLUMNS,))]


def one_column(x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
    return [x @ w[:1].t()]


def transposed(x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
    """A result that was never contiguous."""
    return [(x @ w.t()).t()]


def written_through_a_view(x: Tensor, w: Tensor, b: Tensor) -> list[Tensor]:
    """A copy in place of the view would take what is written."""
    product = x @ w.t()
    product.view(-1)[::2].mul_(0.5)
    return [product.sum(0)]


@pytest.mark.parametrize(
    "function", [wide, one_column, by_strides, as_pairs, by_alias, scattered, transposed, written_through_a_view]
)
def test_what_would_be_something_else_stays(function: Function) -> None:
    before, after = rewritten(function)
    assert shapes_of_products(after) == shapes_of_products(before)
    torch.testing.assert_close(after(*given()), before(*given()), rtol=0, atol=0)


def test_a_scaled_sum_stays() -> None:
    before, after = rewritten(lambda x, w, b: [torch.addmm(b, x, w.t(), beta=2.0)])
    assert after.graph.find_nodes(op="call_function", target=aten.addmm.default)
    torch.testing.assert_close(after(*given()), before(*given()), rtol=0, atol=0)


def test_sums_of_half_precision_stay() -> None:
    """Apart, the product would be rounded once more."""
    _, after = rewritten(lambda x, w, b: [torch.addmm(b.bfloat16(), x.bfloat16(), w.t().bfloat16())])
    assert after.graph.find_nodes(op="call_function", target=aten.addmm.default)


def tall_net() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1))


def shown(problem: Given, batch: Any) -> Any:
    """A parameter is a metric, as it is."""
    return {**fit(problem, batch), "bias": problem.module[2].bias}


@pytest.mark.usefixtures("recorded")
def test_results_that_are_inputs() -> None:
    """The metric shows where the parameter is before the step; eagerly, after it."""
    twins = Twins(bilevel("darts", lower=shown, module=tall_net, data=batches(products.TALL, 3)))
    twins.step(7)
    twins.assert_compiled()


@pytest.mark.usefixtures("recorded")
@pytest.mark.filterwarnings("ignore::multilevel.NumericsWarning")
@pytest.mark.parametrize("method", ["darts", "cg", "unroll"])
def test_levels_with_many_samples_and_few_outputs(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    usual = products._lay_out_results

    def noted(*arguments: Any) -> bool:
        found.append(1)
        return usual(*arguments)

    monkeypatch.setattr(products, "_lay_out_results", noted)
    twins = Twins(bilevel(method, module=tall_net, data=batches(products.TALL, 3), unroll_steps=2))
    twins.step(14)
    twins.assert_equal()
    twins.assert_compiled()
    assert found
