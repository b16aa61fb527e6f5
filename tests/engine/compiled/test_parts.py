"""A program in parts computes what it does in one, and holds no more than its largest part."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from multilevel import CG
from multilevel.engine.compiled import parts

from .builds import bilevel
from .test_numbers import dropping, normalizing
from .twins import Twins

SIZE = 64


def two_humps(x: Tensor, y: Tensor) -> list[Tensor]:
    """Twice much is alive; in between a view, a pair and a result are."""
    first = [(x * k).sin() for k in range(8)]
    total = sum(f * f for f in first).sum()
    turned, pair = x.t(), torch.var_mean(y, dim=0)
    second = [(turned * k + total).cos() for k in range(8)]
    return [total, (sum(s * s for s in second) + pair[0]).sum(), pair[1]]


def recorded_graph() -> tuple[fx.GraphModule, list[Tensor]]:
    given = [torch.linspace(-1, 1, SIZE * SIZE).reshape(SIZE, SIZE), torch.linspace(0, 1, 3 * SIZE).reshape(3, SIZE)]
    return make_fx(two_humps, tracing_mode="fake")(*given), given


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything be large enough to be cut."""
    monkeypatch.setattr(parts, "SMALL", 8)


@pytest.mark.usefixtures("recorded", "small")
def test_the_parts_together_are_the_whole() -> None:
    graph, given = recorded_graph()
    assert len(parts.waists(graph)) == 1
    torch.testing.assert_close(parts.compiled_in_parts(graph, given)(*given), two_humps(*given), rtol=0, atol=0)


@pytest.mark.usefixtures("recorded")
def test_a_small_graph_stays_whole() -> None:
    graph, given = recorded_graph()
    assert parts.waists(graph) == []
    torch.testing.assert_close(parts.compiled_in_parts(graph, given)(*given), two_humps(*given), rtol=0, atol=0)


@pytest.mark.usefixtures("recorded", "small")
def test_what_no_later_part_reads_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, given = recorded_graph()
    held: list[int] = []
    usual = parts.compiled

    def watched(part: fx.GraphModule, examples: Any) -> Any:
        function = usual(part, examples)
        return lambda *tensors: (held.append(sum(t.numel() for t in tensors)), function(*tensors))[1]

    monkeypatch.setattr(parts, "compiled", watched)
    parts.compiled_in_parts(graph, given)(*given)
    assert held == [SIZE * SIZE, SIZE * SIZE + 3 * SIZE + 1]  # x, then x, y and the total


@pytest.mark.usefixtures("recorded", "small")
@pytest.mark.filterwarnings("ignore::multilevel.NumericsWarning")
@pytest.mark.parametrize(
    ("method", "settings", "waist"),
    [
        ("darts", {"module": dropping}, 0.4),
        ("sama", {"optimizer": lambda p: torch.optim.Adam(p, lr=0.01)}, 0.4),
        pytest.param(CG(2, damping=0.5, warm_start=True), {"module": normalizing}, 0.95, marks=pytest.mark.slow),
        ("unroll", {"unroll_steps": 2}, 0.4),
        ("unroll", {"unroll_steps": 2}, 0.95),
    ],
    ids=["darts", "sama", "cg", "unroll", "unroll cut often"],
)
def test_levels_in_many_parts(
    method: Any, settings: dict[str, Any], waist: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "WAIST", waist)
    made: list[int] = []
    init = parts._Parts.__init__

    def noted(self: Any, graph: Any) -> None:
        init(self, graph)
        made.append(len(self._parts))

    monkeypatch.setattr(parts._Parts, "__init__", noted)
    twins = Twins(bilevel(method, **settings))
    twins.step(14)
    twins.assert_equal()
    twins.assert_compiled()
    assert max(made) > 1
