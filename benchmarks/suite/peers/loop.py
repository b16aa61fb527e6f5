"""A loop for libraries that give a hypergradient and leave the loop to their user."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..bilevel import Bilevel
from ..by_hand import set_gradients

Parameters: TypeAlias = tuple[Tensor, ...]
Gradient: TypeAlias = Callable[[Any, Any], Sequence[Tensor]]
"""(the last batch below, a batch above) -> the gradient of the upper parameters, at the current parameters."""


class Functions:
    """The two losses as functions of parameters instead of modules.

    Args:
        problem: What is solved.
    """

    def __init__(self, problem: Bilevel) -> None:
        self.lower_module, self.upper_module = problem.lower(), problem.upper()
        self._both = _Loss(problem.in_precision(problem.lower_loss), self.lower_module, self.upper_module)
        self._one = _Loss(problem.in_precision(problem.upper_loss), self.lower_module)
        self._lower_names = [f"0.{name}" for name, _ in self.lower_module.named_parameters()]
        self._upper_names = [f"1.{name}" for name, _ in self.upper_module.named_parameters()]

    def lower(self, lower: Parameters, upper: Parameters, batch: Any) -> Tensor:
        """The lower loss."""
        named = _named(self._lower_names, lower) | _named(self._upper_names, upper)
        return functional_call(self._both, named, (batch,))

    def upper(self, lower: Parameters, batch: Any) -> Tensor:
        """The upper loss."""
        return functional_call(self._one, _named(self._lower_names, lower), (batch,))


class InnerLoop:
    """The lower, trained with its torch optimizer.

    Args:
        problem: What is solved.
        functions: Holds the modules.
    """

    def __init__(self, problem: Bilevel, functions: Functions) -> None:
        self._loss, self._steps = problem.in_precision(problem.lower_loss), problem.inner_steps
        self._modules = functions.lower_module, functions.upper_module
        self.parameters = list(functions.lower_module.parameters())
        self._optimizer = problem.lower_optimizer(self.parameters)
        self.batches, self.upper_batches = problem.endless()

    def run(self) -> Any:
        """The steps before one of the upper; gives the last batch."""
        for _ in range(self._steps):
            batch = next(self.batches)
            set_gradients(self.parameters, torch.autograd.grad(self._loss(*self._modules, batch), self.parameters))
            self._optimizer.step()
        return batch


class GivenGradient:
    """The lower's steps, a hypergradient from a library, the upper's step.

    Args:
        problem: What is solved.
        functions: Holds the modules.
        gradient: The library.
    """

    def __init__(self, problem: Bilevel, functions: Functions, gradient: Gradient) -> None:
        self._inner, self._gradient = InnerLoop(problem, functions), gradient
        self._upper = list(functions.upper_module.parameters())
        self._optimizer = problem.upper_optimizer(self._upper)

    def step(self) -> None:
        batch = self._inner.run()
        set_gradients(self._upper, self._gradient(batch, next(self._inner.upper_batches)))
        self._optimizer.step()

    def parameters(self) -> Sequence[Sequence[Tensor]]:
        return [self._inner.parameters, self._upper]


class _Loss(nn.ModuleList):
    """A loss of modules, as a module: with ``functional_call``, a function of their parameters."""

    def __init__(self, loss: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__(modules)
        self.loss = loss

    def forward(self, batch: Any) -> Tensor:
        return self.loss(*self, batch)


def _named(names: Sequence[str], values: Parameters) -> dict[str, Tensor]:
    return dict(zip(names, values, strict=True))
