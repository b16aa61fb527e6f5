"""A compiled level step whose gradient can be differentiated later, for a method that goes back through the steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ...hypergrad.tensors import Tensors
from ...problems.moment import Moment
from ...problems.problem import Problem
from ...problems.step_graphs import StepGraphs
from ...problems.writes import written
from ..gradients import LevelGradients
from .halves import halves
from .later import Later
from .lowering import Function
from .outcome import Result
from .parts import compiled_in_parts
from .program import Program
from .reads import Reading
from .recording import Derivative, Recording


class KeptProgram(Program):
    """A compiled level step in two halves: the step, and the derivative of its gradient.

    Args:
        recording: What was recorded, with the derivative.
        problem: Whose step it is.
        problems: All problems by name.
        graphs: Keeps the graphs.
        took: Is told how many seconds the second half took to compile, when it first runs.

    Raises:
        TracingError: It cannot be compiled.
    """

    def __init__(
        self,
        recording: Recording,
        problem: Problem,
        problems: Mapping[str, Problem],
        graphs: StepGraphs,
        took: Callable[[float], None],
    ) -> None:
        assert recording.derivative is not None
        self._derivative: Derivative = recording.derivative
        self._parameters: Tensors = problem.level.parameters
        self._graphs = graphs
        self._took, self._name = took, problem.name
        super().__init__(recording, problem, problems)
        late = self._derivative.cotangents
        self._sources = [source for i, source in enumerate(recording.sources) if i not in late]
        self._order = [number if number < 0 else self._halves.results[number] for number in recording.order]

    def _compiled(self, recording: Recording) -> Function:
        late, products = self._derivative.cotangents, self._derivative.products
        early = [i for i in range(len(recording.examples)) if i not in late]
        self._wrt = [None if i is None else early.index(i) for i in self._derivative.wrt]
        self._halves = halves(recording.graph, late, self._derivative.first)
        own = len(self._parameters)
        self._later = {
            whole: Later(self._halves, asked, self._name, self._took)
            for whole, asked in ((True, products), (False, [None] * own + products[own:]))
        }
        return compiled_in_parts(self._halves.now, [recording.examples[i] for i in early])

    def run(self, reading: Reading, moments: Mapping[str, Moment]) -> Result | None:
        """Loss, metrics and gradients, and what goes back through these; ``None`` where that could not be kept."""
        copies = self._graphs.copies()
        if copies is None:
            return None
        inputs = self._inputs(reading, moments)
        for place, copy in zip(self._wrt, copies, strict=False):
            if place is not None:
                inputs[place] = copy
        with torch.no_grad():
            found = self._function(*inputs)
            loss, metrics, gradients = self._taken(found)
        kept = [*[inputs[i] for i in self._halves.inputs], *[found[i] for i in self._halves.outputs]]
        wrt = [None if i is None else inputs[i] for i in self._wrt]
        values = self._graphs.keep(gradients.total, Kept(self, kept, wrt))
        return loss, metrics, LevelGradients(values, values, None, {})

    def pull_back(
        self, kept: Sequence[Tensor], cotangents: Sequence[Tensor | None], *, whole: bool
    ) -> list[Tensor | None]:
        """Run the second half: the products with the problem's parameters, and with those its solution depends on.

        Args:
            kept: What it reads of the first.
            cotangents: One per parameter.
            whole: Whether the products with the problem's own parameters are asked for.
        """
        late = [self._cotangent(cotangents[i], self._parameters[i]) for i in self._derivative.cotangents.values()]
        with torch.no_grad():
            return self._later[whole]([*kept, *late])

    def _cotangent(self, given: Tensor | None, like: Tensor) -> Tensor:
        return torch.zeros_like(like) if given is None else given


class Kept:
    """Goes back through the gradients of one batch.

    Args:
        program: Its program.
        kept: What the second half reads of the first.
        wrt: What that differentiates with respect to; ``None`` where nothing depends on it.
    """

    def __init__(self, program: KeptProgram, kept: Sequence[Tensor], wrt: Sequence[Tensor | None]) -> None:
        self._program = program
        self._kept = kept
        self._wrt = wrt
        self._versions = written(kept)

    def __call__(self, cotangents: Sequence[Tensor | None], wrt: Tensors, *, whole: bool) -> list[Tensor | None]:
        """See :class:`~multilevel.hypergrad.tape.Back`."""
        if written(self._kept) != self._versions:
            raise RuntimeError("what a gradient depends on was written to since")
        products = self._program.pull_back(self._kept, cotangents, whole=whole)
        found = {id(tensor): product for tensor, product in zip(self._wrt, products, strict=True)}
        return [found.get(id(tensor)) for tensor in wrt]
