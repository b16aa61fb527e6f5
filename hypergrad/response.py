"""The best response as a node of the autograd graph: forward is the solution, backward is a method's pull back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .errors import ConfigError, second_derivatives
from .linearization import Linearization
from .moving import Response, current_pass
from .objective import Evaluation, Objective
from .tally import counting_for, running_tally
from .tensors import Tensors

if TYPE_CHECKING:
    from .method import Method

S = TypeVar("S")


def best_response(objective: Callable[..., Tensor], solution: S, *inputs: Any, method: Method | None = None) -> S:
    """The same solution, differentiable with respect to what it depends on.

    With theta* a stationary point of ``objective(theta, *inputs)``, the implicit function theorem gives

        (d theta* / d inputs)^T v = - (d2F / d inputs d theta) H^{-1} v,    H = d2F / d theta2,

    and ``method`` decides how H^{-1} v is approximated. The result can be differentiated any number of times, and an
    objective may call ``best_response`` itself: its derivatives then count the response of the problem inside.

    Example:
        >>> weights = solve_lower(lam)                                        # any way you like
        >>> loss = outer(best_response(inner, weights, lam, method=CG(iterations=20)), lam)
        >>> loss.backward()                                                   # lam.grad is the hypergradient

    Args:
        objective: ``objective(solution, *inputs)`` returns a scalar tensor, and reads what it depends on from its
            arguments: a tensor that it closes over counts as a constant.
        solution: A tensor, or a dict, list or tuple of tensors (nested as you like), where the objective is
            (approximately) stationary. Its history is ignored.
        inputs: Tensors, or containers of tensors, that the objective depends on.
        method: A method object; ``CG(iterations=20)`` by default.

    Returns:
        The values of ``solution`` in the same containers.

    Raises:
        ConfigError: ``solution`` holds something other than floating-point tensors.
        ProblemError: When it is differentiated: the method needs second derivatives of an operation that torch has none
            for.
    """
    from .cg import CG

    flat_solution, solution_tree = pytree.tree_flatten(solution)
    flat_inputs, inputs_tree = pytree.tree_flatten(inputs)
    if not flat_solution or not all(isinstance(t, Tensor) and t.is_floating_point() for t in flat_solution):
        kinds = [type(t).__name__ for t in flat_solution]
        raise ConfigError(f"best_response: solution must hold floating-point tensors, got {kinds}")
    differentiable = [i for i, t in enumerate(flat_inputs) if isinstance(t, Tensor) and t.is_floating_point()]

    def function(theta: Tensors, phi: Tensors) -> Evaluation:
        arguments = list(flat_inputs)
        for index, tensor in zip(differentiable, phi, strict=True):
            arguments[index] = tensor
        solution = pytree.tree_unflatten(list(theta), solution_tree)
        return Evaluation(objective(solution, *pytree.tree_unflatten(arguments, inputs_tree)))

    response = respond(
        method if method is not None else CG(iterations=20),
        Objective(function),
        tuple(t.detach() for t in flat_solution),
        tuple(flat_inputs[i] for i in differentiable),
    )
    return pytree.tree_unflatten(list(response), solution_tree)


def respond(
    method: Method, objective: Objective, solution: Tensors, inputs: Tensors, *, whose: str = "best_response"
) -> Tensors:
    """:func:`best_response` on flat tuples of tensors, of the one that an error names."""
    response = current_pass().visit(Response(method, objective, solution, inputs))
    return _Response.apply(method, response.objective, whose, len(solution), *response.solution, *inputs)


class _Response(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, method: Method, objective: Objective, whose: str, size: int, *tensors: Tensor) -> Tensors:
        solution, inputs = tensors[:size], tensors[size:]
        response = tuple(t.view_as(t) for t in solution)
        # The outputs are saved, not the solution: a second derivative goes on through them into this node again.
        ctx.save_for_backward(*response, *inputs)
        ctx.method, ctx.objective, ctx.whose, ctx.size = method, objective, whose, size
        ctx.tally = running_tally()
        return response

    @staticmethod
    def backward(ctx: Any, *cotangent: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        solution, inputs = saved[: ctx.size], saved[ctx.size :]
        # A copy of the memory: an evaluation may be repeated, and must not make it older.
        objective = dataclasses.replace(ctx.objective, state=dict(ctx.objective.state), nested=True)
        at = Linearization(objective, solution, inputs, differentiable=torch.is_grad_enabled())
        with counting_for(ctx.tally), second_derivatives(f"{ctx.whose}: {ctx.method.name}"):
            gradients = ctx.method.pull_back(at, cotangent)
        return (None, None, None, None, *(None,) * ctx.size, *gradients)
