"""Names, and problems that read each other by them over declared edges only."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from torch import Tensor

from multilevel import Config, ConfigError, Engine, Problem

from ..givens import Given, alone, square


class Bare(Problem):
    def training_step(self, batch: Any) -> Tensor:
        return self.module().sum()


@pytest.mark.parametrize("name", ["two words", "1st", "", "class", "a.b", 3, None])
def test_a_name_is_an_identifier(name: Any) -> None:
    with pytest.raises(ConfigError, match="must be a Python identifier"):
        Bare(name)


@pytest.mark.parametrize(
    "name", ["forward", "training_step", "parameters", "uppers", "level", "bind", "device", "__class__"]
)
def test_a_name_that_every_problem_has_is_refused(name: str) -> None:
    with pytest.raises(
        ConfigError, match=f"problem '{name}': an attribute of Bare has that name already and would hide it"
    ):
        Bare(name)


@pytest.mark.parametrize("name", ["module", "optimizer", "config", "name", "env", "count", "helper"])
def test_a_name_that_hides_an_attribute_of_a_neighbour_is_refused(name: str) -> None:
    lower = Given("lower", square)
    lower.helper = "the user's own"
    with pytest.raises(ConfigError, match=f"problem '{name}': an attribute of problem 'lower' .*choose another name"):
        Engine([Given(name, square), lower], edges=[(name, "lower")])
    assert lower.helper == "the user's own"


def three() -> Engine:
    """top above mid above low; no edge joins top and low."""
    reading: dict[str, Any] = {
        "top": lambda p, b: (p.mid() - 1).square().sum(),
        "mid": lambda p, b: (p.module() - p.top()).square().sum() + (p.low() - 1).square().sum(),
        "low": lambda p, b: (p.module() - p.mid()).square().sum(),
    }
    problems = [Given(name, loss, config=Config(type="cg")) for name, loss in reading.items()]
    return Engine(problems, edges=[("top", "mid"), ("mid", "low")])


def test_neighbours_are_read_by_name_over_edges_only() -> None:
    engine = three()
    top, mid, low = (engine[n] for n in ("top", "mid", "low"))
    assert (mid.top, mid.low, low.mid) == (top, low, mid)
    assert (mid.uppers, mid.lowers, top.uppers, low.lowers) == ((top,), (low,), (), ())
    assert hasattr(top, "mid")
    assert not hasattr(top, "low")
    with pytest.raises(
        AttributeError, match=r"problem 'top' \(Given\) has no attribute 'low', and no edge.*neighbours: mid"
    ):
        top.low()
    with pytest.raises(AttributeError, match=r"has no attribute 'mdi'.*did you mean 'mid'"):
        top.mdi()


def test_nothing_is_written_on_a_problem_for_its_neighbours() -> None:
    before = set(vars(Given("p", square)))
    engine = three()
    engine.step()
    for problem in engine.problems.values():
        assert set(vars(problem)) == before
        assert not any(value is other for value in vars(problem).values() for other in engine.problems.values())


def test_a_problem_may_be_copied_before_it_is_bound() -> None:
    problem = copy.deepcopy(Given("p", square))
    alone(problem, train_iters=1).run()
    assert problem.count == 1


class Early(Bare):
    def __init__(self) -> None:
        self.helper()
        super().__init__("p")


def test_an_attribute_missing_before_init() -> None:
    with pytest.raises(AttributeError, match="no attribute 'helper'"):
        Early()
