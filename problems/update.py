"""A problem's own step: accumulate gradients, clip, step the optimizer and then its scheduler."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

from ..hypergrad.clipping import Clipping
from ..hypergrad.errors import ConfigError
from ..hypergrad.tensors import Tensors
from .optimizer_step import direct_step
from .scaling import loss_scaler
from .scheduling import Scheduling

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
        skipped: Optimizer steps left out because a scaled gradient overflowed (``precision="fp16"``).
        needs_closure: Whether the optimizer evaluates its loss again within a step (LBFGS).
        optimizer_step: Steps the optimizer.
        scaler: Scales losses under ``precision="fp16"``; ``None`` otherwise.
    """

    def __init__(self, problem: Problem, parameters: Tensors, loop: InnerLoop | None) -> None:
        self._problem = problem
        self._parameters = parameters
        self._loop = loop
        config = problem.config
        self._size = config.gradient_accumulation
        self._clipping = Clipping(config.gradient_clipping, config.gradient_clipping_by)
        self.needs_closure = _needs_closure(problem.optimizer)
        self.optimizer_step = direct_step(problem.optimizer)
        self.scaler = loss_scaler(problem.name, config.precision, parameters, closure=self.needs_closure)
        self.scheduling = Scheduling(problem.name, problem.scheduler, config.scheduler_metric)
        # Autograd hands out one tensor for two parameters, or an expanded scalar: not to be written to in place.
        self._copies = bool(self._clipping) or problem.edits_gradients or self.scaler is not None
        self._takes_gradients_as_they_are = self._size == 1 and not self._copies
        self.batches = 0
        self.steps = 0
        self.skipped = 0
        if self.needs_closure and self._size > 1:
            raise ConfigError(
                f"problem '{problem.name}': {type(problem.optimizer).__name__} evaluates its loss again at each step, "
                f"on one batch, so gradient_accumulation must be 1, got {self._size}"
            )

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to differentiate: scaled where gradients would underflow."""
        return loss if self.scaler is None else self.scaler.scale(loss)

    def apply(self, metrics: Mapping[str, Tensor], gradients: Gradients, again: Closure) -> bool:
        """Add the gradients of one batch; step when there are enough.

        Args:
            metrics: The batch's loss and metrics, for schedulers that watch one.
            gradients: One per trainable parameter, of the scaled loss where it is scaled; ``None`` where the loss does
                not depend on one.
            again: Computes loss and gradients anew at the current parameters, for optimizers that ask (LBFGS).

        Returns:
            Whether the optimizer stepped.
        """
        self._accumulate(gradients)
        self.batches += 1
        if self.batches < self._size:
            return False
        self.batches = 0
        stepped = self._step(again)
        for parameter in self._parameters:
            parameter.grad = None
        if stepped:
            self._problem.param_callback()
            self.scheduling.after_step(metrics)
            self.steps += 1
        else:
            self.skipped += 1
        return stepped

    def _accumulate(self, gradients: Gradients) -> None:
        if self._takes_gradients_as_they_are:
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                parameter.grad = gradient
            self._tell_hooks()
            return
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            share = self._share(gradient) if gradient is not None else None
            if self.batches == 0 or parameter.grad is None:
                parameter.grad = share
            elif share is not None:
                parameter.grad += share
        self._tell_hooks()

    def _tell_hooks(self) -> None:
        """Call what waits for a gradient to be there (``register_post_accumulate_grad_hook``), as autograd would."""
        for parameter in self._parameters:
            hooks = parameter._post_accumulate_grad_hooks
            if hooks and parameter.grad is not None:
                for hook in list(hooks.values()):
                    hook(parameter)

    def _share(self, gradient: Tensor) -> Tensor:
        if self._size > 1:
            return gradient / self._size
        return gradient.clone() if self._copies else gradient

    def _step(self, again: Closure) -> bool:
        if self.scaler is not None:
            self.scaler.unscale_(self._problem.optimizer)
        self._edit()
        if self._loop is not None:
            self._loop.add_step(self._size)
        if self.scaler is not None:
            return self._step_unless_overflown(self.scaler)
        if not self.needs_closure:
            self.optimizer_step()
            if self._loop is not None:
                self._loop.end_step()
            return True

        def closure() -> Tensor:
            loss, gradients = again()
            self._accumulate(gradients)
            self._edit()
            return loss

        self._problem.optimizer.step(closure)
        return True

    def _step_unless_overflown(self, scaler: Any) -> bool:
        before = scaler.get_scale()
        scaler.step(self._problem.optimizer)
        scaler.update()
        if scaler.get_scale() >= before:  # it is lowered when, and only when, the step was skipped
            return True
        if self._loop is not None:
            self._loop.drop_step()
        return False

    def _edit(self) -> None:
        self._clipping.in_place(self._parameters)
        self._problem.grad_callback()

    def state_dict(self) -> dict[str, Any]:
        """Counters, the gradients of an unfinished accumulation, and the scale of losses."""
        pending = [p.grad.clone() if p.grad is not None else None for p in self._parameters] if self.batches else []
        return {
            "batches": self.batches,
            "steps": self.steps,
            "skipped": self.skipped,
            "pending": pending,
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` returned."""
        self.batches, self.steps, self.skipped = state["batches"], state["steps"], state["skipped"]
        pending = state["pending"] or [None] * len(self._parameters)
        for parameter, gradient in zip(self._parameters, pending, strict=True):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        if self.scaler is not None and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])


def _needs_closure(optimizer: Optimizer) -> bool:
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty
