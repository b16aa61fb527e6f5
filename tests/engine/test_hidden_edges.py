"""What a loss depends on without an edge is said once, and what has an edge or is detached is not mentioned."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from multilevel import Config, Engine, EngineConfig, NumericsWarning

from ..givens import Given

Read = Callable[[Given], Tensor]
TO_LOWER = {"u2l": {"upper": ["lower"]}, "l2u": {"lower": ["upper"]}}


def fit(read: Read) -> Callable[[Given, Any], Tensor]:
    """A loss of the problem's own parameters and of what else it reads."""
    return lambda problem, batch: (problem.module() - read(problem)).square().sum()


def engine(lower: Read, upper: Read, edges: dict[str, Any] = TO_LOWER, **config: Any) -> Engine:
    """Two problems, and a third between the upper and nothing."""
    method = Config(**config)
    problems = [
        Given("upper", fit(upper)),
        Given("lower", fit(lower), config=method),
        Given("third", fit(lambda problem: problem.upper())),
    ]
    third = {"u2l": {"upper": ["third"]}, "l2u": {"third": ["upper"]}}
    joined = {kind: _merged(edges.get(kind, {}), third[kind]) for kind in ("u2l", "l2u")}
    return Engine(problems, dependencies=joined, config=EngineConfig(train_iters=3))


def _merged(one: dict[str, list[str]], other: dict[str, list[str]]) -> dict[str, list[str]]:
    return {key: [*one.get(key, []), *other.get(key, [])] for key in {**one, **other}}


def both(problem: Given) -> Tensor:
    return problem.lower() + problem.third()


def past_a_neighbour(problem: Given) -> Tensor:
    return problem.upper() + problem.upper.third()


def hidden(lower: str, other: str) -> str:
    return re.escape(f"problem '{lower}': its loss depends on parameters of '{other}', and no edge says so")


@pytest.mark.parametrize("method", ["darts", "cg", "unroll"])
def test_a_third_problem_past_a_neighbour(method: str) -> None:
    run = engine(past_a_neighbour, both, type=method)
    with pytest.warns(NumericsWarning, match=hidden("lower", "third")) as caught:
        run.run()
    assert len(caught) == 1


def test_a_lower_that_reads_an_upper_that_does_not_constrain_it() -> None:
    """The other lower leads to it: the engine would take the lower's solution for one that does not move."""
    run = engine(lambda problem: problem.upper(), both, {"l2u": {"lower": ["upper"]}})
    with pytest.warns(NumericsWarning, match=hidden("lower", "upper")):
        run.step()


def chain() -> Engine:
    """The top reads the bottom as well."""
    problems = [
        Given("top", fit(lambda problem: problem.middle() + problem.middle.bottom())),
        Given("middle", fit(lambda problem: problem.top() + problem.bottom())),
        Given("bottom", fit(lambda problem: problem.middle())),
    ]
    return Engine(problems, edges=[("top", "middle"), ("middle", "bottom")])


def test_an_upper_that_reads_the_lower_of_its_lower() -> None:
    run = chain()
    with pytest.warns(NumericsWarning, match=hidden("top", "bottom")):
        run.step()


def test_a_hypergradient_alone_says_it_too() -> None:
    run = chain()
    with pytest.warns(NumericsWarning, match=hidden("top", "bottom")):
        run.hypergradient("top")


def test_what_is_declared_or_detached_is_nobodys_mistake() -> None:
    def detached(problem: Given) -> Tensor:
        return problem.upper() + problem.upper.third().detach()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine(detached, both).run()


@pytest.mark.parametrize("read", [torch.Tensor.detach, torch.Tensor.item], ids=["detached", "a number"])
def test_an_edge_that_the_loss_does_not_know(read: Callable[[Tensor], Any]) -> None:
    run = engine(lambda problem: read(problem.upper()), both)
    words = "problem 'lower': its loss depends on no parameter of 'upper', though an edge says so"
    with pytest.warns(NumericsWarning, match=words) as caught:
        run.run()
    assert len(caught) == 1


def test_a_graph_that_is_very_deep() -> None:
    """Python may not touch all of it: freeing it would end the process."""

    def deep(problem: Given) -> Tensor:
        value = problem.upper()
        for _ in range(100_000):
            value = value * 1.0
        return value

    engine(deep, both).step()


def test_an_audit_does_not_say_it_again() -> None:
    run = engine(past_a_neighbour, both)
    with pytest.warns(NumericsWarning, match=hidden("lower", "third")):
        run.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.audit("upper", "darts")
