"""What a hypergradient costs: problems, not paths; and first-order methods stay first-order."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from multilevel import CG, GMRES, MINRES, Darts, Exact, Identity, Method, Neumann, Nystrom, Sama, Unroll
from multilevel.problems.inner_loop import InnerLoop

from .counting import Count, counting
from .generic import engine_of
from .hierarchies import solved
from .scalable_hierarchies import chain, ladder

METHODS = [Darts(), Sama(), Identity(), Neumann(2), CG(2), MINRES(2), GMRES(2), Nystrom(rank=1), Exact(), Unroll()]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)


def cost_of_ladder(method: Method, diamonds: int) -> tuple[Count, float]:
    """The cost of the hypergradient, and its value."""
    hierarchy = ladder(diamonds)
    # Each problem has taken a step, and the top none: the two below it report to it after another.
    unroll_steps = {"left0": 2, "right0": 2}
    engine = engine_of(hierarchy, hierarchy.start, method, lr=1.0, unroll_steps=unroll_steps)
    engine.step()
    with counting() as count:
        value = engine.hypergradient("node0")[0].item()
    return count, value


@every_method
def test_cost_grows_with_problems_not_with_paths(method: Method) -> None:
    """Three problems more for each diamond, while the number of paths doubles, to 4,096."""
    costs = []
    for diamonds in range(1, 13):
        count, value = cost_of_ladder(method, diamonds)
        assert count.pulls == 3 * diamonds
        damping = method.damping if isinstance(method, Nystrom) else 0.0
        assert value == pytest.approx(2**diamonds / (1 + damping) ** (2 * diamonds), rel=1e-6)
        costs.append((count.losses, count.gradients))
    increments = {(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(costs)}
    assert len(increments) == 1


@pytest.mark.parametrize("method", [Darts(), Sama()], ids=lambda m: m.name)
@pytest.mark.parametrize("depth", [2, 3, 4, 5])
def test_first_order_methods_never_differentiate_a_gradient(depth: int, method: Method) -> None:
    hierarchy = chain(depth)
    with counting() as count:
        engine_of(hierarchy, hierarchy.start, method).hypergradient("level0")
    assert count.gradients > 0
    assert count.recorded == 0


@pytest.mark.parametrize("problem", ["three levels", "four levels", "diamond", "two uppers"])
@pytest.mark.parametrize("method", [Darts(), Sama()], ids=lambda m: m.name)
def test_first_order_methods_stay_first_order_on_every_hierarchy(problem: str, method: Method) -> None:
    hierarchy, values = solved(problem)
    with counting() as count:
        engine_of(hierarchy, values, method).hypergradient(hierarchy.tops[0])
    assert count.recorded == 0


def test_darts_over_sama_is_first_order() -> None:
    hierarchy, values = solved("three levels")
    with counting() as count:
        engine_of(hierarchy, values, {"mid": Darts(), "low": Sama()}).hypergradient("top")
    assert count.recorded == 0


def test_a_long_inner_loop_costs_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step holds what it needs to be looked back at, and not the steps before it (and those before them)."""
    hierarchy, values = solved("quadratic")
    losses, tapes, tape = [], [], InnerLoop.tape

    def counted(self: InnerLoop, *args: Any) -> Any:
        tapes.append(self)
        return tape(self, *args)

    monkeypatch.setattr(InnerLoop, "tape", counted)
    for steps in (5, 10, 20):
        engine = engine_of(hierarchy, values, Unroll(), lr=0.5, unroll_steps={"low": 10**6})
        for _ in range(steps):
            engine.step()
        with counting() as count:
            engine.hypergradient("top")
        losses.append(count.losses)
        assert len(tapes) == 1
        tapes.clear()
    assert losses[2] - losses[1] == 2 * (losses[1] - losses[0])


@pytest.mark.parametrize("iterations", [1, 4])
def test_two_levels_take_one_linearization_however_many_products(iterations: int) -> None:
    hierarchy = chain(2)
    with counting() as count:
        engine_of(hierarchy, hierarchy.start, CG(iterations)).hypergradient("level0")
    # The upper's loss and the lower's; a gradient each, the products, and the mixed one.
    assert (count.losses, count.gradients, count.recorded) == (2, 3 + iterations, 1)
