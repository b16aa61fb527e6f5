"""A recorded inner loop: what :class:`Unroll` differentiates in reverse."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.optim import Optimizer

from .clipping import Clipping
from .objective import Objective
from .same_bits import same_bits
from .tensors import Tensors, norm, subtract
from .tracing import is_readable
from .update_rules import Options, ParameterState
from .updates import UpdateRule, group_options, optimizer_states, update_rule

Gradient: TypeAlias = Tensor | GradientEdge | None
"""With its graph, or only where it is in that."""
NO_CLIPPING = Clipping()


class Back(Protocol):
    """Goes back through the gradients of one micro-batch, in place of autograd."""

    def __call__(self, cotangents: Sequence[Tensor | None], wrt: Tensors, *, whole: bool) -> Sequence[Tensor | None]:
        """The cotangents of the gradients times the derivatives of these.

        Args:
            cotangents: One per parameter; ``None`` stands for zero.
            wrt: What to differentiate with respect to: inputs, and before them the leaves.
            whole: Whether the leaves are among them.

        Returns:
            One per tensor of ``wrt``; ``None`` where nothing depends on it.

        Raises:
            RuntimeError: Something that it reads was written to since.
        """


@dataclass
class Graph:
    """How the gradients of one step were computed, as autograd keeps it.

    Attributes:
        leaves: The parameters that they were taken with respect to.
        gradients: Those of each of its micro-batches, ``None`` where the loss does not depend on a parameter; only
            where they are in the graph, if their values are not needed any more. Empty once somebody went back through
            them, which frees them.
        backs: Per micro-batch what goes back through its gradients, whose values alone are above; ``None`` where these
            have graphs of autograd's.
        versions: What told whether one of them, or something that they depend on, was written to since.
        end: Copies of the parameters after the step; empty until it is taken, and once :meth:`leads_to` was asked.
        moved: How far parameters were moved by something that the graph does not know of, where that was not read yet.
    """

    leaves: Tensors
    gradients: tuple[tuple[Gradient, ...], ...]
    backs: tuple[Back | None, ...]
    versions: tuple[int, ...] = ()
    end: Tensors = ()
    moved: Tensors = ()

    def take(self) -> tuple[tuple[tuple[Gradient, ...], ...], tuple[Back | None, ...]]:
        """The gradients and the backs, to go back through."""
        gradients, backs = self.gradients, self.backs
        self.gradients, self.backs = (), ()
        return gradients, backs

    def leads_to(self, point: Tensors) -> bool:
        """Whether the step ended there, bit for bit. Where a device would be waited for, ``moved`` will tell."""
        end, self.end = self.end, ()
        if end and end is point:
            return True
        if not end or is_readable(end[0]):
            return bool(end) and same_bits(point, end)
        with torch.no_grad():
            self.moved += (norm(subtract(point, end)),)
        return True


@dataclass(frozen=True)
class Step:
    """One optimizer step as it was taken.

    Attributes:
        objectives: The objectives of its micro-batches; the gradient is the mean of theirs. Each evaluates the loss of
            the recorded batch under the recorded random state (and, in a middle level, at the solutions that its lowers
            had then), as a function of the same inputs as the best response.
        groups: The options of each of the optimizer's parameter groups at that moment (a schedule changes them),
            without the key ``"params"``.
        clipping: What was done to the gradient.
        before: Copies of the parameters and of the optimizer's state of each before the step; ``None`` where they are
            to be found again by taking the steps before it once more.
        graph: How its gradients were computed; ``None`` where its objectives are to be evaluated again.
    """

    objectives: tuple[Objective, ...]
    groups: tuple[Options, ...]
    clipping: Clipping = NO_CLIPPING
    before: tuple[Tensors, tuple[ParameterState, ...]] | None = None
    graph: Graph | None = None


@dataclass
class Tape:
    """The steps since the inner loop began.

    Attributes:
        start: The parameters when it began (copies).
        optimizer_state: The optimizer's state of each parameter when it began (copies), in the order of the
            parameters; an empty dict where it had none.
        rule: The optimizer's update of these parameters.
        initial: Computes ``start`` from the inputs, where the starting point depends on them (a meta-learned
            initialisation); ``None`` where it does not.
        steps: In the order taken.
        inputs: The tensors that the graphs of its steps lead to, in place of the inputs of the best response.
    """

    start: Tensors
    optimizer_state: tuple[ParameterState, ...]
    rule: UpdateRule
    initial: Callable[[Tensors], Tensors] | None = None
    steps: list[Step] = field(default_factory=list)
    inputs: Tensors = ()

    @classmethod
    def begin(
        cls, optimizer: Optimizer, parameters: Sequence[Tensor], initial: Callable[[Tensors], Tensors] | None = None
    ) -> Tape:
        """An empty tape from where the parameters and the optimizer are now.

        Raises:
            ConfigError: The optimizer's update cannot be differentiated.
        """
        rule = update_rule(optimizer, parameters)
        start = tuple(p.detach().clone() for p in parameters)
        return cls(start, optimizer_states(optimizer, parameters), rule, initial)

    def record(self, optimizer: Optimizer, objectives: Sequence[Objective], clipping: Clipping = NO_CLIPPING) -> None:
        """Note a step; call it before the optimizer and its scheduler step."""
        self.add(Step(tuple(objectives), group_options(optimizer), clipping))

    def add(self, step: Step, kept: int = sys.maxsize) -> None:
        """Note a step that was taken; so many of the newest keep where they began, and their graphs."""
        self.steps.append(step)
        if len(self.steps) > kept:
            self.steps[-1 - kept] = dataclasses.replace(self.steps[-1 - kept], before=None, graph=None)
