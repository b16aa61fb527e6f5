"""Unroll: the derivative of the torch.optim loop that ran, against finite differences of running it again."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from multilevel.hypergrad.clipping import Clipping
from multilevel.hypergrad.errors import ConfigError, ProblemError
from multilevel.hypergrad.inner_loop import Point
from multilevel.hypergrad.linearization import Linearization
from multilevel.hypergrad.moving import Response
from multilevel.hypergrad.objective import Evaluation, Objective
from multilevel.hypergrad.tape import Tape
from multilevel.hypergrad.tensors import Tensors
from multilevel.hypergrad.unroll import Unroll
from multilevel.hypergrad.updates import UpdateRule

from ..conftest import EXACT, FINITE_DIFFERENCE

Initial = Callable[[Tensors], Tensors]


@dataclass(frozen=True)
class Program:
    """An inner loop: a weighted tanh regression, trained as a user would, with a schedule and two parameter groups."""

    optimizer_class: type[Optimizer] = SGD
    options: tuple[tuple[str, Any], ...] = (("lr", 0.1),)
    steps: int = 5
    warm: int = 0
    clipping: Clipping = Clipping()  # noqa: RUF009  a frozen value
    micro: int = 1
    initial: Initial | None = None

    def run(self, inputs: Tensors) -> tuple[Tensors, Tape]:
        generator = torch.Generator().manual_seed(1)
        start = (torch.randn(3, 2, generator=generator), torch.randn(2, generator=generator))
        batches = torch.randn(30, 4, 5, generator=generator).unbind()
        parameters = tuple(t.clone().requires_grad_() for t in start)
        weight, bias = parameters
        groups: list[dict[str, Any]] = [{"params": [bias], "lr": 0.05}, {"params": [weight]}]
        optimizer = self.optimizer_class(groups, **dict(self.options))
        losses = [_regression(b) for b in batches]
        # The optimizer has a past, which does not depend on the inputs.
        for k in range(self.warm):
            self._step(optimizer, parameters, [losses[k]], (torch.zeros(4), torch.zeros(2)))
        if self.initial is not None:
            with torch.no_grad():
                for parameter, value in zip(parameters, self.initial(inputs), strict=True):
                    parameter.copy_(value)
        tape = Tape.begin(optimizer, parameters, self.initial)
        for k in range(self.steps):
            objectives = losses[5 + k : 5 + k + self.micro]
            tape.record(optimizer, [Objective(o) for o in objectives], self.clipping)
            self._step(optimizer, parameters, objectives, inputs)
            optimizer.param_groups[1]["lr"] *= 0.9
        return tuple(p.detach() for p in parameters), tape

    def _step(self, optimizer: Optimizer, parameters: Tensors, objectives: Sequence[Any], inputs: Tensors) -> None:
        optimizer.zero_grad()
        for objective in objectives:
            (objective(parameters, tuple(t.detach() for t in inputs)).loss / len(objectives)).backward()
        if self.clipping.by == "value" and self.clipping.limit:
            torch.nn.utils.clip_grad_value_(parameters, self.clipping.limit)
        elif self.clipping.limit:
            torch.nn.utils.clip_grad_norm_(parameters, self.clipping.limit)
        optimizer.step()

    def at(self, inputs: Tensors, *, differentiable: bool = False) -> Linearization:
        solution, tape = self.run(inputs)
        return Linearization(_objective(tape), solution, inputs, differentiable=differentiable)


def _regression(batch: Tensor) -> Callable[[Tensors, Tensors], Evaluation]:
    features, targets = batch[:, :3], batch[:, 3:]

    def loss(theta: Tensors, inputs: Tensors) -> Evaluation:
        (weight, bias), (importance, decay) = theta, inputs
        errors = (torch.tanh(features @ weight) + bias - targets).square().sum(1)
        return Evaluation((importance.sigmoid() * errors).mean() + (decay.exp() * weight.square().sum(0)).sum() / 10)

    return loss


def _objective(tape: Tape | None) -> Objective:
    return Objective(lambda theta, inputs: Evaluation(theta[0].sum()), tape=tape)


def _inputs() -> Tensors:
    return torch.randn(4), torch.randn(2)


def _cotangent() -> Tensors:
    return torch.randn(3, 2), torch.randn(2)


def _shifted(inputs: Tensors, directions: Tensors, size: float) -> Tensors:
    return tuple(t + size * d for t, d in zip(inputs, directions, strict=True))


def _dot(x: Sequence[Tensor], y: Sequence[Tensor]) -> Tensor:
    return sum((a * b).sum() for a, b in zip(x, y, strict=True))  # type: ignore[return-value]


PROGRAMS = {
    "sgd": Program(),
    "momentum": Program(SGD, (("lr", 0.1), ("momentum", 0.9)), warm=2),
    "nesterov": Program(SGD, (("lr", 0.1), ("momentum", 0.9), ("nesterov", True), ("weight_decay", 0.1))),
    "dampening": Program(SGD, (("lr", 0.1), ("momentum", 0.9), ("dampening", 0.4))),
    "maximize": Program(SGD, (("lr", 0.01), ("maximize", True))),
    "adam": Program(Adam, (("lr", 0.05),), warm=3),
    "adam, fresh": Program(Adam, (("lr", 0.05), ("weight_decay", 0.1))),
    "amsgrad": Program(Adam, (("lr", 0.05), ("amsgrad", True), ("betas", (0.6, 0.7))), warm=1),
    "adamw": Program(AdamW, (("lr", 0.05), ("weight_decay", 0.3)), warm=1),
    "rmsprop": Program(RMSprop, (("lr", 0.02), ("momentum", 0.5)), warm=1),
    "rmsprop, centered": Program(RMSprop, (("lr", 0.02), ("centered", True), ("alpha", 0.6)), warm=2),
    "adagrad": Program(Adagrad, (("lr", 0.1), ("lr_decay", 0.1), ("initial_accumulator_value", 0.1))),
    "clipping": Program(SGD, (("lr", 0.1), ("momentum", 0.9)), clipping=Clipping(1.0), warm=1),
    "clipping by value": Program(Adam, (("lr", 0.05),), clipping=Clipping(0.05, "value"), warm=1),
    "clipping that never acts": Program(clipping=Clipping(1e6)),
    "micro-batches": Program(Adam, (("lr", 0.05),), micro=3, clipping=Clipping(0.5)),
    "start from the inputs": Program(
        Adam, (("lr", 0.05),), initial=lambda i: (i[0][:3, None] * i[1] * 0.5, i[1].sin()), warm=2
    ),
}
every_program = pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())


@every_program
def test_pull_back_is_the_derivative_of_the_loop_that_ran(program: Program) -> None:
    inputs, cotangent, directions = _inputs(), _cotangent(), _inputs()
    got = _dot(Unroll().pull_back(program.at(inputs), cotangent), directions)
    size = 1e-5
    forward, backward = (program.run(_shifted(inputs, directions, s))[0] for s in (size, -size))
    expected = (_dot(cotangent, forward) - _dot(cotangent, backward)) / (2 * size)
    torch.testing.assert_close(got, expected, rtol=FINITE_DIFFERENCE, atol=FINITE_DIFFERENCE)


@every_program
def test_fewer_checkpoints_give_the_same_numbers(program: Program) -> None:
    inputs, cotangent = _inputs(), _cotangent()
    for steps, truncation in itertools.product((1, 2, 7), (0, 1, 5)):
        at = replace(program, steps=steps).at(inputs)
        every = Unroll(truncation).pull_back(at, cotangent)
        few = Unroll(truncation, "sqrt").pull_back(at, cotangent)
        torch.testing.assert_close(few, every, rtol=EXACT, atol=EXACT)


@every_program
@pytest.mark.parametrize("truncation", [0, 2])
def test_the_differentiable_pull_back_gives_the_same_numbers(program: Program, truncation: int) -> None:
    inputs, cotangent = _inputs(), _cotangent()
    expected = Unroll(truncation).pull_back(program.at(inputs), cotangent)
    with torch.enable_grad():
        got = Unroll(truncation).pull_back(program.at(inputs, differentiable=True), cotangent)
    torch.testing.assert_close(tuple(t.detach() for t in got), expected, rtol=EXACT, atol=EXACT)


@every_program
def test_the_pull_back_can_be_differentiated(program: Program) -> None:
    """Its derivative is the second derivative of the loop, which finite differences of the pull back give as well."""
    program = replace(program, steps=3)
    inputs, cotangent, left, directions = _inputs(), _cotangent(), _inputs(), _inputs()
    leaves = tuple(t.clone().requires_grad_() for t in inputs)
    pulled = Unroll().pull_back(program.at(leaves, differentiable=True), cotangent)
    got = _dot(torch.autograd.grad(_dot(pulled, left), leaves), directions)
    size = 1e-5
    forward, backward = (
        _dot(Unroll().pull_back(program.at(_shifted(inputs, directions, s)), cotangent), left) for s in (size, -size)
    )
    torch.testing.assert_close(got, (forward - backward) / (2 * size), rtol=FINITE_DIFFERENCE, atol=FINITE_DIFFERENCE)


@pytest.mark.parametrize("program", [PROGRAMS["adam"], PROGRAMS["start from the inputs"]], ids=["adam", "start"])
def test_displacement_is_the_loop_with_other_inputs(program: Program) -> None:
    inputs, others = _inputs(), _inputs()
    solution, tape = program.run(inputs)
    base = Response(Unroll(), _objective(tape), solution, inputs)
    got = Unroll().displacement(base, base._replace(inputs=others))
    expected = tuple(b - a for a, b in zip(solution, program.run(others)[0], strict=True))
    torch.testing.assert_close(got, expected, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize(("checkpoints", "most"), [("all", 27), ("sqrt", 12)])
def test_memory_grows_with_the_checkpoints_only(checkpoints: Any, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """25 steps keep 25 points, or 5 segments and the 5 points of one of them; and the two of the running step."""
    alive: list[weakref.ref[Tensor]] = []
    peak = 0
    solution, tape = replace(PROGRAMS["adam"], steps=25).run(inputs := _inputs())
    rule = UpdateRule.__call__

    def counted(*arguments: Any) -> Any:
        nonlocal peak
        result = Point(*rule(*arguments))
        if not result.solution[0].requires_grad:  # a point of the replay, not of a step in reverse
            alive.append(weakref.ref(result.solution[0]))
        peak = max(peak, sum(r() is not None for r in alive))
        return result

    monkeypatch.setattr(UpdateRule, "__call__", counted)
    Unroll(checkpoints=checkpoints).pull_back(Linearization(_objective(tape), solution, inputs), _cotangent())
    assert most - 3 <= peak <= most


def test_a_parameter_that_a_callback_moved_is_found_out() -> None:
    inputs = _inputs()
    solution, tape = Program().run(inputs)
    at = Linearization(_objective(tape), tuple(t.clamp(-0.5, 0.5) for t in solution), inputs)
    for attempt in (at, Linearization(_objective(tape), at.solution, inputs, differentiable=True)):
        with pytest.raises(ProblemError, match=r"5 recorded steps, taken again, end .* param_callback"):
            Unroll().pull_back(attempt, _cotangent())


def test_inputs_that_changed_since_the_loop_are_found_out() -> None:
    solution, tape = Program().run(_inputs())
    with pytest.raises(ProblemError, match="changed in between"):
        Unroll().pull_back(Linearization(_objective(tape), solution, _inputs()), _cotangent())


def test_a_missing_or_empty_tape_says_what_to_do() -> None:
    solution, tape = Program(steps=0).run(_inputs())
    with pytest.raises(ProblemError, match=r"recorded inner loop is empty.*unroll_steps"):
        Unroll().pull_back(Linearization(_objective(tape), solution, _inputs()), _cotangent())
    with pytest.raises(ProblemError, match=r"no recorded inner loop.*cg"):
        Unroll().pull_back(Linearization(_objective(None), solution, _inputs()), _cotangent())


def test_an_unsupported_optimizer_is_refused_by_name() -> None:
    parameters = [torch.ones(1)]
    with pytest.raises(ConfigError, match="NAdam cannot be differentiated; use one of Adagrad"):
        Tape.begin(torch.optim.NAdam(parameters), parameters)


@pytest.mark.parametrize("options", [{"truncation": -1}, {"truncation": True}, {"checkpoints": "some"}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"unroll: .*{next(iter(options))}"):
        Unroll(**options)
