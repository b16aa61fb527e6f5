"""A compiled level step whose gradient can be differentiated later, for a method that goes back through the steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...hypergrad.tensors import Tensors
from ...problems.moment import Moment
from ...problems.problem import Problem
from ...problems.step_graphs import StepGraphs
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

    To autograd the gradient looks as it does after an eager step, with a graph of a single node.

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
        """Loss, metrics and gradients, with the graphs of these kept; ``None`` where they could not be."""
        copies = self._graphs.copies()
        if copies is None:
            return None
        inputs = self._inputs(reading, moments)
        for place, copy in zip(self._wrt, copies, strict=False):
            if place is not None:
                inputs[place] = copy
        found: list[Tensor] = []
        asked = Asked(self)
        wrt = [inputs[i] for i in self._wrt if i is not None]
        graphs = iter(_Kept.apply(self, asked, inputs, found, *wrt))
        with torch.no_grad():
            loss, metrics, gradients = self._taken(found)
        attached = tuple([None if g is None else next(graphs) for g in gradients.total])
        values = self._graphs.keep(attached, asked)
        return loss, metrics, LevelGradients(values, values, None, {})

    def evaluate(self, inputs: Sequence[Tensor], found: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Run the first half: its gradients, and what the second reads of it.

        Args:
            inputs: All but the cotangents.
            found: Takes what it finds.
        """
        found += self._function(*inputs)
        gradients = [found[self._order[i]].detach() for i in self._outcome.gradients[0] if i is not None]
        return gradients, [*[inputs[i] for i in self._halves.inputs], *[found[i] for i in self._halves.outputs]]

    def prepare(self, *, whole: bool) -> None:
        """Compile the second half, for the products with the problem's own parameters as well, or without them."""
        self._later[whole].prepare()

    def pull_back(
        self, kept: Sequence[Tensor], cotangents: Sequence[Tensor | None], *, whole: bool
    ) -> list[Tensor | None]:
        """Run the second half.

        Args:
            kept: What it reads of the first.
            cotangents: One per gradient that there is.
            whole: Whether its products with the problem's own parameters are asked for.
        """
        given = iter(cotangents)
        by_parameter = [None if i is None else next(given) for i in self._outcome.gradients[0]]
        late = [self._cotangent(by_parameter[i], self._parameters[i]) for i in self._derivative.cotangents.values()]
        products = self._later[whole]([*kept, *late])
        return [product for place, product in zip(self._wrt, products, strict=True) if place is not None]

    def _cotangent(self, given: Tensor | None, like: Tensor) -> Tensor:
        return torch.zeros_like(like) if given is None else given


class Asked:
    """Notes whether the derivative with respect to a problem's own parameters is asked for.

    Autograd tells a node of Python only what may be asked for (``needs_input_grad``), not what is.

    Args:
        program: Is prepared for that: on a GPU the backward pass runs in a thread where nothing should be compiled.
    """

    def __init__(self, program: KeptProgram) -> None:
        self._program = program
        self.whole = True

    def __call__(self, whole: bool) -> None:
        self.whole = whole
        self._program.prepare(whole=whole)


class _Kept(torch.autograd.Function):
    """The gradients as a function of the parameters that they depend on."""

    @staticmethod
    def forward(
        ctx: Any, program: KeptProgram, asked: Asked, inputs: Sequence[Tensor], found: list[Tensor], *wrt: Tensor
    ) -> tuple[Tensor, ...]:
        gradients, kept = program.evaluate(inputs, found)
        ctx.program, ctx.asked = program, asked
        ctx.save_for_backward(*kept)
        ctx.set_materialize_grads(False)
        return tuple(gradients)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        products = ctx.program.pull_back(ctx.saved_tensors, cotangents, whole=ctx.asked.whole)
        return None, None, None, None, *products
