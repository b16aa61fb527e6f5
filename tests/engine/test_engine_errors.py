"""What the engine says when a run goes wrong, or could not go right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from multilevel import (
    CG,
    Callback,
    Config,
    ConfigError,
    EarlyStopping,
    Engine,
    EngineConfig,
    GraphError,
    NonFiniteError,
    ProblemError,
)

from ..givens import Given, Vector, alone, chain, flat_state, pair, square


def following(problem: Given, batch: Any) -> Tensor:
    return (problem.module() - problem.upper()).square().sum() / 2


def wanting_one(problem: Given, batch: Any) -> Tensor:
    return (problem.lower() - 1).square().sum() / 2


def broken(where: str, method: Any = CG(iterations=2), **config: Any) -> Engine:  # noqa: B008
    """An engine whose loss at one level is not a number from its second step on."""

    def spoil(problem: Given, loss: Tensor) -> Tensor:
        return loss * float("nan") if problem.name == where and engine.step_count >= 1 else loss

    engine = pair(
        lambda p, b: spoil(p, following(p, b)),
        lambda p, b: spoil(p, wanting_one(p, b)),
        method=method,
        engine=EngineConfig(**config),
    )
    return engine


@pytest.mark.parametrize(
    ("where", "config", "at", "message"),
    [
        (
            "lower",
            {"log_step": 1},
            1,
            "problem 'lower': loss nan, norm of its gradient nan; the loss itself is not finite. Lower",
        ),
        (
            "upper",
            {"log_step": 1},
            1,
            "problem 'upper': loss nan.*total, through upper -> lower by .*cg.*damp the method",
        ),
        ("lower", {"log_step": 4}, 3, "problem 'lower': loss nan"),
        ("lower", {"log_step": 100, "train_iters": 5}, 4, "problem 'lower': loss nan"),
    ],
)
def test_what_is_not_finite_is_named(where: str, config: dict[str, Any], at: int, message: str) -> None:
    engine = broken(where, **config)
    with pytest.raises(NonFiniteError, match=message):
        engine.run()
    assert engine.step_count == at


def test_an_upper_that_steps_seldom_is_checked_too() -> None:
    """It is checked at its first step after each ``log_step``, not only where the two coincide."""
    engine = pair(
        lambda p, b: (p.module() - 1).square().sum() + 0 * p.upper().nan_to_num().sum(),
        lambda p, b: wanting_one(p, b) * float("nan"),
        steps=3,
        engine=EngineConfig(log_step=2, train_iters=100),
    )
    with pytest.raises(NonFiniteError, match="problem 'upper': loss nan"):
        engine.run()
    assert engine.step_count == 2


def test_a_hypergradient_that_is_not_finite_is_named() -> None:
    engine = pair(
        lambda p, b: (p.module() * p.upper().sqrt()).sum(),
        lambda p, b: p.lower().sum() + p.module().sum(),
        method="identity",
        modules=(Vector(1.0), Vector(0.0)),
        engine=EngineConfig(log_step=1),
    )
    with pytest.raises(NonFiniteError, match=r"'upper': loss 1, norm.*(inf|nan).*upper -> lower by identity"):
        engine.step()


@pytest.mark.parametrize(
    ("loss", "edges", "message"),
    [
        # The solution of the lower enters, but nothing that the upper does moves it.
        (wanting_one, {"l2u": {"lower": ["upper"]}}, "neither on its own parameters nor on the solution.*lowers: none"),
        (
            lambda p, b: p.lower().detach().sum(),
            {"u2l": {"upper": ["lower"]}, "l2u": {"lower": ["upper"]}},
            "does not depend on any",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*depends on no parameter of:multilevel.NumericsWarning")
def test_an_upper_that_cannot_learn_is_refused(loss: Any, edges: Any, message: str) -> None:
    engine = Engine([Given("lower", square), Given("upper", loss)], edges)
    with pytest.raises(ProblemError, match=f"problem 'upper': its loss .*{message}"):
        engine.step()


def test_an_upper_may_learn_from_a_lower_that_it_does_not_constrain() -> None:
    engine = Engine(
        [Given("lower", square), Given("upper", lambda p, b: (p.module() - p.lower()).square().sum())],
        {"l2u": {"lower": ["upper"]}},
    )
    before = flat_state(engine)
    engine.step()
    assert engine["upper"].module() != before["upper.value"]


def test_device() -> None:
    engine = alone(Given("p", square), device="cpu")
    assert engine["p"].device == torch.device("cpu")
    automatic = alone(Given("p", square))
    assert automatic["p"].device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    automatic.step()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="device 'cuda:0': torch finds no CUDA device here; use 'auto' or 'cpu'"):
        alone(Given("p", square), device="cuda:0")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="needs a machine without MPS")
def test_a_device_that_this_torch_cannot_use() -> None:
    with pytest.raises(ConfigError, match=r"device 'mps': torch cannot use it here .*; use 'auto' or 'cpu'"):
        alone(Given("p", square), device="mps")


def test_an_optimizer_that_unroll_cannot_differentiate_is_refused_with_the_name_of_its_problem() -> None:
    module = Vector(2.0)
    optimizer = torch.optim.LBFGS(module.parameters())
    with pytest.raises(ConfigError, match="problem 'p': the update of the optimizer LBFGS cannot be differentiated"):
        alone(Given("p", square, module, optimizer=optimizer, config=Config(type="unroll")))


def test_all_callbacks_are_told_of_an_error_also_where_one_raises() -> None:
    told: list[str] = []

    class Faulty(Callback):
        def on_exception(self, engine: Engine, error: BaseException) -> None:
            told.append("first")
            raise OSError("the first cannot take it")

    class Second(Callback):
        def on_exception(self, engine: Engine, error: BaseException) -> None:
            told.append(f"second: {error}")

    def failing(problem: Given, batch: Any) -> Tensor:
        raise ValueError("mine")

    engine = Engine([Given("p", failing)], callbacks=[Faulty(), Second()])
    with pytest.raises(OSError, match="the first cannot take it") as raised:
        engine.run()
    assert told == ["first", "second: mine"]
    assert isinstance(raised.value.__context__, ValueError)  # what the run ended by is in the traceback


def test_config_must_be_an_engine_config() -> None:
    with pytest.raises(ConfigError, match="Engine: config must be an EngineConfig, got Config"):
        Engine([Given("p", square)], config=Config())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (print, "Callback objects, got builtin_function"),
        (EarlyStopping, r"objects, got the class; write EarlyStopping\(\)"),
    ],
    ids=["function", "class"],
)
@pytest.mark.parametrize("alone", [True, False])
def test_callbacks_must_be_callbacks(callback: Any, message: str, alone: bool) -> None:
    with pytest.raises(ConfigError, match=f"Engine: callbacks must be {message}"):
        Engine([Given("p", square)], callbacks=callback if alone else [callback])


def test_unrolling_a_middle_level_with_half_of_its_objective() -> None:
    def unrolled(response: Any) -> Engine:
        names = ("top", "mid", "low")
        problems = [Given(name, square, config=Config(type="unroll")) for name in names]
        return Engine(problems, edges=chain(*names), config=EngineConfig(response=response))

    with pytest.raises(
        ConfigError, match=r"problem 'mid': unroll .* through 'low', which response='direct' leaves out"
    ):
        unrolled("direct")
    unrolled("total")


@pytest.mark.parametrize("type", ["cg", "darts", "unroll"])
@pytest.mark.parametrize("whose", ["lower", "upper"])
def test_a_parameter_that_is_frozen_in_the_middle_of_a_run(type: str, whose: str) -> None:
    engine = pair(following, wanting_one, method=type)
    engine.step()
    engine[whose].module.value.requires_grad_(False)
    with pytest.raises(
        ProblemError, match=rf"problem '{whose}': a parameter of shape \(.*\) does not require a gradient"
    ):
        engine.step()


def test_one_problem_is_a_list_of_one() -> None:
    with pytest.raises(GraphError, match="expected a list of problems, got the problem 'p'; put it into a list"):
        Engine(Given("p", square))  # type: ignore[arg-type]


def test_a_parameter_of_two_problems() -> None:
    first, second = Given("first", square), Given("second", square)
    second.module = first.module
    with pytest.raises(ConfigError, match=r"'first' and 'second' train the same parameter, of shape \(1,\)"):
        Engine([first, second], edges=[(first, second)])


def test_a_state_that_is_no_engines() -> None:
    engine = alone(Given("p", square))
    with pytest.raises(ConfigError, match=r"expected what Engine.state_dict\(\) returned, got a state of \['value'\]"):
        engine.load_state_dict(engine["p"].module.state_dict())
