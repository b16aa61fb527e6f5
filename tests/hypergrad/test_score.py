"""Surrogates of sampled losses, and what reinforce refuses."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Independent

from multilevel import ConfigError, ProblemError, best_response
from multilevel.hypergrad.cg import CG
from multilevel.hypergrad.darts import Darts
from multilevel.hypergrad.identity import Identity
from multilevel.hypergrad.objective import Evaluation
from multilevel.hypergrad.reinforce import Reinforce, reinforce
from multilevel.hypergrad.score import log_likelihood, surrogate

from ..conftest import CLOSED_FORM
from ..givens import Given, Vector, pair

OUTCOMES = [torch.tensor(bits, dtype=torch.float64) for bits in itertools.product([0.0, 1.0], repeat=2)]
WEIGHTS = torch.tensor([0.7, -1.1], dtype=torch.float64)


def evaluated(phi: Tensor, outcome: Tensor, *, per_example: bool) -> tuple[Evaluation, Tensor]:
    """A loss that bends with phi, under one outcome of two Bernoulli(sigmoid(phi)) choices, and its probability."""
    losses = (1 + outcome * WEIGHTS) * (phi + 0.3).square() + outcome * phi.exp()
    log_prob = Bernoulli(logits=phi).log_prob(outcome)
    given = losses if per_example else None
    return Evaluation(losses.mean(), None, given, (log_prob,)), log_prob.sum().exp()


def derivatives(value: Tensor, phi: Tensor, order: int) -> Tensor:
    for _ in range(order):
        (gradient,) = torch.autograd.grad(value, phi, create_graph=True)
        value = (gradient * torch.tensor([1.0, 0.6])).sum()
    return gradient


@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize(("samples", "baseline"), [(1, "none"), (2, "none"), (2, "loo"), (3, "loo")])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_every_derivative_of_the_surrogate_is_that_of_the_expectation(
    per_example: bool, samples: int, baseline: Any, order: int
) -> None:
    phi = torch.tensor([0.4, -0.8], requires_grad=True)
    expected = torch.stack([p * e.loss for e, p in (evaluated(phi, o, per_example=False) for o in OUTCOMES)]).sum()
    mean = torch.zeros(2)
    for outcomes in itertools.product(OUTCOMES, repeat=samples):
        draws, chances = zip(*(evaluated(phi, o, per_example=per_example) for o in outcomes), strict=True)
        value = surrogate(draws, baseline)
        torch.testing.assert_close(value, torch.stack([d.loss for d in draws]).mean(), rtol=0, atol=1e-15)
        mean = mean + torch.stack(chances).prod().detach() * derivatives(value, phi, order).detach()
    torch.testing.assert_close(mean, derivatives(expected, phi, order), rtol=CLOSED_FORM, atol=CLOSED_FORM)


def likelihood(losses: int, *log_probs: Tensor) -> Tensor:
    given = torch.zeros(losses) if losses else None
    return log_likelihood(Evaluation(torch.zeros(()), None, given, tuple(p.requires_grad_() for p in log_probs)))


def test_a_row_of_log_probabilities_counts_for_its_example_and_any_other_for_all() -> None:
    rows, table, one, others = torch.rand(3), torch.rand(3, 2), torch.rand(()), torch.rand(2, 3)
    expected = rows + table.sum(1) + one + others.sum()
    torch.testing.assert_close(likelihood(3, rows, table, one, others), expected)
    torch.testing.assert_close(likelihood(0, rows, table, one, others), expected.sum() - 2 * (one + others.sum()))
    alone = torch.rand(1)  # one example: there is nothing to tell apart
    torch.testing.assert_close(likelihood(1, alone, rows), alone + rows.sum())


def test_independent_makes_one_choice_for_all_of_as_many_as_there_are_examples() -> None:
    distribution = Independent(Categorical(logits=torch.randn(3, 4, requires_grad=True)), 1)
    log_prob = distribution.log_prob(torch.tensor([0, 3, 1]))
    torch.testing.assert_close(likelihood(3, log_prob), log_prob.expand(3))


def test_an_ordinary_random_number_counts_for_nothing_even_if_impossible() -> None:
    evaluation = Evaluation(torch.tensor(2.0), None, None, (torch.tensor(-torch.inf),))
    assert float(surrogate([evaluation])) == 2.0


def test_draws_must_hold_the_same_examples() -> None:
    draws = [Evaluation(torch.zeros(()), None, torch.zeros(n)) for n in (2, 3)]
    with pytest.raises(ProblemError, match=r"as many examples in every draw, got 2 and 3.*a loss of zero"):
        surrogate(draws, "loo")


@pytest.mark.parametrize("broken", [-torch.inf, torch.nan])
def test_an_impossible_choice_is_refused(broken: float) -> None:
    evaluation = Evaluation(torch.zeros(()), None, None, (torch.tensor(broken, requires_grad=True),))
    with pytest.raises(ProblemError, match="probability zero or a log-probability that is not a number"):
        surrogate([evaluation])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "reinforce: samples must be a whole number of at least 1, got 0"),
        ({"samples": 1.5}, "reinforce: samples must be a whole number of at least 1, got 1.5"),
        ({"baseline": "lo"}, "reinforce: unknown baseline 'lo'; did you mean 'loo'"),
        ({"decay": 1.0}, "reinforce: decay must be at least 0 and below 1, got 1.0"),
        ({"decay": "slow"}, "reinforce: decay must be at least 0 and below 1, got 'slow'"),
        ({"inverse": Darts()}, "reinforce: inverse must be a method that solves with the Hessian.*got darts"),
        ({"inverse": "sama"}, "reinforce: inverse must be a method that solves"),
        ({"inverse": "reinforce"}, "reinforce: inverse must be a method that solves"),
        ({"inverse": 3}, "reinforce: inverse must be a method that solves.*got 3"),
        ({"inverse": "cgg"}, "unknown method 'cgg'; did you mean 'cg'"),
        ({"inverse": {"iterations": 3}}, "reinforce: inverse must be a mapping with the method's `name`"),
        ({"inverse": {"name": "cg", "iteration": 3}}, "did you mean 'iterations'"),
        ({"samples": 2, "inverse": {"name": "cg", "curvature": "ggn"}}, "curvature='ggn' takes samples=1, got 2"),
    ],
)
def test_refused_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Reinforce(**options)


def test_the_spellings_of_the_inverse() -> None:
    assert Reinforce().inverse == Identity()
    assert Reinforce(inverse="cg").inverse == CG()  # type: ignore[arg-type]
    assert Reinforce(inverse={"name": "cg", "iterations": 5}) == Reinforce(inverse=CG(iterations=5))  # type: ignore[arg-type]
    assert str(Reinforce(samples=4, inverse=CG(iterations=5))) == "reinforce(samples=4, inverse=cg(iterations=5))"
    assert str(Reinforce()) == "reinforce"


def test_a_plain_function_cannot_be_sampled() -> None:
    weight = torch.ones(2, requires_grad=True)
    response = best_response(lambda w, lam: (w * lam).square().sum(), torch.ones(2), weight, method=Reinforce())
    with pytest.raises(ProblemError, match=r"only problems that call self\.sample"):
        response.sum().backward()


def noisy(problem: Given, batch: Any) -> Tensor:
    keep = problem.sample(Bernoulli(logits=problem.upper()))
    return (keep * problem.module()).sum()


@pytest.mark.parametrize("method", [Reinforce(samples=3, baseline="none"), "identity"])
def test_the_function_uses_the_options_of_the_problem_and_the_defaults_elsewhere(method: Any) -> None:
    """- <v, grad L> grad log pi: the mean over draws of - (a . v) (a - sigmoid(phi))."""
    engine = pair(noisy, lambda p, b: p.lower().sum(), method=method, modules=(Vector(1.0, -2.0), Vector(0.3, -0.4)))
    lower, upper = engine["lower"], engine["upper"]
    vector = (torch.tensor([2.0, -1.0]),)
    lower.level.next_moment()
    samples = 3 if isinstance(method, Reinforce) else 1
    kept = sampled(lower, samples)
    (got,) = reinforce(vector, lower, upper)
    score = [-(a @ vector[0]) * (a - upper.module.value.sigmoid()) for a in kept]
    torch.testing.assert_close(got, torch.stack(score).mean(0).detach())
    assert reinforce(vector, lower, [upper], sync=True) is None
    torch.testing.assert_close(upper.module.value.grad, got)
    with pytest.raises(ConfigError, match="vector must hold one tensor per trainable parameter"):
        reinforce((torch.zeros(3),), lower, upper)


def sampled(problem: Given, number: int) -> Sequence[Tensor]:
    """What each draw samples."""
    found: list[Tensor] = []
    original = problem.sample
    problem.sample = lambda d, **k: found.append(original(d, **k)) or found[-1]  # type: ignore[method-assign, func-returns-value]
    for draw in range(number):
        problem.level.evaluate({}, draw=draw)
    problem.sample = original  # type: ignore[method-assign]
    return found
