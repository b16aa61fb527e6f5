"""Recording a problem's inner loop, for the method that differentiates it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..hypergrad.hierarchy import Values
from ..hypergrad.objective import Objective
from ..hypergrad.tape import Step, Tape
from ..hypergrad.tensors import Tensors

if TYPE_CHECKING:
    from .problem import Problem

Past = Callable[[Sequence[str], Values], Objective]
"""The objective at a past moment, given the names of its inputs and the values that some of them had then."""
Initial = Callable[[Sequence[str], Values], Callable[[Tensors], Tensors]]
"""The starting point as a function of inputs, given likewise."""


class InnerLoop:
    """The steps of a problem since its uppers last moved.

    Args:
        problem: The problem.
        parameters: Its trainable parameters.

    Attributes:
        over: Whether an upper has moved since, so that the next step begins a new loop.

    Raises:
        ConfigError: The update of the problem's optimizer cannot be differentiated.
    """

    def __init__(self, problem: Problem, parameters: Tensors) -> None:
        self._problem = problem
        self._parameters = parameters
        self.begin()

    def begin(self, initial: Initial | None = None) -> None:
        """Forget the past: the loop starts at the current parameters."""
        self.over = False
        self._batches: list[Past] = []
        self._steps: list[tuple[Past, ...]] = []
        self._left: dict[str, Tensors] = {}
        self._initial = initial
        self._tape = Tape.begin(self._problem.optimizer, self._parameters)

    def add_batch(self, past: Past) -> None:
        """Note the objective of one batch."""
        self._batches.append(past)

    def add_step(self) -> None:
        """Note that the optimizer is about to step on the batches since its last step."""
        self._tape.record(self._problem.optimizer, (), self._problem.config.gradient_clipping)
        self._steps.append(tuple(self._batches))
        self._batches = []

    def leave(self, upper: str, parameters: Tensors) -> None:
        """End the loop because an upper moved, from the given parameters on; it can still be looked back at."""
        self.over = True
        self._left.setdefault(upper, parameters)

    def frozen(self) -> InnerLoop:
        """The loop as it is now, to be kept while this one goes on."""
        copy = object.__new__(InnerLoop)
        copy.__dict__.update(self.__dict__)
        copy._steps, copy._left = list(self._steps), dict(self._left)
        copy._tape = dataclasses.replace(self._tape, steps=list(self._tape.steps))
        return copy

    def tape(self, inputs: Sequence[str]) -> Tape:
        """The tape as a function of the parameters of ``inputs``."""
        steps = [
            Step(tuple(past(inputs, self._left) for past in batches), step.groups, step.clipping)
            for batches, step in zip(self._steps, self._tape.steps, strict=True)
        ]
        initial = self._initial(inputs, self._left) if self._initial is not None else None
        return dataclasses.replace(self._tape, steps=steps, initial=initial)
