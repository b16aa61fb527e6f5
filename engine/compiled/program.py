"""A recorded level step, compiled: run it on the tensors of now."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...hypergrad.errors import TracingError
from ...problems.moment import Moment
from ...problems.problem import Problem
from .draws import Dice
from .outcome import Result
from .reads import Reading
from .reasons import reason_of
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
        self._function = _compiled(recording.graph, recording.examples)
        self.seconds = time.perf_counter() - begun
        self._sources = recording.sources
        self._dice = Dice(recording.draws, problem)
        self._order = recording.order
        self._outcome = recording.outcome
        self._problems = problems

    def run(self, reading: Reading, moments: Mapping[str, Moment]) -> Result:
        """Loss, metrics and gradients now; buffers and what methods remember move on."""
        outcome = self._outcome
        with torch.no_grad():
            found = self._function(*[source(reading) for source in self._sources], *self._dice.throw(moments))
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


def _compiled(graph: torch.fx.GraphModule, examples: Sequence[Tensor]) -> Callable[..., Sequence[Tensor]]:
    try:
        from torch._inductor import standalone_compile
    except ImportError as error:
        raise TracingError(f"torch {torch.__version__} is too old for it; 2.8 and later can compile") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function: Any = standalone_compile(graph, list(examples), dynamic_shapes="from_example_inputs")
    except Exception as error:
        raise reason_of(error) from error
    return function
