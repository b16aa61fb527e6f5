"""Choices in an engine: reproducible, independent between draws, without side effects, and recorded for others."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Independent, Normal

from multilevel import Config, Engine, EngineConfig, ProblemError
from multilevel.hypergrad.cg import CG
from multilevel.hypergrad.reinforce import Reinforce

from ..conftest import CLOSED_FORM
from ..givens import Given, Vector, assert_same, chain, flat_state, pair

SIZE = 24
TILT = torch.linspace(-1, 1, SIZE, dtype=torch.float64)


def drawing(problem: Given, batch: Any) -> Any:
    """Weights of one example each, all remembered in the order of the evaluations."""
    keep = problem.sample(Bernoulli(logits=problem.upper()))
    vars(problem).setdefault("seen", []).append(keep)
    return {"losses": keep * (problem.module() - TILT).square() + problem.module().square()}


def above(problem: Given, batch: Any) -> Tensor:
    return (problem.lower() - 1).square().sum()


def sampled_pair(method: Any, lower: Any = drawing, **parts: Any) -> Engine:
    return pair(lower, above, method=method, modules=(Vector(*[0.5] * SIZE), Vector(*[0.1] * SIZE)), **parts)


def trained(seed: int) -> dict[str, Tensor]:
    engine = sampled_pair(Reinforce(samples=3), engine=EngineConfig(seed=seed))
    for _ in range(4):
        engine.step()
    return flat_state(engine)


def test_reproducible_from_the_seed() -> None:
    assert_same(trained(3), trained(3))
    assert not torch.equal(trained(3)["upper.value"], trained(4)["upper.value"])


def test_draws_are_independent_and_repeatable_and_the_first_is_the_one_trained_on() -> None:
    engine = sampled_pair(Reinforce(samples=4))
    lower: Any = engine["lower"]
    engine._stepper.advance("lower")
    trained_on, looked_at_again = lower.seen
    assert torch.equal(looked_at_again, trained_on)
    lower.seen.clear()
    for draw in (0, 1, 2, 3, 2, 1, 0):
        lower.level.evaluate({}, draw=draw)
    first, again = lower.seen[:4], lower.seen[:2:-1]
    assert_same(again, first)
    assert torch.equal(first[0], trained_on)
    for one, other in itertools.combinations(first, 2):
        assert not torch.equal(one, other)
    lower.level.evaluate({})
    assert torch.equal(lower.seen[-1], trained_on)  # what training would differentiate
    lower.level.next_moment()
    lower.level.evaluate({}, draw=1)
    assert not torch.equal(lower.seen[-1], first[1])  # another step, other draws


def test_many_draws_are_spread_as_the_distribution_says() -> None:
    engine = sampled_pair(Reinforce())
    lower: Any = engine["lower"]
    lower.level.next_moment()
    for draw in range(1, 2001):
        lower.level.evaluate({}, draw=draw)
    seen = torch.stack(lower.seen)
    p = torch.tensor(0.1).sigmoid()
    assert ((seen.mean(0) - p).abs() < 4.5 * (p * (1 - p) / 2000).sqrt()).all()
    correlations = torch.corrcoef(torch.cat([seen[:-1], seen[1:]], dim=1).T)
    correlations.fill_diagonal_(0.0)
    assert correlations.abs().max() < 5.5 / 2000**0.5  # between entries, and from draw to draw


def test_problems_never_see_the_same_random_numbers() -> None:
    """Also where a hypergradient is asked for before the first step: else products of two choices would be biased."""

    def upper(problem: Given, batch: Any) -> Any:
        keep = problem.sample(Bernoulli(logits=problem.module()))
        vars(problem).setdefault("seen", []).append(keep)
        return {"losses": keep * (problem.lower() - 1).square()}

    module = Vector(*[0.1] * SIZE)
    problems = [
        Given("upper", upper, module, config=Config(estimator="score")),
        Given("lower", drawing, Vector(*[0.5] * SIZE), config=Config(type=Reinforce(samples=3))),
    ]
    engine = Engine(problems, edges=[("upper", "lower")])
    up, low = engine["upper"], engine["lower"]
    for _ in range(2):
        engine.hypergradient("upper")
        seen = [tuple(keep.tolist()) for keep in (*up.seen, *low.seen)]
        assert len(set(seen)) == len({tuple(k.tolist()) for k in up.seen}) + 3
        engine.step()
        up.seen.clear()
        low.seen.clear()


@pytest.mark.parametrize("baseline", ["ema", "loo", "none"])
@pytest.mark.parametrize("before", [0, 2])
def test_a_hypergradient_leaves_no_trace(baseline: Any, before: int) -> None:
    engine = sampled_pair(Reinforce(samples=2, baseline=baseline))
    for _ in range(before):
        engine.step()

    def everything() -> Any:
        numpy = torch.from_numpy(np.random.get_state()[1].astype(np.int64))
        memory = [dict(p.level.memory) for p in engine.problems.values()]
        return [flat_state(engine), memory, torch.get_rng_state(), torch.initial_seed(), numpy]

    state = everything()
    first = engine.hypergradient("upper")
    assert_same(everything(), state)
    assert_same(engine.hypergradient("upper"), first)
    assert ("reinforce.baseline" in engine["lower"].level.memory) == (baseline == "ema" and before > 0)


def test_the_running_mean_is_that_of_earlier_steps_and_is_saved() -> None:
    """One choice whose reward is always 3: - <v, grad L> with v = -1 and L = 3 theta."""

    def lower(problem: Given, batch: Any) -> Tensor:
        problem.sample(Bernoulli(logits=problem.upper()))
        return 3 * problem.module().sum()

    engine = pair(lower, lambda p, b: -p.lower().sum(), method=Reinforce(baseline="ema", decay=0.75), lr=0.0)
    found = []
    for _ in range(3):
        engine.step()
        found.append(float(engine["lower"].level.memory["reinforce.baseline"]))
    assert found == [3.0, 3.0, 3.0]
    torch.testing.assert_close(engine.hypergradient("upper")[0], torch.zeros(1))  # nothing is better than usual
    engine["lower"].level.memory["reinforce.baseline"] = torch.tensor(1.0)
    engine.step()
    assert float(engine["lower"].level.memory["reinforce.baseline"]) == 0.75 * 1.0 + 0.25 * 3.0
    again = pair(lower, lambda p, b: -p.lower().sum(), method=Reinforce(baseline="ema"))
    again.load_state_dict(engine.state_dict())
    assert_same(again["lower"].level.memory, engine["lower"].level.memory)


def test_a_problem_that_never_samples_is_refused_by_name() -> None:
    engine = sampled_pair("reinforce", lambda p, b: (p.module() * p.upper()).square().sum())
    with pytest.raises(ProblemError, match=r"'lower': type 'reinforce', but its training_step samples nothing.*cg"):
        engine.step()


def test_choices_that_depend_on_no_upper_are_ordinary_random_numbers() -> None:
    def lower(problem: Given, batch: Any) -> Tensor:
        scale = problem.sample(Normal(torch.zeros(SIZE), 1.0))
        return (problem.module() - scale * problem.upper()).square().sum() / 2

    engine = sampled_pair("reinforce", lower)
    plain = sampled_pair("identity", lower)
    assert_same(engine.hypergradient("upper"), plain.hypergradient("upper"))
    engine.step()


def test_a_choice_that_was_made_before_cannot_be_drawn_again() -> None:
    def lower(problem: Given, batch: Any) -> Any:
        keep = problem.sample(Bernoulli(logits=problem.upper()), value=(TILT > 0).double())
        return {"losses": keep * problem.module().square()}

    assert sampled_pair(Reinforce(baseline="none"), lower).hypergradient("upper")[0].abs().sum() > 0
    with pytest.raises(ProblemError, match=r"'lower': a choice given to self\.sample\(value=\.\.\.\).*samples=1"):
        sampled_pair(Reinforce(samples=2), lower).hypergradient("upper")


def entropy_engine(own: bool, method: Any) -> Engine:
    """A middle level that adds the entropy of what the bottom samples, written out or read off its choices."""

    class Net(nn.Module):
        def __init__(self, *values: float) -> None:
            super().__init__()
            self.value = nn.Parameter(torch.tensor(values))

        def forward(self) -> Tensor:
            return self.value

    def logits(middle: Any, bottom: Any) -> Tensor:
        return middle().sin() * 2 + bottom().exp() / 3  # saved for backward: stale graphs would be noticed

    def bottom(problem: Given, batch: Any) -> Any:
        keep = problem.sample(Bernoulli(logits=logits(problem.middle, problem)))
        return {"losses": keep * problem.module() + problem.module().square()}

    def middle(problem: Given, batch: Any) -> Tensor:
        if own:
            entropy = Bernoulli(logits=logits(problem, problem.bottom)).entropy().sum()
        else:
            (choice,) = problem.bottom.choices
            entropy = choice.distribution.entropy().sum()
        return (problem.module() - problem.top()).square().sum() + problem.bottom().square().sum() - 0.3 * entropy

    problems = [
        Given("top", lambda p, b: (p.middle() - 1).square().sum(), Net(0.3, -0.7)),
        Given("middle", middle, Net(0.8, -0.4), config=Config(type=method)),
        Given("bottom", bottom, Net(0.2, 0.5), config=Config(type=Reinforce(), estimator="score", unroll_steps=2)),
    ]
    return Engine(problems, edges=chain("top", "middle", "bottom"))


@pytest.mark.parametrize("method", ["identity", CG(iterations=2), "darts"], ids=str)
def test_the_entropy_of_recorded_choices_is_differentiated_at_any_depth(method: Any) -> None:
    recorded, written = entropy_engine(False, method), entropy_engine(True, method)
    for step in range(3):
        for name in ("middle", "top"):
            got, expected = (engine.hypergradient(name) for engine in (recorded, written))
            torch.testing.assert_close(got, expected, rtol=CLOSED_FORM, atol=CLOSED_FORM)
        for engine in (recorded, written):
            torch.manual_seed(step)
            engine.step()
    assert_same(flat_state(recorded), flat_state(written))  # and no random number was used up
    (choice,) = recorded["bottom"].choices
    torch.testing.assert_close(choice.log_prob, choice.distribution.log_prob(choice.value))


def test_choices_so_far_are_there_inside_the_step_itself() -> None:
    def step(problem: Given, batch: Any) -> Tensor:
        assert problem.choices == ()
        problem.sample(Categorical(logits=problem.module()))
        problem.sample(Independent(Normal(problem.module(), 1.0), 1))
        one, two = problem.choices
        return -one.distribution.entropy() + 0 * two.log_prob

    engine = Engine([Given("p", step, Vector(0.3, -0.3), config=Config(estimator="score"))])
    engine.step()
    assert len(engine["p"].choices) == 2
