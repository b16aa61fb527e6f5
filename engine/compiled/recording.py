"""A level step as a graph of tensor operations: what the engine does for its gradients, recorded while it does it.

Nothing is written twice: the very code that steps eagerly runs once more, on tensors that have shapes and no values,
and every operation that reaches torch is noted, those of derivatives of any order among them.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import get_decompositions
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from ...hypergrad.errors import TracingError
from ...hypergrad.replay import RandomState
from ...hypergrad.tracing import tracing
from ...problems.problem import Problem
from ..gradients import Gradients
from .draws import Draw, Drawing, lift_draws
from .graphs import copied_inputs, distinct_outputs, drop_unused_inputs, lift_constants, operations, written_input
from .outcome import Outcome, Outputs
from .reads import Source
from .reasons import reason_of
from .staging import Stage

aten = torch.ops.aten
HIDDEN = [aten.native_batch_norm, aten.cudnn_batch_norm, aten.miopen_batch_norm]
"""Operations that write to buffers and do not say so: recorded as the operations that they consist of."""


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
    """

    graph: fx.GraphModule
    examples: list[Tensor]
    sources: list[Source]
    draws: list[Draw]
    order: list[int]
    outcome: Outcome

    @property
    def operations(self) -> int:
        """How many operations the graph has."""
        return operations(self.graph)


def record(stage: Stage, gradients: Gradients, problem: Problem) -> Recording:
    """Record a problem's level step at its current moment.

    Args:
        stage: The tensors it depends on.
        gradients: Differentiates it.
        problem: Whose step.

    Raises:
        TracingError: It cannot be recorded.
    """
    random = RandomState(problem.level.device, host=True)
    found: list[Outcome] = []
    drawing = Drawing()

    def step(*given: Tensor) -> list[Tensor]:
        with stage.taken_by(given, drawing.begin) as buffers, drawing, tracing() as looks:
            moment = problem.level.moment
            assert moment is not None
            evaluation, metrics = problem.level.train(moment)
            result = evaluation.loss, metrics, gradients.rebound().total(problem.name, evaluation.loss)
            outputs = Outputs()
            found.append(Outcome.collect(outputs, result, buffers, stage.new_memories(), looks))
        return outputs.tensors

    try:
        with stage.others_kept():
            graph, examples = _traced(step, stage.tensors)
    except Exception as error:
        raise reason_of(error) from error
    finally:
        random.restore()
    if (operation := written_input(graph)) is not None:
        raise TracingError(f"training_step writes to a tensor that stays ({operation}), at each evaluation once more")
    unmoved = copied_inputs(graph) & {number for _, number in found[-1].buffers}
    outcome = dataclasses.replace(found[-1], buffers=[b for b in found[-1].buffers if b[1] not in unmoved])
    order = distinct_outputs(graph, without=unmoved)
    sources = list(stage.sources)
    for source, example in lift_constants(graph, stage.elsewhere):
        sources.append(source)
        examples.append(example)
    used = drop_unused_inputs(graph)
    sources, examples = [sources[i] for i in used], [examples[i] for i in used]
    return Recording(graph, [*examples, *lift_draws(graph)], sources, drawing.draws, order, outcome)


def _traced(step: Callable[..., list[Tensor]], tensors: Sequence[Tensor]) -> tuple[fx.GraphModule, list[Tensor]]:
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    examples: list[Tensor] = [mode.from_tensor(tensor.detach()) for tensor in tensors]
    with warnings.catch_warnings(), mode:
        warnings.simplefilter("ignore")  # the eager steps before said what there is to say
        table: Any = get_decompositions(HIDDEN)
        recorded = make_fx(step, table, tracing_mode="real", _allow_non_fake_inputs=True)
        return recorded(*examples), examples
