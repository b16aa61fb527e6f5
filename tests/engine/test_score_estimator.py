"""estimator="score": a problem's own gradient by the score function, over all outcomes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical

from multilevel import Config, Engine, Method, ProblemError
from multilevel.hypergrad.cg import CG
from multilevel.hypergrad.exact import Exact
from multilevel.hypergrad.identity import Identity
from multilevel.hypergrad.reinforce import Reinforce

from ..conftest import CLOSED_FORM
from ..givens import Given, Vector, alone, chain
from ..oracles import Formula, Inverse, Values
from ..sampled import Chance, engine_of, mean_hypergradient, oracle_of

IDENTITY = Inverse(lambda hessian: torch.eye(len(hessian)))
SCORE = {"estimator": "score"}


def fixed(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def check(chances: dict[str, Chance], inverses: dict[str, Inverse], name: str = "up") -> Tensor:
    edges = (("up", "low"),) if "low" in chances else ()
    values = {n: c.value for n, c in chances.items()}
    expected = Formula(oracle_of(chances, edges), values, inverses).gradient(name, values)
    got = mean_hypergradient(engine_of(chances, edges), name)
    torch.testing.assert_close(got, expected, rtol=CLOSED_FORM, atol=CLOSED_FORM)
    assert expected.norm() > 1e-2
    return expected


@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("kinds", [0, 3])
@pytest.mark.parametrize("differentiable", [False, True])
def test_a_policy_alone(per_example: bool, kinds: int, differentiable: bool) -> None:
    """A bandit: payoffs that cannot be differentiated, and others that depend on the parameters as well."""
    count = 4
    payoff, strength = fixed(count, seed=1), torch.linspace(-1, 2, kinds) if kinds else torch.ones(1)

    def loss(v: Values, outcome: Tensor) -> Tensor:
        chosen = outcome @ strength if kinds else outcome
        losses = payoff * chosen + (0.0 if per_example else 0.4 * chosen.prod())
        losses = losses + v["up"].sin().sum() * chosen if differentiable else losses
        return losses if per_example else losses.mean()

    def logits(v: Values) -> Tensor:
        flat = torch.linspace(-1, 1, count * max(kinds, 1)) * v["up"][0] + v["up"][1]
        return flat.reshape(count, kinds).cos() if kinds else flat

    returns = ("losses" if per_example else "loss") if differentiable else "reward"
    check({"up": Chance(fixed(2, seed=2), loss, logits, returns, SCORE)}, {})


@pytest.mark.parametrize("returns", ["reward", "losses", "loss"])
@pytest.mark.parametrize(
    ("low", "inverses"),
    [
        (Identity(), {"low": IDENTITY}),
        (CG(iterations=2), {}),
        (Reinforce(), {"low": IDENTITY}),
        (Reinforce(samples=2, inverse=Exact()), {}),
    ],
    ids=str,
)
def test_an_upper_that_samples_above_a_lower(returns: str, low: Method, inverses: dict[str, Inverse]) -> None:
    """Choices above depend on the lower's solution: the score function goes down to it as well."""
    M, U, V = torch.tensor([[1.5, 0.3], [0.3, 1.1]]), fixed(2, 2, seed=3), fixed(2, 2, seed=4)
    samples = isinstance(low, Reinforce)

    def low_loss(v: Values, outcome: Tensor) -> Tensor:
        z, x = v["low"], v["up"]
        chosen = outcome if samples else torch.sigmoid(V @ x)
        return z @ M @ z / 2 - z @ x.sin() + chosen * (U @ z)

    def up_loss(v: Values, outcome: Tensor) -> Tensor:
        z = v["low"].detach() if returns == "reward" else v["low"]
        return (outcome - torch.tensor([0.3, 0.8])).square() * torch.tensor([1.0, 2.0]) + outcome * z.square()

    chances = {
        "up": Chance(torch.tensor([0.6, -0.4]), up_loss, lambda v: U @ v["up"] + V @ v["low"], returns, SCORE),
        "low": Chance(fixed(2, seed=5), low_loss, (lambda v: V @ v["up"]) if samples else None, config={"type": low}),
    }
    total = check(chances, inverses)
    values = {n: c.value for n, c in chances.items()}
    direct = torch.func.jacrev(chances["up"].expected)(values)["up"]
    assert (total - direct).norm() > 1e-2  # the lower's share


def policy(problem: Given, batch: Any) -> Categorical:
    return Categorical(logits=problem.module().reshape(2, 2))


@pytest.mark.parametrize(
    "kind", [list, np.array, torch.tensor, lambda r: torch.tensor(r).int(), lambda r: torch.tensor(r) > 0], ids=range(5)
)
def test_rewards_of_any_kind_of_number(kind: Any) -> None:
    def step(problem: Given, batch: Any) -> Any:
        actions = problem.sample(policy(problem, batch))
        return {"reward": kind((2.0 * actions).tolist()), "first": actions[0]}

    engine = alone(Given("p", step, Vector(0.1, 0.4, -0.2, 0.3), config=Config(estimator="score"), lr=1.0))
    before = engine["p"].module.value.detach().clone()
    engine.step()
    shown = engine.last_metrics["p"]
    assert shown["reward"] == -shown["loss"]
    assert "first" in shown
    logits = before.reshape(2, 2).requires_grad_()
    actions = torch.tensor([int(shown["first"]), 0])
    moved = (engine["p"].module.value.detach() - before).reshape(2, 2)[0]
    reward = float(torch.as_tensor(kind([2.0 * int(shown["first"]), 0.0]))[0])
    score = torch.autograd.grad(Categorical(logits=logits).log_prob(actions)[0], logits)[0][0]
    torch.testing.assert_close(moved, reward * score / 2)  # uphill


def test_a_policy_learns() -> None:
    def step(problem: Given, batch: Any) -> Any:
        actions = problem.sample(Categorical(logits=problem.module().expand(32, 2)))
        return {"reward": (actions == 1)}

    engine = alone(Given("p", step, Vector(0.0, 0.0), config=Config(estimator="score"), lr=0.5))
    for _ in range(40):
        engine.step()
    assert torch.softmax(engine["p"].module.value, 0)[1] > 0.9


@pytest.mark.parametrize("given", [{"reward": torch.tensor(1.0)}, {"reward": [1.0, 0.0]}, {"reward": 3}])
@pytest.mark.parametrize("samples", [False, True])
def test_a_reward_without_the_score_estimator_is_refused(given: Any, samples: bool) -> None:
    def step(problem: Given, batch: Any) -> Any:
        if samples:
            problem.sample(Bernoulli(logits=problem.module()))
        return given

    engine = alone(Given("p", step))
    for act in (engine.step, lambda: engine.hypergradient("p")):
        with pytest.raises(ProblemError, match=r"'p': its reward cannot be differentiated.*estimator='score'"):
            act()


def test_a_loss_that_only_its_choices_could_differentiate_is_refused() -> None:
    def step(problem: Given, batch: Any) -> Tensor:
        return problem.sample(Bernoulli(logits=problem.module())).sum()

    with pytest.raises(ProblemError, match=r"'p': its loss cannot be differentiated.*estimator='score'"):
        alone(Given("p", step)).step()


@pytest.mark.parametrize("detached", [False, True])
def test_the_score_estimator_needs_choices(detached: bool) -> None:
    def step(problem: Given, batch: Any) -> Tensor:
        if detached:
            problem.sample(Bernoulli(logits=problem.module().detach()))
        return problem.module().sum()

    with pytest.raises(ProblemError, match="'p': estimator='score' needs choices whose distribution depends on"):
        alone(Given("p", step, config=Config(estimator="score"))).step()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"reward": torch.zeros(2, 2)}, r"'reward' must hold one number per example.*\(2, 2\)"),
        ({"reward": torch.zeros(0)}, "'reward' must hold one number per example"),
        ({"losses": torch.zeros(())}, r"'losses' must hold one number per example, of shape \(batch,\)"),
        ({"loss": torch.zeros(()), "reward": 1.0}, "returned 'loss' and 'reward'; give one of them"),
        ({"reward": "much"}, "'reward' must be a tensor or a number, got str"),
        ({"accuracy": 1.0}, "without 'loss'.*one of 'loss', 'losses' .* and 'reward'"),
    ],
)
def test_results_that_cannot_be_read(given: Any, message: str) -> None:
    def step(problem: Given, batch: Any) -> Any:
        problem.sample(Bernoulli(logits=problem.module()))
        return given

    with pytest.raises(ProblemError, match=message):
        alone(Given("p", step, config=Config(estimator="score"))).step()


def test_a_middle_level_that_scores_below_finite_differences() -> None:
    """It is evaluated without gradients on the way, which must not look like a missing dependence."""

    def bottom(problem: Given, batch: Any) -> Tensor:
        return (problem.module() - problem.middle()).square().sum()

    def middle(problem: Given, batch: Any) -> Any:
        kept = problem.sample(Bernoulli(logits=problem.module()))
        return {"losses": kept * (problem.module() - problem.top()).square() + problem.bottom().square()}

    top = Given("top", lambda p, b: (p.middle() - 1).square().sum(), Vector(0.5))
    problems = [top, Given("middle", middle, config=Config(estimator="score")), Given("bottom", bottom)]
    engine = Engine(problems, edges=chain("top", "middle", "bottom"))
    engine.step()
    assert torch.isfinite(engine.hypergradient("top")[0]).all()
