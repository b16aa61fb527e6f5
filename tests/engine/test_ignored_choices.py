"""A warning where a gradient would ignore what choices depend on, and none where that is meant or taken care of."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli

from multilevel import Config, Engine, NumericsWarning
from multilevel.hypergrad.identity import Identity
from multilevel.hypergrad.reinforce import Reinforce

from ..givens import Given, Vector, chain, pair

SCORE = Config(estimator="score")


def sampling_from(logits: Callable[[Any], Tensor]) -> Any:
    def step(problem: Given, batch: Any) -> Any:
        keep = problem.sample(Bernoulli(logits=logits(problem)))
        return {"losses": (keep + 0.1) * (problem.module() - 2).square()}

    return step


def read(problem: Given, batch: Any) -> Tensor:
    return sum(((lower() - 1).square().sum() for lower in problem.lowers), problem.module().square().sum())


def of_upper(problem: Given) -> Tensor:
    return problem.upper()


def of_itself(problem: Given) -> Tensor:
    return problem.module()


@pytest.mark.parametrize("method", ["identity", "darts", "cg", "unroll"])
@pytest.mark.parametrize("trains", [True, False])
def test_an_upper_that_decides_what_is_sampled(method: str, trains: bool) -> None:
    engine = pair(sampling_from(of_upper), read, method=method)
    with pytest.warns(NumericsWarning, match=f"'lower': what it samples depends on the parameters of 'upper', and "
                      f"'{method}', which differentiates.*reinforce.*no_grad") as caught:  # fmt: skip
        engine.step() if trains or method == "unroll" else engine.hypergradient("upper")
    assert len(caught) == 1
    engine.step()  # a second warning would be an error


def test_a_problem_that_decides_what_it_samples_itself() -> None:
    engine = Engine([Given("p", sampling_from(of_itself))])
    with pytest.warns(NumericsWarning, match=r"'p': what it samples depends on the parameters of 'p', and its own "
                      r"gradient ignores that: set Config\(estimator='score'\)") as caught:  # fmt: skip
        engine.step()
    assert len(caught) == 1


def test_reinforce_does_not_see_to_the_problems_own_gradient() -> None:
    engine = pair(sampling_from(lambda p: p.upper() + p.module()), read, method="reinforce")
    with pytest.warns(NumericsWarning, match="'lower': .* of 'lower', and its own gradient"):
        engine.step()


def test_an_upper_that_samples_as_its_lower_says() -> None:
    engine = pair(
        lambda p, b: (p.module() - p.upper()).square().sum(), sampling_from(lambda p: p.lower() * p.module().exp())
    )
    with pytest.warns(NumericsWarning, match="'upper': .* of 'upper' and 'lower', and its own gradient"):
        engine.step()


def three(bottom: Any, config: Config, edges: list[tuple[str, str]]) -> Engine:
    problems = [
        Given("top", read, Vector(0.2)),
        Given("middle", lambda p, b: (p.module() - p.top()).square().sum() + read(p, b), Vector(0.4)),
        Given("bottom", bottom, Vector(0.6), config=config),
    ]
    return Engine(problems, edges=edges)


def test_further_up() -> None:
    """The top's derivative goes through the middle, which decides what the bottom samples."""
    engine = three(sampling_from(lambda p: p.middle()), Config(), chain("top", "middle", "bottom"))
    with pytest.warns(NumericsWarning, match="'bottom': .* of 'middle', and 'darts'"):
        engine.step()


@dataclass(frozen=True)
class Careful(Identity):
    """A method of the user's own that sees to the choices."""

    differentiates_choices: ClassVar[bool] = True


def no_grad(logits: Callable[[Any], Tensor]) -> Any:
    def step(problem: Given, batch: Any) -> Any:
        with torch.no_grad():
            keep = problem.sample(Bernoulli(logits=logits(problem)))
        return {"losses": (keep + 0.1) * (problem.module() - 2).square()}

    return step


def frozen_upper() -> Engine:
    """The part of the upper that enters the distribution is not trained."""
    upper = Vector(0.5)
    upper.bias = torch.nn.Parameter(torch.tensor(0.1), requires_grad=False)
    return pair(sampling_from(lambda p: p.upper.module.bias.expand(1)), read, modules=(None, upper))


@pytest.mark.parametrize(
    "make",
    [
        lambda: pair(sampling_from(of_upper), read, method="reinforce"),
        lambda: pair(sampling_from(of_upper), read, method=Reinforce(samples=3)),
        lambda: pair(sampling_from(of_upper), read, method=Careful()),
        lambda: pair(sampling_from(lambda p: p.upper().detach()), read),
        lambda: pair(no_grad(of_upper), read),
        lambda: pair(sampling_from(lambda p: torch.zeros(1)), read),
        frozen_upper,
        lambda: Engine([Given("p", sampling_from(of_itself), config=SCORE)]),
        lambda: Engine([Given("p", no_grad(of_itself))]),
        lambda: three(sampling_from(lambda p: p.middle() * p.module()), SCORE, chain("top", "middle", "bottom")),
        # The upper samples, and reads what decides it as it is: the lower does not respond to it.
        lambda: Engine(
            [
                Given("upper", sampling_from(lambda p: p.lower())),
                Given("lower", lambda p, b: p.module().square().sum()),
            ],
            {"l2u": {"lower": ["upper"]}},
        ),
    ],
    ids=range(11),
)
def test_no_warning_where_nothing_is_ignored(make: Callable[[], Engine]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "problem 'lower': its loss depends on no parameter")
        engine = make()
        for name in engine.problems:
            engine.hypergradient(name)
        for _ in range(2):
            engine.step()
