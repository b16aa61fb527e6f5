"""REINFORCE at depth, over all outcomes: at the bottom, in the middle, at both, among other methods."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from multilevel import EngineConfig, Method
from multilevel.hypergrad.cg import CG
from multilevel.hypergrad.darts import Darts
from multilevel.hypergrad.exact import Exact
from multilevel.hypergrad.identity import Identity
from multilevel.hypergrad.reinforce import Reinforce

from ..conftest import CLOSED_FORM, FINITE_DIFFERENCE
from ..oracles import Edges, Formula, Inverse, Values, difference_gradient, settled
from ..sampled import Chance, engine_of, mean_hypergradient, oracle_of

EDGES: Edges = (("top", "mid"), ("mid", "low"), ("top", "low"))
IDENTITY = Inverse(lambda hessian: torch.eye(len(hessian)))
DARTS = Inverse(IDENTITY.matrix, first_order=True)


def fixed(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def chain(
    mid: Method, low: Method, *, mid_samples: bool, low_samples: bool, returns: str = "loss"
) -> dict[str, Chance]:
    """Quadratics: the choices tilt them, and the upper's vector decides how likely which tilt is."""
    A, D, M = fixed(2, 2, seed=1) / 2, fixed(2, 2, seed=2) / 3, torch.tensor([[1.5, 0.3], [0.3, 1.1]])
    V, U = fixed(2, 2, seed=3), fixed(2, 2, seed=4)
    tilt_low, tilt_mid = fixed(2, 2, seed=5), fixed(2, 2, seed=6)

    def low_loss(v: Values, outcome: Tensor) -> Tensor:
        z = v["low"]
        chosen = outcome if low_samples else torch.sigmoid(V @ v["top"])
        tilts = chosen * (tilt_low @ z)
        return z @ M @ z / 2 - z @ (A @ v["mid"]) - z @ v["top"].sin() / 3 + tilts * (1.0 + v["top"])

    def mid_loss(v: Values, outcome: Tensor) -> Tensor:
        y = v["mid"]
        chosen = outcome if mid_samples else torch.sigmoid(U @ v["top"])
        return y @ M @ y / 2 + v["low"] @ D @ y + v["low"] @ v["top"] / 4 + chosen * (tilt_mid @ y) * v["top"].cos()

    def top_loss(v: Values, outcome: Tensor) -> Tensor:
        return (v["mid"] - 1).square().sum() + (v["low"] * v["top"]).sin().sum() + v["top"].square().sum() / 2

    return {
        "top": Chance(torch.tensor([0.6, -0.4]), top_loss),
        "mid": Chance(
            fixed(2, seed=7), mid_loss, (lambda v: U @ v["top"]) if mid_samples else None, returns, {"type": mid}
        ),
        "low": Chance(
            fixed(2, seed=8), low_loss, (lambda v: V @ v["top"]) if low_samples else None, returns, {"type": low}
        ),
    }


def check(chances: dict[str, Chance], inverses: dict[str, Inverse], values: Values, tolerance: float) -> None:
    engine = at(chances, values)
    expected = Formula(oracle_of(chances, EDGES), values, inverses).gradient("top", values)
    torch.testing.assert_close(mean_hypergradient(engine, "top"), expected, rtol=tolerance, atol=tolerance)


def at(chances: dict[str, Chance], values: Values) -> Any:
    engine = engine_of(chances, EDGES)
    for name, problem in engine.problems.items():
        problem.module.value.data = values[name].clone()
    return engine


def solution(chances: dict[str, Chance]) -> Values:
    hierarchy = oracle_of(chances, EDGES)
    return settled(hierarchy, dict(hierarchy.start), "top")


@pytest.mark.parametrize("returns", [pytest.param("loss", marks=pytest.mark.slow), "losses"])
@pytest.mark.parametrize(
    ("mid", "low", "inverses"),
    [
        (Identity(), Reinforce(), {"mid": IDENTITY, "low": IDENTITY}),
        (CG(iterations=2), Reinforce(), {"low": IDENTITY}),
        (CG(iterations=2), Reinforce(inverse=Exact()), {}),
        (CG(iterations=2), Reinforce(baseline="ema"), {"low": IDENTITY}),
        (Exact(), Reinforce(samples=2, inverse=CG(iterations=2)), {}),
        (Reinforce(), Identity(), {"mid": IDENTITY, "low": IDENTITY}),
        (Reinforce(), CG(iterations=2), {"mid": IDENTITY}),
        (Reinforce(inverse=CG(iterations=2)), Exact(), {}),
        (Reinforce(samples=2, inverse=Exact()), CG(iterations=2), {}),
        (Reinforce(baseline="ema", inverse=Exact()), CG(iterations=2), {}),
        (Reinforce(), Reinforce(), {"mid": IDENTITY, "low": IDENTITY}),
        (Reinforce(inverse=Exact()), Reinforce(baseline="ema", inverse=CG(iterations=2)), {}),
    ],
    ids=str,
)
def test_three_levels(mid: Method, low: Method, inverses: dict[str, Inverse], returns: str) -> None:
    where = {"mid_samples": isinstance(mid, Reinforce), "low_samples": isinstance(low, Reinforce)}
    chances = chain(mid, low, **where, returns=returns)
    check(chances, inverses, solution(chances), CLOSED_FORM)


@pytest.mark.parametrize(
    ("mid", "low", "inverses"),
    [
        (Darts(), Reinforce(), {"mid": DARTS, "low": IDENTITY}),
        (Reinforce(inverse=Exact()), Darts(), {"low": DARTS}),
    ],
    ids=["above", "below"],
)
def test_among_finite_differences(mid: Method, low: Method, inverses: dict[str, Inverse]) -> None:
    chances = chain(mid, low, mid_samples=isinstance(mid, Reinforce), low_samples=isinstance(low, Reinforce))
    check(chances, inverses, solution(chances), FINITE_DIFFERENCE)


def test_the_expected_hierarchy_solved_again() -> None:
    """The whole way round: the mean estimate is the slope of the top's loss when everything below is solved anew."""
    method = Reinforce(inverse=Exact())
    chances = chain(method, method, mid_samples=True, low_samples=True)
    values = solution(chances)
    expected = difference_gradient(oracle_of(chances, EDGES), values, "top")
    torch.testing.assert_close(
        mean_hypergradient(at(chances, values), "top"), expected, rtol=FINITE_DIFFERENCE, atol=FINITE_DIFFERENCE
    )


def test_the_middle_decides_what_the_bottom_samples() -> None:
    """mid = |y|^2 / 2 + x z: the top reaches the middle through the bottom's score function alone."""
    edges: Edges = (("top", "mid"), ("mid", "low"))
    tilt = fixed(2, 2, seed=5)
    chances = {
        "top": Chance(torch.tensor([0.6, -0.4]), lambda v, _: (v["mid"] - 1).square().sum()),
        "mid": Chance(
            fixed(2, seed=7),
            lambda v, _: v["mid"].square().sum() / 2 + v["top"] @ v["low"],
            config={"type": Identity()},
        ),
        "low": Chance(
            fixed(2, seed=8),
            lambda v, outcome: v["low"].square().sum() / 2 + outcome @ (tilt @ v["low"]),
            lambda v: v["mid"] * 2,
            config={"type": Reinforce()},
        ),
    }
    values = {name: chance.value for name, chance in chances.items()}
    inverses = {"mid": IDENTITY, "low": IDENTITY}
    expected = Formula(oracle_of(chances, edges), values, inverses).gradient("top", values)
    got = mean_hypergradient(engine_of(chances, edges), "top")
    torch.testing.assert_close(got, expected, rtol=CLOSED_FORM, atol=CLOSED_FORM)
    assert expected.norm() > 0.05


@pytest.mark.parametrize("response", ["total", "direct"])
def test_lower_responses_count_as_configured(response: str) -> None:
    chances = chain(Reinforce(), Reinforce(), mid_samples=True, low_samples=True)
    engine = engine_of(chances, EDGES, **EngineConfig(response=response).model_dump(include={"response"}))
    values = {name: chance.value for name, chance in chances.items()}
    formula = Formula(oracle_of(chances, EDGES), values, {"mid": IDENTITY, "low": IDENTITY})
    distance = (mean_hypergradient(engine, "top") - formula.gradient("top", values)).norm()
    assert (distance < CLOSED_FORM) == (response == "total")
