"""JAXopt: solvers that differentiate their solution, the whole step compiled by XLA; on the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jaxopt
import numpy
import torch
from torch import Tensor
from torch.optim import SGD

from multilevel import CG, Method

from ..bilevel import Bilevel
from ..case import UnavailableError

jax.config.update("jax_enable_x64", True)  # arrays keep the dtype they are given
jax.config.update("jax_platforms", "cpu")


class JaxRun:
    """Compiled steps of gradient descent below and above.

    Args:
        problem: What is solved.
        differentiation: How ``jaxopt.GradientDescent`` is to differentiate its solution.
    """

    def __init__(self, problem: Bilevel, differentiation: dict[str, Any]) -> None:
        _start_with_one_thread()
        below, above = problem.lower(), problem.upper()
        self._lower, self._upper = _arrays(below.parameters()), _arrays(above.parameters())
        lower_optimizer = problem.lower_optimizer(below.parameters())
        upper_optimizer = problem.upper_optimizer(above.parameters())
        if not isinstance(lower_optimizer, SGD) or not isinstance(upper_optimizer, SGD):
            raise UnavailableError("is given gradient descent only")
        lower_loss, upper_loss = problem.in_jax(jax)
        solver = jaxopt.GradientDescent(
            lower_loss,
            stepsize=lower_optimizer.param_groups[0]["lr"],
            maxiter=problem.inner_steps,
            tol=0.0,
            acceleration=False,
            **differentiation,
        )
        self._step = jax.jit(partial(_step, solver, upper_loss, upper_optimizer.param_groups[0]["lr"]))
        self._lower_batches, self._upper_batches = problem.endless()
        self._converted: dict[int, Any] = {}

    def step(self) -> None:
        # One batch serves the whole inner loop, which has one batch wherever it has several steps.
        below, above = self._batch(next(self._lower_batches)), self._batch(next(self._upper_batches))
        self._lower, self._upper = jax.block_until_ready(self._step(self._lower, self._upper, below, above))

    def parameters(self) -> list[list[Tensor]]:
        return [[torch.tensor(numpy.asarray(a)) for a in level] for level in (self._lower, self._upper)]

    def _batch(self, batch: Any) -> Any:
        if id(batch) not in self._converted:
            self._converted[id(batch)] = _arrays(batch)
        return self._converted[id(batch)]


def _step(
    solver: Any, upper_loss: Callable[..., Any], rate: float, lower: Any, upper: Any, below: Any, above: Any
) -> Any:
    def loss(upper: Any) -> Any:
        solution = solver.run(lower, upper, below).params
        return upper_loss(solution, above), solution

    (_, solution), gradient = jax.value_and_grad(loss, has_aux=True)(upper)
    return solution, [u - rate * g for u, g in zip(upper, gradient, strict=True)]


def _arrays(tensors: Any) -> list[Any]:
    return [jax.numpy.asarray(t.detach().numpy()) for t in tensors]


def _start_with_one_thread() -> None:
    """XLA makes as many threads as there are processors for it when it starts."""
    if hasattr(os, "sched_setaffinity"):
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(allowed)})
        jax.devices()
        os.sched_setaffinity(0, allowed)


def bilevel_run(problem: Bilevel, method: Method) -> JaxRun:
    """Two levels."""
    if isinstance(method, CG):
        solve = partial(jaxopt.linear_solve.solve_cg, maxiter=method.iterations, tol=0.0)
        differentiation: dict[str, Any] = {"implicit_diff": True, "implicit_diff_solve": solve}
    elif method.name == "unroll":
        differentiation = {"implicit_diff": False, "unroll": True}
    else:
        raise UnavailableError(f"has no {method.name}")
    if problem.in_jax is None:
        raise UnavailableError("this model is not written in JAX here")
    if problem.setting.device.type != "cpu":
        raise UnavailableError("is compared on the CPU only")
    return JaxRun(problem, differentiation)
