"""TorchOpt: ``MetaSGD`` to unroll, ``custom_root`` for implicit differentiation by cg or a Neumann series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torchopt
from torch import Tensor

from multilevel import CG, Method, Neumann

from ..bilevel import Bilevel
from ..by_hand import set_gradients
from ..case import Run, UnavailableError
from .loop import Functions, GivenGradient, Parameters


def bilevel_run(problem: Bilevel, method: Method) -> Run:
    """Two levels."""
    if method.name == "unroll":
        return UnrolledRun(problem)
    solve: Callable[..., Any]
    if isinstance(method, CG):
        # Zero would divide by zero where the residual is.
        solve = torchopt.linear_solve.solve_cg(maxiter=method.iterations, rtol=1e-12)
    elif isinstance(method, Neumann):
        solve = torchopt.linear_solve.solve_inv(ns=True, maxiter=method.iterations, alpha=method.alpha)
    else:
        raise UnavailableError(f"has no {method.name}")
    functions = Functions(problem)
    return GivenGradient(problem, functions, partial(_implicit, functions, solve))


def _implicit(functions: Functions, solve: Callable[..., Any], below: Any, above: Any) -> tuple[Tensor, ...]:
    def stationary(lower: Parameters, upper: Parameters, batch: Any) -> Any:
        return torch.func.grad(functions.lower)(lower, upper, batch)

    @torchopt.diff.implicit.custom_root(stationary, argnums=1, solve=solve)
    def solution(lower: Parameters, upper: Parameters, batch: Any) -> Parameters:
        return lower  # trained already

    lower, upper = tuple(functions.lower_module.parameters()), tuple(functions.upper_module.parameters())
    return torch.autograd.grad(functions.upper(solution(lower, upper, below), above), upper)


class UnrolledRun:
    """The inner loop by ``MetaSGD``, whose steps are differentiated.

    Args:
        problem: What is solved.
    """

    def __init__(self, problem: Bilevel) -> None:
        self._lower, self._upper = problem.lower(), problem.upper()
        self._lower_loss, self._upper_loss = (
            problem.in_precision(problem.lower_loss),
            problem.in_precision(problem.upper_loss),
        )
        rate = problem.lower_optimizer(self._lower.parameters()).param_groups[0]["lr"]
        self._descent = torchopt.MetaSGD(self._lower, lr=rate)
        self._parameters = list(self._upper.parameters())
        self._optimizer = problem.upper_optimizer(self._parameters)
        self._steps = problem.inner_steps
        self._lower_batches, self._upper_batches = problem.endless()

    def step(self) -> None:
        for _ in range(self._steps):
            self._descent.step(self._lower_loss(self._lower, self._upper, next(self._lower_batches)))
        loss = self._upper_loss(self._lower, next(self._upper_batches))
        set_gradients(self._parameters, torch.autograd.grad(loss, self._parameters))
        self._optimizer.step()
        torchopt.stop_gradient(self._lower)

    def parameters(self) -> Sequence[Sequence[Tensor]]:
        return [list(self._lower.parameters()), self._parameters]
