"""The engine's loop: runs, validation, callbacks, state, and what it says when something goes wrong."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multilevel import Callback, Config, ConfigError, Engine, EngineConfig, Problem

from ..conftest import CLOSED_FORM
from ..givens import Given, Vector, alone, assert_same, bits, pair, square


class Log(Callback):
    """Writes every event down, under a name."""

    def __init__(self, name: str, events: list[str]) -> None:
        self.name, self.events = name, events

    def on_run_start(self, engine: Engine) -> None:
        self.events.append(f"{self.name}: start at {engine.step_count}")

    def on_level_step(self, engine: Engine, problem: Problem, metrics: Mapping[str, Tensor]) -> None:
        assert not metrics["loss"].requires_grad
        self.events.append(f"{self.name}: {problem.name} {problem.count}")

    def on_step_end(self, engine: Engine) -> None:
        self.events.append(f"{self.name}: end of {engine.step_count}")

    def on_validation(self, engine: Engine, metrics: Mapping[str, Any]) -> None:
        self.events.append(f"{self.name}: validation {dict(metrics)}")

    def on_run_end(self, engine: Engine) -> None:
        self.events.append(f"{self.name}: done")

    def on_exception(self, engine: Engine, error: BaseException) -> None:
        self.events.append(f"{self.name}: {type(error).__name__}")


def following(problem: Given, batch: Any) -> Tensor:
    return (problem.module() - problem.upper()).square().sum() / 2


def wanting_one(problem: Given, batch: Any) -> Tensor:
    return (problem.lower() - 1).square().sum() / 2


class Validated(Engine):
    seen: Any = None

    def validation(self) -> Any:
        modules = [part.training for problem in self.problems.values() for part in problem.module.modules()]
        self.seen = (torch.is_grad_enabled(), any(modules))
        return {"step": self.step_count}


def test_callbacks_in_order() -> None:
    events: list[str] = []
    problems = [Given("lower", following, config=Config(unroll_steps=2)), Given("upper", wanting_one)]
    callbacks = [Log("a", events), Log("b", events)]
    config = EngineConfig(train_iters=3, valid_step=2)
    Validated(problems, edges=[("upper", "lower")], config=config, callbacks=callbacks).run()
    a = [
        "start at 0",
        *("lower 1", "end of 1"),
        *("lower 2", "upper 1", "end of 2", "validation {'step': 2}"),
        *("lower 3", "end of 3", "validation {'step': 3}"),
        "done",
    ]
    assert events == [f"{name}: {event}" for event in a for name in "ab"]


@pytest.mark.parametrize(
    ("valid_step", "validated"), [(0, []), (1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (5, [5]), (9, [5])]
)
def test_validation_is_due_every_so_often_and_at_the_end(valid_step: int, validated: list[int]) -> None:
    events: list[str] = []
    config = EngineConfig(train_iters=5, valid_step=valid_step)
    Validated([Given("p", square)], config=config, callbacks=[Log("a", events)]).run()
    assert [e for e in events if "validation" in e] == [f"a: validation {{'step': {i}}}" for i in validated]


@pytest.mark.parametrize("fails", [False, True])
def test_validation_is_without_gradients_in_evaluation_mode_and_puts_modes_back(fails: bool) -> None:
    module = nn.Sequential(Vector(1.0), nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2)))
    module[2].eval()  # frozen on purpose

    class Failing(Validated):
        def validation(self) -> Any:
            result = super().validation()
            if fails:
                raise ZeroDivisionError
            return result

    problem = Given("p", lambda p, b: p.module[0]().sum(), module)
    engine = Failing([problem], config=EngineConfig(train_iters=1, valid_step=1))
    before = [part.training for part in module.modules()]
    if fails:
        with pytest.raises(ZeroDivisionError):
            engine.run()
    else:
        engine.run()
    assert engine.seen == (False, False)
    assert [part.training for part in module.modules()] == before
    assert before == [True, True, True, False, False]


def test_a_run_starts_in_training_mode() -> None:
    problem = Given("p", square, nn.Sequential(Vector(1.0)))
    problem.loss = lambda p, b: p.module[0]().sum()
    problem.module.eval()
    alone(problem, train_iters=1).run()
    assert all(part.training for part in problem.module.modules())


def test_validation_without_metrics_is_silent() -> None:
    events: list[str] = []
    Engine([Given("p", square)], config=EngineConfig(train_iters=2, valid_step=1), callbacks=[Log("a", events)]).run()
    assert not any("validation" in event for event in events)


def test_run_goes_on_from_where_it_is() -> None:
    engine = pair(following, wanting_one, engine=EngineConfig(train_iters=5))
    engine.step()
    engine.step()
    engine.run()
    assert (engine.step_count, engine["lower"].count) == (5, 5)
    engine.run()
    assert engine.step_count == 5


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_exceptions_reach_the_callbacks_and_the_caller(error: type[BaseException]) -> None:
    def loss(problem: Given, batch: Any) -> Tensor:
        if problem.count == 2:
            raise error
        return square(problem, batch)

    events: list[str] = []
    engine = Engine([Given("p", loss)], callbacks=[Log("a", events)])
    with pytest.raises(error):
        engine.run()
    assert events[-2:] == ["a: end of 2", f"a: {error.__name__}"]


def test_every_problem_finds_the_environment() -> None:
    env = object()
    engine = Engine([Given("low", square), Given("up", lambda p, b: p.low().sum())], edges=[("up", "low")], env=env)
    assert all(problem.env is env for problem in engine.problems.values())


def training(steps: int = 3, **config: Any) -> Engine:
    """Momentum, Adam, a scheduler, accumulation and a method with a memory."""
    low, up = Vector(2.0, -1.0), Vector(0.5, 0.5)
    optimizer = torch.optim.SGD(low.parameters(), lr=0.1, momentum=0.9)
    problems = [
        Given(
            "lower",
            lambda p, b: torch.cosh(p.module() - p.upper()).sum(),
            low,
            optimizer=optimizer,
            scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5),
            config=Config(type={"name": "cg", "warm_start": True}, unroll_steps=2, gradient_accumulation=2),
        ),
        Given("upper", wanting_one, up, optimizer=torch.optim.Adam(up.parameters(), lr=0.1)),
    ]
    return Engine(problems, edges=[("upper", "lower")], config=EngineConfig(train_iters=12, **config))


@pytest.mark.parametrize("stop", range(0, 12, 3))
def test_a_run_that_is_taken_up_again_ends_in_the_same_place(stop: int) -> None:
    whole, first, second = training(), training(), training()
    whole.run()
    for _ in range(stop):
        first.step()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.run()
    assert second.step_count == 12
    assert_same(bits(second), bits(whole))


def test_the_state_of_other_problems_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"that of problems \['p'\], this engine has \['lower', 'upper'\]"):
        training().load_state_dict(alone(Given("p", square)).state_dict())


@pytest.mark.parametrize("method", ["darts", "cg", "neumann", "identity", "exact"])
def test_an_upper_loss_may_read_its_own_parameters(method: str) -> None:
    """(z - 1)^2 / 2 + x^2 / 2 with z* = x: the total derivative at z = 1, x = 1 is 0 + 1."""
    engine = pair(
        following,
        lambda p, b: wanting_one(p, b) + p.module().square().sum() / 2,
        method=method,
        modules=(Vector(3.0), Vector(1.0)),
    )
    (got,) = engine.hypergradient("upper")
    torch.testing.assert_close(got, torch.tensor([3.0]), rtol=1e-9, atol=CLOSED_FORM)
    engine.step()
