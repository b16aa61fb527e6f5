"""A bilevel training loop written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .bilevel import Bilevel
from .by_hand import Loss, set_gradients

Hypergradient = Callable[[Loss, Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]], list[Tensor]]
"""(lower loss of the last batch, lower parameters, upper parameters, v) -> the gradient of the upper parameters."""


class BilevelLoop:
    """So many lower steps, then one upper step by an approximate hypergradient.

    Args:
        bilevel: What is solved.
        hypergradient: How the best response is differentiated, given the lower's optimizer.
    """

    def __init__(self, bilevel: Bilevel, hypergradient: Callable[[Optimizer], Hypergradient]) -> None:
        lower, upper = bilevel.lower(), bilevel.upper()
        lower_loss, upper_loss = bilevel.in_precision(bilevel.lower_loss), bilevel.in_precision(bilevel.upper_loss)
        self.lower_loss: Callable[[Any], Tensor] = lambda batch: lower_loss(lower, upper, batch)
        self.upper_loss: Callable[[Any], Tensor] = lambda batch: upper_loss(lower, batch)
        self.lower, self.upper = list(lower.parameters()), list(upper.parameters())
        self.lower_optimizer = bilevel.lower_optimizer(self.lower)
        self.upper_optimizer = bilevel.upper_optimizer(self.upper)
        self.lower_batches, self.upper_batches = bilevel.endless()
        self.inner_steps = bilevel.inner_steps
        self.hypergradient = hypergradient(self.lower_optimizer)

    def step(self) -> None:
        for _ in range(self.inner_steps):
            batch = next(self.lower_batches)
            set_gradients(self.lower, torch.autograd.grad(self.lower_loss(batch), self.lower))
            self.lower_optimizer.step()
        v = torch.autograd.grad(self.upper_loss(next(self.upper_batches)), self.lower)
        gradient = self.hypergradient(lambda: self.lower_loss(batch), self.lower, self.upper, v)
        set_gradients(self.upper, gradient)
        self.upper_optimizer.step()

    def parameters(self) -> Sequence[Sequence[Tensor]]:
        return [self.lower, self.upper]


class UnrolledLoop:
    """Gradient descent on the lower loss with its graph kept, then one backward pass through all of it.

    Args:
        bilevel: What is solved; its lower is trained by gradient descent.
    """

    def __init__(self, bilevel: Bilevel) -> None:
        upper, applied = bilevel.upper(), bilevel.applied
        assert applied is not None
        lower_loss, upper_loss = bilevel.in_precision(bilevel.lower_loss), bilevel.in_precision(bilevel.upper_loss)
        self.lower_loss: Callable[[Any, Any], Tensor] = lambda lower, batch: lower_loss(applied(lower), upper, batch)
        self.upper_loss: Callable[[Any, Any], Tensor] = lambda lower, batch: upper_loss(applied(lower), batch)
        self.lower = tuple(t.detach().requires_grad_() for t in bilevel.lower().parameters())
        self.upper = list(upper.parameters())
        self.rate = bilevel.lower_optimizer(self.lower).param_groups[0]["lr"]
        self.optimizer = bilevel.upper_optimizer(self.upper)
        self.lower_batches, self.upper_batches = bilevel.endless()
        self.inner_steps = bilevel.inner_steps

    def step(self) -> None:
        lower = self.lower
        for _ in range(self.inner_steps):
            loss = self.lower_loss(lower, next(self.lower_batches))
            lower = torch._foreach_add(lower, torch.autograd.grad(loss, lower, create_graph=True), alpha=-self.rate)
        loss = self.upper_loss(lower, next(self.upper_batches))
        set_gradients(self.upper, torch.autograd.grad(loss, self.upper))
        self.optimizer.step()
        self.lower = tuple(t.detach().requires_grad_() for t in lower)

    def parameters(self) -> Sequence[Sequence[Tensor]]:
        return [self.lower, self.upper]
