"""A level step as a graph of tensor operations: what the engine does for its gradients, recorded while it does it.

Nothing is written twice: the very code that steps eagerly runs once more, on tensors that have shapes and no values,
and every operation that reaches torch is noted, those of derivatives of any order among them.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
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
from .outcome import Outcome, Outputs
from .pairs import evaluate_together
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
    found: list[Outcome] = []
    products: list[int | None] = []
    pairs: list[list[tuple[int, int]]] = []
    drawing = Drawing()
    names = [problem.name, *gradients.hierarchy.inputs[problem.name]]
    cotangents = [stage.tensors[i] for i in stage.parameters[problem.name]] if derivative else []

    def step(*given: Tensor) -> list[Tensor]:
        with stage.taken_by(given, drawing.begin) as buffers, drawing, tracing() as notes:
            moment = problem.level.moment
            assert moment is not None
            evaluation, metrics = problem.level.train(moment)
            now, differentiate = gradients.rebound(), partial(scalar_gradients, create_graph=derivative)
            if sweeps:
                result = evaluation.loss, metrics, now.total(problem.name, evaluation.loss)
            else:
                direct, below = now.without_sweep(problem.name, evaluation.loss, differentiate)
                result = evaluation.loss, metrics, LevelGradients(direct, direct, None, below)
            outputs = Outputs()
            found.append(Outcome.collect(outputs, result, buffers, stage.new_memories(), notes))
            if derivative:
                wrt = stage.now(names)
                products[:] = outputs.add_all(_products(result[2].total, wrt, given[len(stage.tensors) :]))
            pairs[:] = [list(zip(outputs.add_all(a), outputs.add_all(b), strict=True)) for a, b in notes.pairs]
        return outputs.tensors

    try:
        with stage.others_kept():
            graph, examples = _traced(step, [*stage.tensors, *cotangents])
    except Exception as error:
        raise reason_of(error) from error
    finally:
        random.restore()
    if (operation := written_input(graph)) is not None:
        raise TracingError(f"training_step writes to a tensor that stays ({operation}), at each evaluation once more")
    unmoved = copied_inputs(graph) & {number for _, number in found[-1].buffers}
    outcome = dataclasses.replace(found[-1], buffers=[b for b in found[-1].buffers if b[1] not in unmoved])
    order = distinct_outputs(graph, without=unmoved)
    sources = [*stage.sources, *map(_nowhere, cotangents)]
    for source, example in lift_constants(graph, stage.elsewhere):
        sources.append(source)
        examples.append(example)
    used = drop_unused_inputs(graph)
    sources, examples = [sources[i] for i in used], [examples[i] for i in used]
    examples += lift_draws(graph)
    if pairs:
        order, marked = order[: pairs[0][0][0]], order
        graph = without_writes(graph, examples)
        evaluate_together(graph, [[(marked[i], marked[k]) for i, k in pair] for pair in pairs], max(order) + 1)
    if not derivative:
        return Recording(graph, examples, sources, drawing.draws, order, outcome, None)
    count = len([number for number in products if number is not None])
    outcomes, first = order[: len(order) - count], max(order[: len(order) - count]) + 1
    places, behind = {number: i for i, number in enumerate(used)}, len(stage.tensors)
    where = Derivative(
        cotangents={places[behind + i]: i for i in range(len(cotangents)) if behind + i in places},
        wrt=[places.get(number) for name in names for number in stage.parameters[name]],
        first=first,
        products=[None if number is None else order[number] - first for number in products],
    )
    return Recording(without_writes(graph, examples), examples, sources, drawing.draws, outcomes, outcome, where)


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


def _traced(step: Callable[..., list[Tensor]], tensors: Sequence[Tensor]) -> tuple[fx.GraphModule, list[Tensor]]:
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    examples: list[Tensor] = [mode.from_tensor(tensor.detach()) for tensor in tensors]
    with warnings.catch_warnings(), mode:
        warnings.simplefilter("ignore")  # the eager steps before said what there is to say
        table: Any = get_decompositions(HIDDEN)
        recorded = make_fx(step, table, tracing_mode="real", _allow_non_fake_inputs=True)
        return recorded(*examples), examples
