"""Who writes to a problem's parameters while ``unroll`` keeps the graphs of its steps is heard, and found out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from multilevel import Callback, Engine, Problem, ProblemError, Unroll

from .unrolled import STEPS, Lower, advance, engine_of


@pytest.fixture(autouse=True, params=["copied at once", "copied lazily"])
def _copied(request: pytest.FixtureRequest) -> None:
    if request.param == "copied lazily":
        request.getfixturevalue("lazy")


class Clamps(Lower):
    """Keeps its weights small, before it computes with them."""

    hidden = False

    def loss(self, batch: Any) -> Any:
        with torch.no_grad():
            for parameter in self.module.parameters():
                (parameter.data if self.hidden else parameter).clamp_(-0.2, 0.2)
        return super().loss(batch)


class ClampsHidden(Clamps):
    """Where autograd does not count."""

    hidden = True


class ClampsLate(ClampsHidden):
    """After many steps without."""

    def loss(self, batch: Any) -> Any:
        return super().loss(batch) if self.count > 20 else Lower.loss(self, batch)


class ClampsItsParameters(Clamps):
    """By ``self.parameters``."""

    def loss(self, batch: Any) -> Any:
        if self.count > 2:
            for parameter in self.parameters:
                with torch.no_grad():
                    (parameter.data if self.hidden else parameter).clamp_(-0.2, 0.2)
        return Lower.loss(self, batch)


class ClampsItsParametersHidden(ClampsItsParameters):
    hidden = True


class ClampsByReference(Lower):
    def loss(self, batch: Any) -> Any:
        with torch.no_grad():
            for parameter in self.level.parameters:
                parameter.clamp_(-0.2, 0.2)
        return super().loss(batch)


@pytest.mark.parametrize(
    "lower",
    [Clamps, ClampsHidden, ClampsLate, ClampsItsParameters, ClampsItsParametersHidden],
    ids=lambda c: c.__name__,
)
def test_a_training_step_that_writes_to_its_parameters_does(lower: type[Lower]) -> None:
    runs = []
    for method in (Unroll(), "cg"):
        engine = engine_of(method, lower, unroll_steps=10**6)  # type: ignore[arg-type]
        advance(engine, 24)
        runs.append([p.detach().clone() for p in engine["lower"].parameters])
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=0)


def test_a_training_step_that_writes_past_its_module_is_told() -> None:
    engine = engine_of(Unroll(), ClampsByReference)
    with pytest.raises(
        ProblemError, match=r"problem 'lower': training_step writes .* through self\.module or self\.par"
    ):
        engine.step()


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("lower", [Clamps, ClampsHidden])
def test_where_numbers_are_not_read_writes_to_parameters_are_found_out_later(lower: type[Lower]) -> None:
    test_a_training_step_that_writes_to_its_parameters_does(lower)
    engine = engine_of(Unroll(), lower, unroll_steps=10**6)
    advance(engine, 6)
    with pytest.raises(ProblemError, match="taken again, end"):
        engine.hypergradient("upper")


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "added": lambda weight: weight.add_(0.1),
    "mirrored": lambda weight: weight.neg_(),
    "turned": lambda weight: weight.copy_(weight.flip(1)),
}


@pytest.mark.parametrize("loops", [0, 6], ids=["at once", "late"])
@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("when", [{0}, {2}], ids=["between steps", "at the end"])
@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES.keys())
def test_parameters_that_something_else_moved_are_found_out(
    move: Callable[[Tensor], Tensor], when: set[int], hidden: bool, loops: int
) -> None:
    engine = engine_of(Unroll())
    advance(engine, loops * STEPS)
    for i in range(3):
        engine.step()
        with torch.no_grad():
            weight = engine["lower"].parameters[0]
            if i in when:
                move(weight.data if hidden else weight)
    with pytest.raises(ProblemError, match="taken again, end"):
        engine.hypergradient("upper")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("when", [{0}, {2}], ids=["between steps", "at the end"])
def test_where_numbers_are_not_read_moves_are_found_out_later(when: set[int]) -> None:
    test_parameters_that_something_else_moved_are_found_out(MOVES["mirrored"], when, hidden=True, loops=0)


class ShrinksOnce(Lower):
    """Writes to its module's parameters in its second step, where that begins at the end of the first."""

    def loss(self, batch: Any) -> Any:
        if self.count == 1:
            with torch.no_grad():
                self.module[0].weight.mul_(0.5)
        return super().loss(batch)


def test_a_write_at_the_start_of_a_step_parts_it_from_the_one_before() -> None:
    engine = engine_of(Unroll(), ShrinksOnce, unroll_steps=10**6)
    advance(engine, 3)
    with pytest.raises(ProblemError, match="taken again, end"):
        engine.hypergradient("upper")


class MovesOnGradients(Callback):
    """Writes between an evaluation and the optimizer's step, to the parameters."""

    def __init__(self, *, hidden: bool) -> None:
        self.hidden = hidden

    def on_gradients(self, engine: Engine, problem: Problem, gradients: Any) -> None:
        with torch.no_grad():
            for parameter in problem.parameters if problem.name == "lower" else ():
                (parameter.data if self.hidden else parameter).neg_()


@pytest.mark.parametrize("hidden", [False, True])
def test_a_write_between_micro_batches_stays_and_is_found_out(hidden: bool) -> None:
    runs = []
    for method in (Unroll(), "cg"):
        engine = engine_of(method, unroll_steps=10**6, gradient_accumulation=3)  # type: ignore[arg-type]
        engine.callbacks.callbacks.append(MovesOnGradients(hidden=hidden))
        advance(engine, 3)
        runs.append([p.detach().clone() for p in engine["lower"].parameters])
        if method != "cg":
            with pytest.raises(ProblemError, match="taken again, end"):
                engine.hypergradient("upper")
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=0)


def test_a_write_between_evaluation_and_step_is_found_out() -> None:
    engine = engine_of(Unroll(), unroll_steps=10**6)
    engine.callbacks.callbacks.append(MovesOnGradients(hidden=False))
    advance(engine, 1)
    with pytest.raises(ProblemError, match="taken again, end"):
        engine.hypergradient("upper")


def test_a_callback_that_was_given_to_one_object_edits_gradients_too() -> None:
    engine = engine_of(Unroll(), unroll_steps=10**6)
    low = engine["lower"]
    low.grad_callback = lambda: low.parameters[0].grad.data.mul_(0.5)
    advance(engine, 2)
    with pytest.raises(ProblemError, match="taken again, end"):
        engine.hypergradient("upper")


@pytest.mark.usefixtures("unread")
def test_where_a_step_led_is_held_until_the_next_one_begins() -> None:
    engine = engine_of(Unroll(), unroll_steps=10**6)
    advance(engine, 3)
    loop = engine["lower"].level.loop
    assert loop is not None
    graphs = [step.graph for step in loop.tape(["upper"]).steps]
    assert [graph is not None and bool(graph.end) for graph in graphs] == [False, False, True]
