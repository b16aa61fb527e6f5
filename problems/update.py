"""A problem's own step: accumulate gradients, clip, step the optimizer and then its scheduler."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..hypergrad.errors import ConfigError
from ..hypergrad.tensors import Tensors

if TYPE_CHECKING:
    from .inner_loop import InnerLoop
    from .problem import Problem

Gradients = Sequence[Tensor | None]
Closure = Callable[[], tuple[Tensor, Gradients]]


class Update:
    """Turns the gradients of ``gradient_accumulation`` batches into one optimizer step on their mean.

    Args:
        problem: The problem; its optimizer and scheduler are used as they are.
        parameters: Its trainable parameters.
        loop: Takes note of each step, where the method differentiates the inner loop.

    Attributes:
        batches: Batches accumulated since the last optimizer step.
        steps: Optimizer steps taken.
    """

    def __init__(self, problem: Problem, parameters: Tensors, loop: InnerLoop | None) -> None:
        self._problem = problem
        self._parameters = parameters
        self._loop = loop
        self._size = problem.config.gradient_accumulation
        self._clipping = problem.config.gradient_clipping
        self._needs_closure = _needs_closure(problem.optimizer)
        # Autograd hands out one tensor for two parameters, or an expanded scalar: not to be written to in place.
        self._copies = self._clipping > 0 or problem.edits_gradients
        self.batches = 0
        self.steps = 0
        if self._needs_closure and self._size > 1:
            raise ConfigError(
                f"problem '{problem.name}': {type(problem.optimizer).__name__} evaluates its loss again at each step, "
                f"on one batch, so gradient_accumulation must be 1, got {self._size}"
            )

    def apply(self, loss: Tensor, gradients: Gradients, again: Closure) -> bool:
        """Add the gradients of one batch; step when there are enough.

        Args:
            loss: The batch's loss, for schedulers that watch it.
            gradients: One per trainable parameter, ``None`` where the loss does not depend on it.
            again: Computes loss and gradients anew at the current parameters, for optimizers that ask (LBFGS).

        Returns:
            Whether the optimizer stepped.
        """
        self._accumulate(gradients)
        self.batches += 1
        if self.batches < self._size:
            return False
        self.batches = 0
        self._clip()
        self._problem.grad_callback()
        if self._loop is not None:
            self._loop.add_step()
        self._step(again)
        for parameter in self._parameters:
            parameter.grad = None
        self._problem.param_callback()
        self._schedule(loss)
        self.steps += 1
        return True

    def _accumulate(self, gradients: Gradients) -> None:
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            share = self._share(gradient) if gradient is not None else None
            if self.batches == 0 or parameter.grad is None:
                parameter.grad = share
            elif share is not None:
                parameter.grad += share

    def _share(self, gradient: Tensor) -> Tensor:
        if self._size > 1:
            return gradient / self._size
        return gradient.clone() if self._copies else gradient

    def _clip(self) -> None:
        if self._clipping > 0:
            torch.nn.utils.clip_grad_norm_(self._parameters, self._clipping)

    def _step(self, again: Closure) -> None:
        if not self._needs_closure:
            self._problem.optimizer.step()
            return

        def closure() -> Tensor:
            loss, gradients = again()
            self._accumulate(gradients)
            self._clip()
            self._problem.grad_callback()
            return loss

        self._problem.optimizer.step(closure)

    def _schedule(self, loss: Tensor) -> None:
        scheduler = self._problem.scheduler
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(loss.detach())  # converted with float()
        elif scheduler is not None:
            scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Counters and the gradients of an unfinished accumulation."""
        pending = [p.grad.clone() if p.grad is not None else None for p in self._parameters] if self.batches else []
        return {"batches": self.batches, "steps": self.steps, "pending": pending}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` returned."""
        self.batches, self.steps = state["batches"], state["steps"]
        for parameter, gradient in zip(self._parameters, state["pending"], strict=False):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)


def _needs_closure(optimizer: Optimizer) -> bool:
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty
