"""A level step as a graph of tensor operations: what the engine does for its gradients, recorded while it does it.

Nothing is written twice: the very code that steps eagerly runs once more, on tensors that have shapes and no values,
and every operation that reaches torch is noted, those of derivatives of any order among them.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import get_decompositions
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from ...hypergrad.autograd import scalar_gradients
from ...hypergrad.errors import TracingError
from ...hypergrad.replay import RandomState
from ...hypergrad.tensors import Tensors
from ...hypergrad.tracing import tracing
from ...problems.problem import Problem
from ..gradients import Gradients, LevelGradients
from .draws import Draw, Drawing, lift_draws
from .graphs import (
    copied_inputs,
    distinct_outputs,
    drop_unused_inputs,
    lift_constants,
    operations,
    without_writes,
    written_input,
)
from .outcome import Outcome, Outputs, Result
from .pairs import evaluated_together
from .reads import Source
from .reasons import reason_of
from .staging import Stage

aten = torch.ops.aten
HIDDEN = [aten.native_batch_norm, aten.cudnn_batch_norm, aten.miopen_batch_norm]
"""Operations that write to buffers and do not say so: recorded as the operations that they consist of."""


@dataclass(frozen=True)
class Derivative:
    """The derivative of a recorded gradient, as inputs and outputs of a graph.

    It is taken with respect to the problem's parameters and, behind them, to those that its solution depends on.

    Attributes:
        cotangents: The inputs that are cotangents of the gradient, and of which parameter's each is.
        wrt: The input that each of these parameters is, ``None`` where the graph does not read it.
        first: The first of the outputs that depend on cotangents.
        products: Which of these the cotangents' product with each is, ``None`` where it is zero.
    """

    cotangents: dict[int, int]
    wrt: list[int | None]
    first: int
    products: list[int | None]


@dataclass(frozen=True)
class Recording:
    """A level step that was recorded.

    Attributes:
        graph: A function of tensors.
        examples: Tensors without values, like those.
        sources: Where each input is found, but for the last.
        draws: The random numbers that the last inputs are.
        order: Which output of the graph each tensor of the outcome is.
        outcome: What these are.
        derivative: Where in the graph the derivative of the gradient is, if it was recorded.
    """

    graph: fx.GraphModule
    examples: list[Tensor]
    sources: list[Source]
    draws: list[Draw]
    order: list[int]
    outcome: Outcome
    derivative: Derivative | None

    @property
    def operations(self) -> int:
        """How many operations the graph has."""
        return operations(self.graph)


def record(stage: Stage, gradients: Gradients, problem: Problem, *, sweeps: bool, derivative: bool) -> Recording:
    """Record a problem's level step at its current moment.

    Args:
        stage: The tensors it depends on.
        gradients: Differentiates it.
        problem: Whose step.
        sweeps: Record the derivative through the levels below as well. Without, the total gradient is the direct one.
        derivative: Record the derivative of the gradient as well, as a function of further inputs: a cotangent for each
            of the problem's parameters.

    Raises:
        TracingError: It cannot be recorded.
    """
    assert not (sweeps and derivative), "only gradients of problems without lowers are differentiated later"
    random = RandomState(problem.level.device, host=True)
    try:
        return _recorded(stage, gradients, problem, sweeps=sweeps, derivative=derivative)
    except Exception as error:
        raise reason_of(error) from error
    finally:
        random.restore()


def _recorded(stage: Stage, gradients: Gradients, problem: Problem, *, sweeps: bool, derivative: bool) -> Recording:
    step = _Step(stage, gradients, problem, sweeps=sweeps, derivative=derivative)
    cotangents = [stage.tensors[i] for i in stage.parameters[problem.name]] if derivative else []
    graph, examples = _traced(step, stage, [*stage.tensors, *cotangents])
    if (operation := written_input(graph)) is not None:
        raise TracingError(f"training_step writes to a tensor that stays ({operation}), at each evaluation once more")
    unmoved = copied_inputs(graph) & {number for _, number in step.outcome.buffers}
    outcome = dataclasses.replace(step.outcome, buffers=[b for b in step.outcome.buffers if b[1] not in unmoved])
    order = distinct_outputs(graph, without=unmoved)
    sources = [*stage.sources, *map(_nowhere, cotangents)]
    for source, example in lift_constants(graph, stage.elsewhere):
        sources.append(source)
        examples.append(example)
    used = drop_unused_inputs(graph)
    sources, examples = [sources[i] for i in used], [examples[i] for i in used]
    examples += lift_draws(graph)
    if step.pairs:
        pairs = [[(order[i], order[k]) for i, k in pair] for pair in step.pairs]
        graph = evaluated_together(graph, examples, pairs, results=max(order[: step.results]) + 1)
    where = _where(step, stage, order, used) if derivative else None
    graph = without_writes(graph, examples) if derivative else graph
    return Recording(graph, examples, sources, step.drawing.draws, order[: step.own_results], outcome, where)


class _Step:
    """A level step as a function of tensors: those of a stage, and cotangents. Called once.

    Attributes:
        drawing: Notes what it draws.
        names: The problem, and those that its solution depends on.
        outcome: The numbers of the outputs that are its results.
        products: Those that are the cotangents' products with the derivative of the gradient.
        pairs: Those that were computed alike, two and two.
        own_results: How many outputs come before the products.
        results: How many come before the pairs.
    """

    outcome: Outcome
    products: Sequence[int | None] = ()
    pairs: Sequence[Sequence[tuple[int, int]]] = ()

    def __init__(self, stage: Stage, gradients: Gradients, problem: Problem, *, sweeps: bool, derivative: bool) -> None:
        self.drawing = Drawing()
        self.names = [problem.name, *gradients.hierarchy.inputs[problem.name]]
        self._stage = stage
        self._gradients = gradients
        self._problem = problem
        self._sweeps = sweeps
        self._derivative = derivative

    def __call__(self, *given: Tensor) -> list[Tensor]:
        stage, outputs = self._stage, Outputs()
        with stage.taken_by(given, self.drawing.begin) as buffers, self.drawing, tracing() as notes:
            result = self._result()
            self.outcome = Outcome.collect(outputs, result, buffers, stage.new_memories(), notes)
            self.own_results = len(outputs.tensors)
            if self._derivative:
                cotangents = given[len(stage.tensors) :]
                self.products = outputs.add_all(_products(result[2].total, stage.now(self.names), cotangents))
            self.results = len(outputs.tensors)
            self.pairs = [
                list(zip(outputs.add_all(one), outputs.add_all(other), strict=True)) for one, other in notes.pairs
            ]
        return outputs.tensors

    def _result(self) -> Result:
        """What the engine computes in a level step."""
        problem, gradients = self._problem, self._gradients.rebound()
        moment = problem.level.moment
        assert moment is not None
        evaluation, metrics = problem.level.training_step.train(moment)
        if self._sweeps:
            return evaluation.loss, metrics, gradients.total(problem.name, evaluation.loss)
        differentiate = partial(scalar_gradients, create_graph=self._derivative)
        direct, below = gradients.without_sweep(problem.name, evaluation.loss, differentiate)
        return evaluation.loss, metrics, LevelGradients(direct, direct, None, below)


def _where(step: _Step, stage: Stage, order: Sequence[int], used: Sequence[int]) -> Derivative:
    """Where the derivative is, given the numbers of the outputs and inputs that are left."""
    first = max(order[: step.own_results]) + 1
    places, behind = {number: i for i, number in enumerate(used)}, len(stage.tensors)
    own = range(len(stage.parameters[step.names[0]]))
    return Derivative(
        cotangents={places[behind + i]: i for i in own if behind + i in places},
        wrt=[places.get(number) for name in step.names for number in stage.parameters[name]],
        first=first,
        products=[None if number is None else order[number] - first for number in step.products],
    )


def _products(
    gradients: Sequence[Tensor | None], wrt: Tensors, cotangents: Sequence[Tensor]
) -> Sequence[Tensor | None]:
    """Cotangents of gradients times the derivatives of these."""
    pairs = [(g, c) for g, c in zip(gradients, cotangents, strict=True) if g is not None and g.requires_grad]
    if not pairs:
        return (None,) * len(wrt)
    outputs, vectors = zip(*pairs, strict=True)
    return torch.autograd.grad(outputs, wrt, vectors, allow_unused=True)


def _nowhere(cotangent: Tensor) -> Source:
    return lambda reading: cotangent  # never asked: a cotangent comes later


def _traced(step: _Step, stage: Stage, tensors: Sequence[Tensor]) -> tuple[fx.GraphModule, list[Tensor]]:
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    examples: list[Tensor] = [mode.from_tensor(tensor.detach()) for tensor in tensors]
    with warnings.catch_warnings(), stage.others_kept(), mode:
        warnings.simplefilter("ignore")  # the eager steps before said what there is to say
        table: Any = get_decompositions(HIDDEN)
        recorded = make_fx(step, table, tracing_mode="real", _allow_non_fake_inputs=True)
        return recorded(*examples), examples
