"""A recorded level step, compiled: run it on the tensors of now."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...problems.moment import Moment
from ...problems.problem import Problem
from .draws import Dice
from .lowering import Function
from .outcome import Result
from .parts import compiled_in_parts
from .reads import Reading
from .recording import Recording


class Program:
    """A compiled level step.

    Args:
        recording: What was recorded.
        problem: Whose step it is.
        problems: All problems by name.

    Attributes:
        seconds: How long it took to compile.

    Raises:
        TracingError: It cannot be compiled.
    """

    def __init__(self, recording: Recording, problem: Problem, problems: Mapping[str, Problem]) -> None:
        begun = time.perf_counter()
        self._function = self._compiled(recording)
        self.seconds = time.perf_counter() - begun
        self._sources = recording.sources
        self._dice = Dice(recording.draws, problem)
        self._order = recording.order
        self._outcome = recording.outcome
        self._problems = problems

    def _compiled(self, recording: Recording) -> Function:
        return compiled_in_parts(recording.graph, recording.examples)

    def run(self, reading: Reading, moments: Mapping[str, Moment]) -> Result | None:
        """Loss, metrics and gradients now; buffers and what methods remember move on."""
        with torch.no_grad():
            return self._taken(self._function(*self._inputs(reading, moments)))

    def _inputs(self, reading: Reading, moments: Mapping[str, Moment]) -> list[Tensor]:
        return [*[source(reading) for source in self._sources], *self._dice.throw(moments)]

    def _taken(self, found: Sequence[Tensor]) -> Result:
        """Let what the program found take effect."""
        outcome = self._outcome
        outputs = [found[i] for i in self._order]
        for (place, key), number in outcome.buffers:
            place[key].copy_(outputs[number])
        for name in outcome.memories:
            memory = self._problems[name].level.memory
            memory.clear()
            memory.update(outcome.memory(name, outputs))
        for who, number in outcome.looks:
            who(outputs[number].tolist())
        return outcome.result(outputs)
