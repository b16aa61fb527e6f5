"""A linear solve that can be differentiated: the backward pass of H^{-1} v is another solve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .linearization import Linearization
from .objective import Objective
from .tally import counting_for, running_tally
from .tensors import Tensors, dot, filled, negative

if TYPE_CHECKING:
    from .method import ImplicitMethod


def differentiable_solve(
    method: ImplicitMethod, objective: Objective, solution: Tensors, inputs: Tensors, vector: Tensors
) -> Tensors:
    """q = P v, where the method's P stands for H(solution, inputs)^{-1}; differentiable to any order.

    Follows d(H^{-1} v) = H^{-1} dv - H^{-1} dH H^{-1} v. The accuracy of the derivative is that of the solver; its
    iterations are not recorded.
    """
    return _Solve.apply(method, objective, len(solution), *vector, *solution, *inputs)


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, method: ImplicitMethod, objective: Objective, size: int, *tensors: Tensor) -> Tensors:
        vector, solution, inputs = tensors[:size], tensors[size : 2 * size], tensors[2 * size :]
        at = Linearization(objective, solution, inputs)
        result = at.inverse_product(method, vector)
        result = tuple(t.clone() if any(t is v for v in vector) else t for t in result)
        ctx.method, ctx.objective, ctx.size, ctx.tally = method, objective, size, running_tally()
        ctx.save_for_backward(*solution, *inputs, *result)
        return result

    @staticmethod
    def backward(ctx: Any, *cotangent: Tensor) -> tuple[Tensor | None, ...]:
        size, method, objective = ctx.size, ctx.method, ctx.objective
        saved = ctx.saved_tensors
        solution, inputs, result = saved[:size], saved[size:-size], saved[-size:]
        again = torch.is_grad_enabled()
        with counting_for(ctx.tally):
            if again:
                left = differentiable_solve(method, objective, solution, inputs, cotangent)
            else:
                left = Linearization(objective, solution, inputs).inverse_product(method, cotangent)
            gradients = _curvature_gradient(method, objective, solution, inputs, left, result, again)
        return (None, None, None, *left, *gradients)


def _curvature_gradient(
    method: ImplicitMethod,
    objective: Objective,
    solution: Tensors,
    inputs: Tensors,
    left: Tensors,
    right: Tensors,
    create_graph: bool,
) -> Tensors:
    """- d <left, H(solution, inputs) right> with respect to (solution, inputs), left and right held fixed."""
    with torch.enable_grad():
        at = Linearization(objective, solution, inputs, differentiable=True)
        value = dot(method.matrix_product(at, right), left)
        wrt = (*at.solution, *at.inputs)
        if not value.requires_grad:
            return filled([None] * len(wrt), wrt)
        gradients = torch.autograd.grad(value, wrt, create_graph=create_graph, allow_unused=True)
    return negative(filled(gradients, wrt))
