"""REINFORCE against sums over all outcomes: no sampling error is left, so the numbers must be equal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from multilevel.hypergrad.cg import CG
from multilevel.hypergrad.exact import Exact
from multilevel.hypergrad.identity import Identity
from multilevel.hypergrad.minres import MINRES
from multilevel.hypergrad.neumann import Neumann
from multilevel.hypergrad.nystrom import Nystrom
from multilevel.hypergrad.reinforce import Reinforce

from ..conftest import CLOSED_FORM
from ..oracles import EXACT, Formula, Inverse, Values
from ..sampled import Chance, engine_of, mean_hypergradient, oracle_of

IDENTITY = Inverse(lambda hessian: torch.eye(len(hessian)))
EDGES = (("up", "low"),)
PARTS = ("score", "pathwise", "both")


def fixed(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pair(
    method: Reinforce,
    part: str = "both",
    *,
    count: int = 3,
    returns: str = "losses",
    kinds: int = 0,
    constant_hessian: bool = False,
    own: bool = False,
) -> dict[str, Chance]:
    """Least squares below on weighted examples; a kept example, or the kind of each, is a choice.

    Args:
        method: Of the lower.
        part: Whether the upper's vector enters the distribution, the loss, or both.
        count: Of the choices, and of the examples.
        returns: As of :class:`Chance`.
        kinds: Of a categorical choice; 0 for Bernoulli choices.
        constant_hessian: Let the choices tilt the loss, not bend it.
        own: Let the distribution depend on the lower's own vector as well.
    """
    x, y, tilt = fixed(count, 2, seed=1), fixed(count, seed=2), fixed(count, 2, seed=3)
    strength = torch.linspace(0.5, 2.0, kinds) if kinds else torch.ones(1)
    towards, constant = fixed(count, 2, seed=5) / 2, fixed(count * max(kinds, 1), seed=4)

    def loss(v: Values, outcome: Tensor) -> Tensor:
        chosen = outcome @ strength if kinds else outcome
        errors = (x @ v["low"] - y).square() / 2
        errors = errors + chosen * (tilt @ v["low"]) if constant_hessian else (chosen + 0.1) * errors
        path = v["up"][:count].sin() * (tilt @ v["low"]) if part != "score" else 0.0
        return errors + path + 0.3 * v["low"].square().sum()

    def logits(v: Values) -> Tensor:
        base = v["up"] if part != "pathwise" else constant
        base = base.reshape(count, kinds) if kinds else base
        pull = towards @ v["low"]
        return base + (pull[:, None] * strength if kinds else pull) if own else base

    config = {"type": method, "estimator": "score" if own else "pathwise"}
    low = Chance(fixed(2, seed=6), loss, logits, returns, config)
    up = Chance(
        fixed(count * max(kinds, 1), seed=7) / 2,
        lambda v, _: (v["low"] - 1).square().sum() + v["up"].cos().sum() / 3,
    )
    return {"up": up, "low": low}


def series(hessian: Tensor) -> Tensor:
    """What Neumann(7, 0.3) puts in place of the inverse."""
    step = torch.eye(len(hessian)) - 0.3 * hessian
    return 0.3 * torch.stack([torch.linalg.matrix_power(step, k) for k in range(8)]).sum(0)


def check(chances: dict[str, Chance], inverse: Inverse = IDENTITY, baseline: float | None = None) -> None:
    engine = engine_of(chances, EDGES)
    if baseline is not None:
        engine["low"].level.memory["reinforce.baseline"] = torch.tensor(baseline)
    values = {name: chance.value for name, chance in chances.items()}
    expected = Formula(oracle_of(chances, EDGES), values, {"low": inverse}).gradient("up", values)
    got = mean_hypergradient(engine, "up")
    torch.testing.assert_close(got, expected, rtol=CLOSED_FORM, atol=CLOSED_FORM)
    direct = -chances["up"].value.sin() / 3
    assert (got - direct).norm() > 1e-2  # the part that is tested here is no rounding error


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("returns", ["loss", "losses"])
@pytest.mark.parametrize("kinds", [0, 3])
@pytest.mark.parametrize("baseline", ["none", "ema", "first ema"])
def test_expectation_of_one_draw(part: str, returns: str, kinds: int, baseline: str) -> None:
    method = Reinforce(baseline=baseline.removeprefix("first "))  # type: ignore[arg-type]
    check(pair(method, part, returns=returns, kinds=kinds), baseline=0.7 if baseline == "ema" else None)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("returns", [pytest.param("loss", marks=pytest.mark.slow), "losses"])
@pytest.mark.parametrize(
    ("samples", "count", "kinds", "baseline"),
    [(2, 3, 0, "loo"), (3, 2, 0, "loo"), (2, 2, 3, "loo"), (2, 2, 0, "none"), (2, 2, 0, "ema")],
)
def test_expectation_of_several_draws(
    part: str, returns: str, samples: int, count: int, kinds: int, baseline: Any
) -> None:
    method = Reinforce(samples=samples, baseline=baseline)
    check(pair(method, part, count=count, returns=returns, kinds=kinds), baseline=-1.3 if baseline == "ema" else None)


@pytest.mark.parametrize("returns", [pytest.param("loss", marks=pytest.mark.slow), "losses"])
def test_ten_binary_choices(returns: str) -> None:
    check(pair(Reinforce(), count=10, returns=returns))


def test_five_choices_among_three() -> None:
    check(pair(Reinforce(), count=5, kinds=3))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("inverse", [CG(iterations=2), Exact(), MINRES(iterations=2), Neumann(7, 0.3)], ids=str)
@pytest.mark.parametrize(
    ("samples", "baseline", "returns"), [(1, "none", "loss"), (2, "loo", "losses"), (1, "ema", "losses")]
)
def test_expectation_with_an_inverse_of_the_hessian(
    part: str, inverse: Any, samples: int, baseline: Any, returns: str
) -> None:
    method = Reinforce(samples=samples, baseline=baseline, inverse=inverse)
    chances = pair(method, part, count=3 if samples == 1 else 2, returns=returns, constant_hessian=True)
    matrix = Inverse(series) if isinstance(inverse, Neumann) else EXACT
    check(chances, matrix, baseline=2.0 if baseline == "ema" else None)


def test_a_hessian_that_depends_on_the_choices_biases_its_inverse() -> None:
    """What the documentation says of it: E[B H^-1] is another number, and more draws come closer."""
    distances = []
    for samples in (1, 3):
        chances = pair(Reinforce(samples=samples, baseline="none", inverse=Exact()), "score", count=2)
        values = {name: chance.value for name, chance in chances.items()}
        expected = Formula(oracle_of(chances, EDGES), values).gradient("up", values)
        distances.append((mean_hypergradient(engine_of(chances, EDGES), "up") - expected).norm() / expected.norm())
    assert distances[0] > 0.05
    assert distances[1] < 0.6 * distances[0]


@pytest.mark.parametrize("part", ["score", "both"])
@pytest.mark.parametrize("returns", ["loss", "losses"])
@pytest.mark.parametrize("kinds", [0, 3])
@pytest.mark.parametrize("method", [Reinforce(), Reinforce(baseline="ema"), Reinforce(samples=2), Identity()], ids=str)
def test_a_distribution_that_depends_on_the_lowers_own_vector(part: str, returns: str, kinds: int, method: Any) -> None:
    chances = pair(method, part, count=2, returns=returns, kinds=kinds, own=True)
    check(chances, baseline=0.7 if str(method).endswith("ema)") else None)
    values = {name: chance.value for name, chance in chances.items()}
    expected = Formula(oracle_of(chances, EDGES), values).gradient("low", values)
    torch.testing.assert_close(
        mean_hypergradient(engine_of(chances, EDGES), "low"), expected, rtol=CLOSED_FORM, atol=CLOSED_FORM
    )


def test_the_inverse_keeps_its_own_habits_from_step_to_step() -> None:
    """A sketch or a step size that is reused for a few upper steps is then made anew, and a warm start is kept."""
    for inverse, key, lifetime in (
        (Nystrom(rank=2, reuse=2), "nystrom.factor", 2),
        (Neumann(2, "auto", refresh=2), "neumann.eigenvalue", 2),
        (CG(iterations=2, warm_start=True), "cg.solution", 10),
    ):
        engine = engine_of(pair(Reinforce(inverse=inverse), constant_hessian=True), EDGES)
        memory = engine["low"].level.memory
        kept = []
        for _ in range(4):
            engine.step()
            kept.append(key in memory)
        assert kept == [(step + 1) % lifetime != 0 for step in range(4)], key
