"""The inner loop on a tape, taken again: forwards, and beside itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from .autograd import scalar_gradients
from .errors import NonFiniteError, ProblemError
from .linearization import evaluate
from .moving import moved, recorded
from .objective import Objective
from .tape import Step, Tape
from .tensors import Tensors, norm, subtract
from .update_rules import ParameterState

Gradients: TypeAlias = tuple[Tensor | None, ...]


class Point(NamedTuple):
    """Where the loop is between two steps."""

    solution: Tensors
    states: tuple[ParameterState, ...]


def recorded_loop(objective: Objective) -> Tape:
    """The tape of an objective.

    Raises:
        ProblemError: There is none, or no step was taken.
    """
    tape = objective.tape
    if tape is None:
        raise ProblemError(
            "unroll: there is no recorded inner loop to differentiate; train this problem inside an Engine, or use a "
            "method that needs the solution only, such as cg or neumann"
        )
    if not tape.steps:
        raise ProblemError(
            "unroll: the recorded inner loop is empty, so the solution depends on nothing; let this problem take an "
            "optimizer step (unroll_steps) before a problem above it is differentiated"
        )
    return tape


def beginning(tape: Tape, inputs: Tensors) -> Point:
    """Where the loop starts, as a function of the inputs if that depends on them."""
    return Point(tape.start if tape.initial is None else tape.initial(inputs), tape.optimizer_state)


def advance(tape: Tape, step: Step, point: Point, inputs: Tensors, *, create_graph: bool = False) -> Point:
    """Take one step. With ``create_graph`` the result is a differentiable function of the point and the inputs."""
    with torch.set_grad_enabled(create_graph):
        solution = _aliases(point.solution) if create_graph else leaves_of(point.solution)
        gradient = step.clipping(mean_gradient(gradients_of(step, solution, inputs, create_graph)))
        start = solution if create_graph else point.solution
        return Point(*tape.rule(start, gradient, point.states, step.groups))


def tape_beside(tape: Tape, inputs: Tensors, others: Tensors) -> tuple[Tape, Tensors]:
    """The loop with other values of the inputs, and where it ends, without double backward.

    Responses inside its objectives move along, to first order; the tape that is returned holds the moved objectives.
    """
    base, beside, steps = beginning(tape, inputs), beginning(tape, others), []
    for step in tape.steps:
        objectives = tuple(
            moved(o, recorded(o, base.solution, inputs), beside.solution, others) for o in step.objectives
        )
        steps.append(dataclasses.replace(step, objectives=objectives, before=None, graph=None))
        beside = advance(tape, steps[-1], beside, others)
        base = advance(tape, step, base, inputs)
    return dataclasses.replace(tape, steps=steps), beside.solution


class Misses:
    """Where recorded steps, taken again, end beside where they ended then.

    What they may miss by, relative to the distance travelled, is the fourth root of the precision: 2e-2 in single and
    1e-4 in double precision. Kernels that sum in another order make them miss by more than rounding (Adam turns
    gradients that are nothing but rounding into full steps), and a smaller miss hardly changes the derivative.

    Args:
        steps: How many steps the loop has.
    """

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._sums: tuple[Tensor, Tensor, Tensor] | None = None
        self._precision = 0.0

    def note(self, start: Tensors, reached: Tensors, expected: Tensors) -> None:
        """One step, or several in a row, from ``start``. Reads nothing from the device."""
        with torch.no_grad():
            new = norm(subtract(reached, expected)), norm(subtract(expected, start)), norm(expected)
            old = self._sums
            self._sums = new if old is None else (old[0] + new[0], old[1] + new[1], torch.maximum(old[2], new[2]))
        self._precision = max(self._precision, *(torch.finfo(t.dtype).eps for t in expected))

    def check(self) -> None:
        """Refuse to differentiate a loop that did not lead to the solution.

        Raises:
            ProblemError: The steps end elsewhere.
            NonFiniteError: They end nowhere.
        """
        if self._sums is None:
            return
        missed, travelled, size = self._sums
        if not bool((missed + travelled).isfinite()):
            raise NonFiniteError(
                "unroll: the recorded steps lead to values that are infinite or not a number: the problem has diverged"
            )
        allowed = self._precision**0.25 * travelled + 16 * self._steps * self._precision * size
        if not bool(missed <= allowed):
            raise ProblemError(
                f"unroll: the {self._steps} recorded steps, taken again, end {missed:.3g} away from the solution, "
                f"which is {travelled:.3g} away from their start; the problem was moved outside its recorded steps (by "
                "param_callback, grad_callback, or an upper problem that changed in between), or its training step is "
                "not repeatable. Move it by its loss and optimizer alone, or use a method that needs the solution "
                "only, such as cg"
            )


def check_end(tape: Tape, end: Tensors, solution: Tensors) -> None:
    """Refuse to differentiate a loop whose steps, taken again in a row, end elsewhere.

    Raises:
        ProblemError: They do.
    """
    misses = Misses(len(tape.steps))
    misses.note(tape.start, end, solution)
    misses.check()


def gradients_of(step: Step, solution: Tensors, inputs: Tensors, create_graph: bool) -> list[Gradients]:
    """Of each micro-batch; ``None`` where its objective does not depend on a tensor."""
    found: list[Gradients] = []
    for objective in step.objectives:
        loss = evaluate(objective, solution, inputs).loss
        if not loss.requires_grad:
            found.append((None,) * len(solution))
        elif create_graph:
            found.append(scalar_gradients(loss, solution, create_graph=True))
        else:
            found.append(scalar_gradients(loss, solution))
    return found


def mean_gradient(gradients: Sequence[Gradients]) -> Gradients:
    """The mean over micro-batches, ``None`` where no objective depends on a tensor: torch.optim skips it then."""
    total, *others = gradients
    for more in others:
        total = tuple(g if t is None else t if g is None else t + g for t, g in zip(total, more, strict=True))
    count = len(gradients)
    return total if count == 1 else tuple(None if t is None else t / count for t in total)


def leaves_of(tensors: Sequence[Tensor]) -> Tensors:
    """The same values with nothing behind them, to differentiate with respect to."""
    return tuple(t.detach().requires_grad_() for t in tensors)


def _aliases(tensors: Sequence[Tensor]) -> Tensors:
    # A gradient with respect to the tensors themselves would include paths between them (a start that *is* an input, a
    # parameter that another one was updated from).
    return tuple((t if t.requires_grad else t.detach().requires_grad_()).view_as(t) for t in tensors)
