"""A level step as a graph of tensor operations: what the engine does for its gradients, recorded while it does it.

Nothing is written twice: the very code that steps eagerly runs once more, on tensors that have shapes and no values,
and every operation that reaches torch is noted, those of derivatives of any order among them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from ...hypergrad.errors import TracingError
from ...hypergrad.replay import RandomState
from ...hypergrad.tracing import tracing
from ...problems.problem import Problem
from ..gradients import Gradients
from .graphs import distinct_outputs, drop_unused_inputs, lift_constants, random_operation
from .outcome import Outcome, Outputs
from .reads import Source
from .reasons import reason_of
from .staging import Stage


@dataclass(frozen=True)
class Recording:
    """A level step that was recorded.

    Attributes:
        graph: A function of the tensors of ``sources``.
        examples: Tensors without values, like those that the sources give.
        sources: Where each input is found.
        order: Which output of the graph each tensor of the outcome is.
        outcome: What these are.
    """

    graph: fx.GraphModule
    examples: list[Tensor]
    sources: list[Source]
    order: list[int]
    outcome: Outcome

    @property
    def operations(self) -> int:
        """How many operations the graph has."""
        return sum(node.op == "call_function" for node in self.graph.graph.nodes)


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

    def step(*given: Tensor) -> list[Tensor]:
        with stage.taken_by(given) as buffers, tracing() as looks:
            versions, moment = [buffer._version for _, buffer in buffers], problem.level.moment
            assert moment is not None
            evaluation, metrics = problem.level.train(moment)
            result = evaluation.loss, metrics, gradients.rebound().total(problem.name, evaluation.loss)
            moved = [b for b, version in zip(buffers, versions, strict=True) if b[1]._version != version]
            outputs = Outputs()
            found.append(Outcome.collect(outputs, result, moved, stage.new_memories(), looks))
        return outputs.tensors

    try:
        graph, examples = _traced(step, stage.tensors)
    except Exception as error:
        raise reason_of(error) from error
    finally:
        random.restore()
    if (drawn := random_operation(graph)) is not None:
        raise TracingError(f"it draws random numbers ({drawn}), and each evaluation has to draw the same ones")
    order = distinct_outputs(graph)
    sources = list(stage.sources)
    for source, example in lift_constants(graph, stage.elsewhere):
        sources.append(source)
        examples.append(example)
    used = drop_unused_inputs(graph)
    return Recording(graph, [examples[i] for i in used], [sources[i] for i in used], order, found[-1])


def _traced(step: Callable[..., list[Tensor]], tensors: Sequence[Tensor]) -> tuple[fx.GraphModule, list[Tensor]]:
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    examples: list[Tensor] = [mode.from_tensor(tensor.detach()) for tensor in tensors]
    with warnings.catch_warnings(), mode:
        warnings.simplefilter("ignore")  # the eager steps before said what there is to say
        return make_fx(step, tracing_mode="real", _allow_non_fake_inputs=True)(*examples), examples
