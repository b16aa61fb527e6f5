"""Unrolled differentiation: reverse mode through the steps that the optimizer took.

Maclaurin, Duvenaud and Adams 2015 (arXiv 1502.03492); truncated as in Shaban et al. 2019 (arXiv 1810.10667). What is
differentiated is the program (optimizer, momentum, clipping and all), not the stationary point it heads for, so nothing
has to have converged. With theta_{k+1}, s_{k+1} = Phi_k(theta_k, s_k, phi), s the optimizer's state,

    (d theta_K / d phi)^T v = sum over k of (dPhi_k / d phi)^T c_{k+1},    c_k = (dPhi_k / d(theta_k, s_k))^T c_{k+1},

with c_K = (v, 0). The gradient of each step is differentiated by the graph that training computed it with, or evaluated
again when its turn comes, so that no graph outlives its step.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from .checks import at_least
from .errors import ConfigError, choices
from .inner_loop import (
    Point,
    advance,
    beginning,
    check_end,
    recorded_loop,
    tape_beside,
)
from .linearization import Linearization
from .method import Method
from .moving import Response
from .registry import register
from .reversal import Reversal, vector_jacobian_product
from .standalone import Level, apply_method
from .tape import Tape
from .tensors import Tensors, add, subtract

if TYPE_CHECKING:
    from torch import Tensor


CHECKPOINTS = ("graphs", "all", "sqrt")


@register("unroll")
@dataclass(frozen=True)
class Unroll(Method):
    """The exact derivative of the inner loop as it ran, in as many double backward passes as it has steps.

    A graph is kept of the steps of a problem without lowers. Where one is of no use its step is evaluated again, to the
    same result: where an upper has moved since, after a resume, in a second hypergradient at one point, with
    ``roll_back``, ``precision="fp16"`` or a ``grad_callback``, and below a middle level.

    Where an upper level differentiates this derivative again, the whole inner loop is one graph, of a size that grows
    with the number of steps, whatever ``checkpoints`` says. Where an upper level takes finite differences instead, the
    loop is run again beside its inputs, in full.

    Args:
        truncation: Differentiate the last so many steps only, as if the loop had started there; 0 for all of them.
        checkpoints: What to keep while the loop runs. ``"graphs"``: of every step the parameters, the optimizer's state
            and the graph of the gradient, in the memory of a loop written by hand whose graph one backward pass goes
            through, and little more than its time. ``"all"``: no graphs, for two more gradients a step, one of them
            recorded; about twice the time, and the activations of one step only. ``"sqrt"``: the start, from which
            about 2 sqrt(steps) of these points are found again, for one or two more gradients a step than that
            (Griewank 1992).

    Raises:
        ConfigError: truncation < 0, or another word for checkpoints.
    """

    needs_tape: ClassVar[bool] = True

    truncation: int = 0
    checkpoints: Literal["graphs", "all", "sqrt"] = "graphs"

    def __post_init__(self) -> None:
        at_least("unroll", "truncation", self.truncation, 0)
        if self.checkpoints not in CHECKPOINTS:
            raise ConfigError(
                f"unroll: unknown checkpoints '{self.checkpoints}'{choices(str(self.checkpoints), CHECKPOINTS)}"
            )

    @property
    def keeps_graphs(self) -> bool:
        return self.checkpoints == "graphs"

    @property
    def kept_points(self) -> int:
        """As many steps as are differentiated, unless most of their points are to be found again."""
        return 0 if self.checkpoints == "sqrt" else self.truncation or sys.maxsize

    def pull_back(self, at: Linearization, cotangent: Tensors) -> Tensors:
        tape = recorded_loop(at.objective)
        if at.differentiable:
            return self._pull_back_differentiably(tape, at, cotangent)
        first, count = self._first(tape), len(tape.steps)
        length = math.ceil(math.sqrt(count - first)) if self.checkpoints == "sqrt" else count - first
        segments = [range(k, min(k + length, count)) for k in range(first, count, length)]
        points = _kept(tape, first)
        if points is None:
            # The last segment is reversed at once, so its points are kept on the way; the others' are found again.
            points, end = _replayed(tape, at.inputs, keep={segment.start for segment in segments} | set(segments[-1]))
            check_end(tape, end, at.solution)
        from_inputs = first == 0 and tape.initial is not None
        reversal = Reversal(tape, at, cotangent)
        for segment in reversed(segments):
            for k in segment[:-1]:
                if k + 1 not in points:
                    points[k + 1] = advance(tape, tape.steps[k], points[k], at.inputs)
            for k in reversed(segment):
                reversal.step(tape.steps[k], points.pop(k), whole=k > first or from_inputs)
        reversal.misses.check()
        if not from_inputs or tape.initial is None:
            return reversal.inputs
        with torch.enable_grad():
            start = tape.initial(at.inputs)
        return add(reversal.inputs, vector_jacobian_product(start, at.inputs, reversal.solution))

    def displacement(self, base: Response, beside: Response) -> Tensors:
        tape = recorded_loop(base.objective)
        with torch.no_grad():
            _, end = tape_beside(tape, base.inputs, beside.inputs)
        return subtract(end, base.solution)

    def _pull_back_differentiably(self, tape: Tape, at: Linearization, cotangent: Tensors) -> Tensors:
        first = self._first(tape)
        points, end = _replayed(tape, at.inputs, keep={first})
        check_end(tape, end, at.solution)
        with torch.enable_grad():
            # The loop is a function of the inputs alone, and so is its derivative: at.solution, which is their function
            # as well, does not enter.
            point = beginning(tape, at.inputs) if first == 0 else points[first]
            for step in tape.steps[first:]:
                point = advance(tape, step, point, at.inputs, create_graph=True)
            return vector_jacobian_product(point.solution, at.inputs, cotangent, create_graph=True)

    def _first(self, tape: Tape) -> int:
        return max(0, len(tape.steps) - self.truncation) if self.truncation else 0


def _kept(tape: Tape, first: int) -> dict[int, Point] | None:
    """The points before the steps from ``first`` on, where all of them were kept."""
    points = {k: Point(*step.before) for k, step in enumerate(tape.steps) if k >= first and step.before is not None}
    return points if len(points) == len(tape.steps) - first else None


def _replayed(tape: Tape, inputs: Tensors, keep: Iterable[int]) -> tuple[dict[int, Point], Tensors]:
    """The points before the steps in ``keep``, and where the loop ends."""
    keep, points = set(keep), {}
    with torch.no_grad():
        point = beginning(tape, inputs)
        for k, step in enumerate(tape.steps):
            if k in keep:
                points[k] = point
            point = advance(tape, step, point, inputs)
    return points, point.solution


def unroll(vector: Sequence[Tensor], curr: Level, prev: Level | Sequence[Level], sync: bool = False) -> Tensors | None:
    """Pull ``vector`` back through the inner loop of ``curr``.

    See :func:`multilevel.hypergrad.standalone.apply_method` for the arguments, the result and the errors.
    """
    return apply_method(Unroll, vector, curr, prev, sync)
