"""A recorded level step, compiled: run it on the tensors of now."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ...hypergrad.looking import show
from ...hypergrad.replay import RandomState
from ...problems.moment import Moment
from ...problems.problem import Problem
from .draws import Dice
from .lowering import Function
from .outcome import Result
from .parts import compiled_in_parts
from .reads import Reading
from .recording import Recording
from .trial import NUDGE, Findings, Trial, coarsest, nudged


class Program:
    """A compiled level step.

    Args:
        recording: What was recorded.
        problem: Whose step it is.
        problems: All problems by name.

    Attributes:
        seconds: How long it took to compile.
        trusted: Whether it was found to do what the eager step does.

    Raises:
        TracingError: It cannot be compiled.
    """

    def __init__(self, recording: Recording, problem: Problem, problems: Mapping[str, Problem]) -> None:
        begun = time.perf_counter()
        self._function = self._compiled(recording)
        self.seconds = time.perf_counter() - begun
        self.trusted = self._doubted = False
        self._sources = recording.sources
        self._dice = Dice(recording.draws, problem)
        self._order = recording.order
        self._outcome = recording.outcome
        self._problems = problems
        self._device = problem.level.device
        self._precision = coarsest(recording.graph)

    def _compiled(self, recording: Recording) -> Function:
        return compiled_in_parts(recording.graph, recording.examples)

    def run(self, reading: Reading, moments: Mapping[str, Moment]) -> Result | None:
        """Loss, metrics and gradients now; buffers and what methods remember move on."""
        with torch.no_grad():
            return self._taken(self._function(*self._inputs(reading, moments)))

    def on_trial(self, reading: Reading, moments: Mapping[str, Moment], *, sweeps: bool) -> Trial:
        """Evaluate it beside the eager step that is about to be taken; nothing else changes.

        Args:
            reading: What the training steps read now.
            moments: The moments of the problems.
            sweeps: Whether the derivative through the levels below is the program's.
        """
        random = RandomState(self._device, host=False)
        try:
            inputs = self._inputs(reading, moments)
        finally:
            random.restore()

        def found(seed: int | None) -> Findings:
            given = inputs if seed is None else nudged(inputs, NUDGE * self._precision, seed)
            with torch.no_grad():
                tensors = self._function(*given)
            outcome, outputs = self._outcome, [tensors[i] for i in self._order]
            memories = {name: _tensors(outcome.memory(name, outputs)) for name in outcome.memories}
            return Findings(outcome.result(outputs), [outputs[i] for _, i in outcome.buffers], memories)

        return Trial(found, self._precision, nudged=self._doubted, sweeps=sweeps)

    def judge(self, trial: Trial, result: Result) -> str | None:
        """Trust it, or doubt it once, or say what an eager step resulted in that it does not."""
        buffers = [place[key] for (place, key), _ in self._outcome.buffers]
        memories = {name: _tensors(self._problems[name].level.memory) for name in self._outcome.memories}
        objection = trial.objection(Findings(result, buffers, memories))
        self.trusted = objection is None and trial.tells
        if objection is None:
            return None
        doubted, self._doubted = self._doubted, True
        return objection if doubted else None

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
            show(outputs[number], who)
        return outcome.result(outputs)


def _tensors(memory: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(memory) if isinstance(leaf, Tensor)]
