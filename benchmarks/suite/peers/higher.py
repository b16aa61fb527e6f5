"""higher: differentiable steps of torch's optimizers."""

from __future__ import annotations

from collections.abc import Sequence

import higher
import torch
from torch import Tensor

from multilevel import Method

from ..bilevel import Bilevel
from ..by_hand import set_gradients
from ..case import UnavailableError


class HigherRun:
    """The inner loop on a patched copy, and its end copied back.

    Args:
        problem: What is solved.
    """

    def __init__(self, problem: Bilevel) -> None:
        self._lower, self._upper = problem.lower(), problem.upper()
        self._lower_loss, self._upper_loss = (
            problem.in_precision(problem.lower_loss),
            problem.in_precision(problem.upper_loss),
        )
        self._lower_optimizer = problem.lower_optimizer(self._lower.parameters())
        self._lower_parameters, self._upper_parameters = (
            list(self._lower.parameters()),
            list(self._upper.parameters()),
        )
        self._upper_optimizer = problem.upper_optimizer(self._upper_parameters)
        self._steps = problem.inner_steps
        self._lower_batches, self._upper_batches = problem.endless()

    def step(self) -> None:
        with higher.innerloop_ctx(self._lower, self._lower_optimizer) as (patched, optimizer):
            for _ in range(self._steps):
                optimizer.step(self._lower_loss(patched, self._upper, next(self._lower_batches)))
            loss = self._upper_loss(patched, next(self._upper_batches))
            set_gradients(self._upper_parameters, torch.autograd.grad(loss, self._upper_parameters))
            self._upper_optimizer.step()
            with torch.no_grad():
                torch._foreach_copy_(self._lower_parameters, list(patched.parameters()))

    def parameters(self) -> Sequence[Sequence[Tensor]]:
        return [self._lower_parameters, self._upper_parameters]


def bilevel_run(problem: Bilevel, method: Method) -> HigherRun:
    """Two levels."""
    if method.name != "unroll":
        raise UnavailableError("unrolls only")
    return HigherRun(problem)
