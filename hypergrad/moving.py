"""First-order methods at depth: an objective evaluated beside its point, with the responses inside it moving along.

A finite difference needs the objective of a middle level at theta + r v *with its lowers responding to that*, from
first derivatives alone. Each response inside moves, to first order, by what its own gradient says:

    z' = z - P [G(z, y') - G(z, y)],

with y the inputs at the base point, y' beside it, G the (total) gradient of the inner objective and P its method's
inverse Hessian. An objective is a plain function, so its responses are recognised by the order in which it asks for
them: one pass at the base point records them, a second beside it moves them, later ones use what was moved.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

import torch

from .objective import Evaluation, Objective
from .tensors import Tensors, add

if TYPE_CHECKING:
    from .method import Method


class Response(NamedTuple):
    """A best response that an objective asked for: whose, and at which point."""

    method: Method
    objective: Objective
    solution: Tensors
    inputs: Tensors


class Pass:
    """What an evaluation does with each response that it asks for. The default leaves it alone."""

    def visit(self, response: Response) -> Response:
        """The response to use instead."""
        return response


class Counting(Pass):
    """Counts the responses."""

    def __init__(self) -> None:
        self.count = 0

    def visit(self, response: Response) -> Response:
        self.count += 1
        return response


class _Recording(Pass):
    def __init__(self) -> None:
        self.responses: list[Response] = []

    def visit(self, response: Response) -> Response:
        self.responses.append(response._replace(inputs=tuple(t.detach() for t in response.inputs)))
        return response


class _Moving(Pass):
    def __init__(self, base: list[Response]) -> None:
        self.base = iter(base)
        self.responses: list[Response] = []

    def visit(self, response: Response) -> Response:
        result = _moved_response(next(self.base), tuple(t.detach() for t in response.inputs))
        self.responses.append(result)
        return result._replace(inputs=response.inputs)


class _Replaying(Pass):
    def __init__(self, responses: list[Response], enclosing: Pass) -> None:
        self.responses = iter(responses)
        self.enclosing = enclosing

    def visit(self, response: Response) -> Response:
        return self.enclosing.visit(next(self.responses)._replace(inputs=response.inputs))


def recorded(objective: Objective, solution: Tensors, inputs: Tensors) -> list[Response]:
    """The responses that an objective asks for at a point, in order."""
    recording = _Recording()
    with torch.no_grad(), evaluating(recording):
        objective(solution, inputs)
    return recording.responses


def moved(objective: Objective, base: list[Response], solution: Tensors, inputs: Tensors) -> Objective:
    """The objective in which every response recorded in ``base`` has moved to what (solution, inputs) make of it."""
    if not base:
        return objective
    moving = _Moving(base)
    with torch.no_grad(), evaluating(moving):
        objective(solution, inputs)

    def function(solution: Tensors, inputs: Tensors) -> Evaluation:
        with evaluating(_Replaying(moving.responses, current_pass())):
            return objective(solution, inputs)

    sampled = objective.draw
    if sampled is None:
        return dataclasses.replace(objective, function=function)

    def draw(solution: Tensors, inputs: Tensors, number: int) -> Sequence[Evaluation]:
        with evaluating(_Replaying(moving.responses, current_pass())):
            return sampled(solution, inputs, number)

    return dataclasses.replace(objective, function=function, draw=draw)


def _moved_response(base: Response, inputs: Tensors) -> Response:
    """The response at other inputs: its solution by one first-order step, and the responses inside it likewise."""
    inside = recorded(base.objective, base.solution, base.inputs)
    displaced = moved(base.objective, inside, base.solution, inputs)
    change = base.method.displacement(base, base._replace(objective=displaced, inputs=inputs))
    solution = add(base.solution, change)
    objective = moved(base.objective, inside, solution, inputs)
    if objective.tape is not None:
        from .inner_loop import tape_beside

        tape, _ = tape_beside(objective.tape, base.inputs, inputs)
        objective = dataclasses.replace(objective, tape=tape)
    return Response(base.method, objective, solution, inputs)


_pass: ContextVar[Pass] = ContextVar("pass", default=Pass())  # noqa: B039  (a Pass of this class has no state)


def current_pass() -> Pass:
    """The pass that the running evaluation belongs to."""
    return _pass.get()


class evaluating:  # noqa: N801  used like a function; a generator would cost each evaluation another microsecond
    """Run an evaluation of an objective as the given pass."""

    __slots__ = ("_new", "_token")

    def __init__(self, new: Pass) -> None:
        self._new = new

    def __enter__(self) -> None:
        self._token = _pass.set(self._new)

    def __exit__(self, *error: object) -> None:
        _pass.reset(self._token)
