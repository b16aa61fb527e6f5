"""What a problem minimises, as a function of flat tuples of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from torch import Tensor
from torch.optim import Optimizer

from .tensors import Tensors

if TYPE_CHECKING:
    from .tape import Tape

State: TypeAlias = dict[str, Any]
"""What a method remembers between upper steps: tensors, tuples of tensors and numbers under string keys."""


Decay: TypeAlias = Sequence["float | Tensor"]
"""One number per solution tensor; empty where all are zero."""


class Evaluation(NamedTuple):
    """One evaluation of an objective.

    Attributes:
        loss: The scalar.
        outputs: The tensor in which the loss is convex (a network's predictions); for Gauss-Newton curvature only.
        losses: The loss of each example, of shape (batch,), where the loss is their mean and each depends on its own
            sampled choices alone.
        choices: The log-probability of each sampled choice, where the loss depends on any.
    """

    loss: Tensor
    outputs: Tensor | None = None
    losses: Tensor | None = None
    choices: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Objective:
    """F(solution, inputs), the scalar that the solution minimises, and what a method may know besides.

    Attributes:
        function: Evaluates F. It must read both arguments from what it is given, be repeatable (the same tensors give
            the same value) and leave no trace.
        state: The method's memory. Empty by default.
        optimizer: The optimizer that minimises F, for methods that differentiate its update; its parameters are the
            solution.
        parameters: The optimizer's own parameters in the order of the solution (their values may differ from it where
            the objective is evaluated beside its point); empty where that is the order of its parameter groups.
        tape: The inner loop that led to the solution, for methods that differentiate it.
        draw: ``draw(solution, inputs, number)`` evaluates F so many times under independent choices, where it samples.
        decay: What the optimizer's weight decay adds to the diagonal of the Hessian, per solution tensor; empty where
            that is nothing.
        nested: Whether it is pulled back inside another objective, maybe several times for one upper step.
    """

    function: Callable[[Tensors, Tensors], Evaluation]
    state: State = field(default_factory=dict)
    optimizer: Optimizer | None = None
    parameters: Tensors = ()
    tape: Tape | None = None
    draw: Callable[[Tensors, Tensors, int], Sequence[Evaluation]] | None = None
    decay: Decay = ()
    nested: bool = False

    def __call__(self, solution: Tensors, inputs: Tensors) -> Evaluation:
        return self.function(solution, inputs)
