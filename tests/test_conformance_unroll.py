"""Unroll through the engine: real inner loops, against closed forms and finite differences of the program itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from multilevel import CG, Darts, Engine, Exact, Method, Neumann, Unroll

from .conftest import CLOSED_FORM, CONVERGED, FINITE_DIFFERENCE
from .generic import Generic, engine_of, relative_error
from .hierarchies import BILEVEL, NESTED, SIBLINGS, reference, solved
from .oracles import Values

NEVER = 10**6
"""Steps before a problem reports to its uppers: they stay where they are."""


def after(engine: Engine, steps: int) -> Engine:
    for _ in range(steps):
        engine.step()
    return engine


@pytest.mark.parametrize(("problem", "lr"), [("quadratic", 0.9), ("logistic", 0.8), ("direct term", 0.7)])
def test_a_long_loop_is_right(problem: str, lr: float) -> None:
    hierarchy, values = solved(problem)
    engine = after(engine_of(hierarchy, values, Unroll(), lr=lr, unroll_steps={"low": NEVER}), 90)
    assert relative_error(engine.hypergradient("top")[0], reference(problem)["top"]) < CONVERGED


@pytest.mark.parametrize("problem", ["quadratic", "ill-conditioned", "logistic", "direct term"])
@pytest.mark.parametrize(
    "method", [Unroll(), Unroll(truncation=4), Unroll(checkpoints="all"), Unroll(checkpoints="sqrt")], ids=repr
)
def test_a_loop_that_stays_at_the_solution_is_a_neumann_series(problem: str, method: Unroll) -> None:
    """K steps of gradient descent: lr times the sum of (I - lr H)^k for k < K."""
    hierarchy, values = solved(problem)
    lr, steps = 0.5, 7
    engine = after(engine_of(hierarchy, values, method, lr=lr, unroll_steps={"low": NEVER}), steps)
    series = Neumann(min(steps, method.truncation or steps) - 1, lr)
    expected = engine_of(hierarchy, values, series).hypergradient("top")[0]
    assert relative_error(engine.hypergradient("top")[0], expected) < CLOSED_FORM


def test_loops_of_loops_are_right_when_they_are_long() -> None:
    hierarchy, values = solved("three levels")
    engine = engine_of(hierarchy, values, Unroll(), lr=0.6, unroll_steps={"low": 16, "mid": NEVER})
    got = after(engine, 16 * 16 + 15).hypergradient("top")[0]
    assert relative_error(got, reference("three levels")["top"]) < FINITE_DIFFERENCE


@pytest.mark.parametrize("problem", [*BILEVEL, *NESTED, *SIBLINGS])
def test_graphs_that_were_kept_give_what_evaluating_again_gives(problem: str) -> None:
    """While every problem but the tops trains in loops of loops, and away from any solution."""
    hierarchy, values = solved(problem)
    runs = []
    for method in (Unroll(), Unroll(checkpoints="all")):
        steps = dict.fromkeys(hierarchy.losses, 3)
        engine = engine_of(hierarchy, away(values), method, lr=0.2, unroll_steps=steps)
        seen = []
        for _ in range(14):
            engine.step()
            seen += [p.detach().clone() for name in hierarchy.losses for p in engine[name].parameters]
        runs.append(seen)
    torch.testing.assert_close(runs[0], runs[1], rtol=CLOSED_FORM, atol=CLOSED_FORM)


# --- Finite differences of the program: the same engine steps, taken again from the same start. ---


def differences(program: Callable[[Tensor], Tensor], top: Tensor, size: float = 1e-3) -> Tensor:
    """The gradient of the program's result by central differences of fourth order."""
    slopes = []
    for e in torch.eye(len(top)):
        at = [program(top + k * size * e) for k in (1, -1, 2, -2)]
        slopes.append((8 * (at[0] - at[1]) - (at[2] - at[3])) / (12 * size))
    return torch.stack(slopes)


def top_loss(engine: Engine) -> Tensor:
    with torch.no_grad():
        return engine["top"].training_step(None)


def away(values: Values) -> Values:
    """Everything below the top somewhere else than at its solution."""
    return {k: v if k == "top" else v + 0.3 * torch.arange(1.0, len(v) + 1) for k, v in values.items()}


def assert_differentiates_the_program(start: Values, build: Callable[[Values], Engine], steps: int) -> None:
    got = after(build(start), steps).hypergradient("top")[0]
    expected = differences(lambda top: top_loss(after(build({**start, "top": top}), steps)), start["top"])
    assert relative_error(got, expected) < FINITE_DIFFERENCE


@pytest.mark.parametrize("problem", ["quadratic", "direct term"])
def test_one_loop(problem: str) -> None:
    hierarchy, values = solved(problem)

    def build(start: Values) -> Engine:
        return engine_of(hierarchy, start, Unroll(), lr=0.4, unroll_steps={"low": NEVER})

    assert_differentiates_the_program(away(values), build, 5)


@pytest.mark.parametrize("inside", [CG(20), Exact(), Unroll()], ids=repr)
def test_a_loop_over_a_leaf_that_many_steps_solve(inside: Method) -> None:
    """The middle takes three steps along its total gradient, the lowest forty before and after each."""
    hierarchy, values = solved("three levels")

    def build(start: Values) -> Engine:
        methods = {"mid": Unroll(), "low": inside}
        return engine_of(hierarchy, start, methods, lr=0.5, unroll_steps={"low": 40, "mid": NEVER})

    assert_differentiates_the_program(away(values), build, 40 * 3 + 39)


class FromAFixedStart(Generic):
    """Begins every inner loop at the same point."""

    def initial_parameters(self) -> Sequence[Tensor]:
        return [torch.tensor([0.3, -0.5])]


def test_short_loops_in_a_short_loop() -> None:
    """Nothing is solved: three steps of the lowest from a fixed start for each of the middle's four."""
    hierarchy, values = solved("three levels")

    def build(start: Values) -> Engine:
        return engine_of(
            hierarchy,
            start,
            Unroll(),
            lr=0.4,
            unroll_steps={"low": 3, "mid": NEVER},
            classes={"low": FromAFixedStart},
        )

    assert_differentiates_the_program(away(values), build, 3 * 4 + 2)


@pytest.mark.parametrize("above", [CG(20), Exact(), Darts(1e-5)], ids=repr)
def test_a_solver_over_a_loop(above: Method) -> None:
    """The lowest level's loop is long, so that both the solution and its derivative are the limit's."""
    hierarchy, values = solved("three levels")
    engine = engine_of(hierarchy, values, {"mid": above, "low": Unroll()}, lr=0.6, unroll_steps={"low": NEVER})
    limit = engine_of(hierarchy, values, {"mid": above, "low": CG(20)})
    expected = limit.hypergradient("top")[0] if isinstance(above, Darts) else reference("three levels")["top"]
    assert relative_error(after(engine, 40).hypergradient("top")[0], expected) < FINITE_DIFFERENCE
