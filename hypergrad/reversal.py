"""The inner loop on a tape, in reverse: one step after another, the last one first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from .autograd import vector_products
from .inner_loop import Gradients, Misses, Point, gradients_of, leaves_of, mean_gradient
from .linearization import Linearization
from .tape import Back, Gradient, Graph, Step, Tape
from .tensors import Tensors, add, filled, scale, zeros_like
from .updates import differentiable_state, with_differentiable_state


class Evaluated(NamedTuple):
    """A step's gradients with their graphs.

    Attributes:
        leaves: What they were taken with respect to.
        inputs: Likewise.
        gradients: Of each of its micro-batches.
        backs: Per micro-batch what goes back through these in place of autograd, if anything does.
    """

    leaves: Tensors
    inputs: Tensors
    gradients: Sequence[tuple[Gradient, ...]]
    backs: Sequence[Back | None]

    def wrt(self, *, whole: bool) -> Tensors:
        """The inputs, and the leaves before them where these are asked for."""
        return (*self.leaves, *self.inputs) if whole else self.inputs

    def products(self, back: Back, cotangents: Sequence[Tensor | None], *, whole: bool) -> Tensors:
        """What a micro-batch adds to the cotangents of :meth:`wrt`."""
        wrt = self.wrt(whole=whole)
        return filled(back(cotangents, wrt, whole=whole), wrt)


class Reversal:
    """Pulls a cotangent back through the steps of a loop.

    Args:
        tape: The loop.
        at: Where it ended.
        cotangent: Of that.

    Attributes:
        solution: The cotangent of where the last step that was reversed begins.
        misses: How far from the recorded loop the steps end that were evaluated again.
    """

    def __init__(self, tape: Tape, at: Linearization, cotangent: Tensors) -> None:
        self._tape = tape
        self._at = at
        self._states: Tensors = ()
        self._after = tuple(at.solution)
        self._has_graphs = _have_graphs(tape, at)
        self.solution = tuple(cotangent)
        self._inputs: Tensors | None = None
        self.misses = Misses(len(tape.steps))

    def step(self, step: Step, point: Point, *, whole: bool) -> None:
        """Reverse one step.

        Args:
            step: The step before those reversed so far.
            point: Where it begins.
            whole: Whether the cotangent of that is asked for.
        """
        graph = step.graph if self._has_graphs else None
        if graph is None or not self._through(graph, step, point, whole=whole):
            self._again(step, point, whole=whole)
        self._after = point.solution

    def _through(self, graph: Graph, step: Step, point: Point, *, whole: bool) -> bool:
        """Reverse a step through the graph that was kept of it, and say whether that was possible."""
        gradients, backs = graph.take()
        if not gradients:
            return False
        try:
            self._back(step, point, Evaluated(graph.leaves, self._tape.inputs, gradients, backs), whole=whole)
        except RuntimeError:
            # Something it depends on (a buffer) was written to since. Whatever else is wrong with it shows again.
            return False
        return True

    def _again(self, step: Step, point: Point, *, whole: bool) -> None:
        """Reverse a step by evaluating its objectives again."""
        leaves = leaves_of(point.solution)
        found = gradients_of(step, leaves, self._at.inputs, create_graph=True)
        with torch.no_grad():
            gradient = step.clipping(mean_gradient(found))
            end, _ = self._tape.rule(point.solution, gradient, point.states, step.groups)
        self.misses.note(point.solution, end, self._after)
        self._back(step, point, Evaluated(leaves, self._at.inputs, found, (None,) * len(found)), whole=whole)

    def _back(self, step: Step, point: Point, found: Evaluated, *, whole: bool) -> None:
        rate = None if step.clipping else self._tape.rule.descent_rate(step.groups)
        if rate is None:
            self._update_back(step, point, found, whole=whole)
        else:
            self._descend_back(rate, found, whole=whole)

    def _add(self, inputs: Tensors, factor: float | Tensor = 1.0) -> None:
        self._inputs = scale(inputs, factor) if self._inputs is None else add(self._inputs, inputs, factor)

    @property
    def inputs(self) -> Tensors:
        """What the steps so far add to the cotangents of the inputs."""
        return zeros_like(self._at.inputs) if self._inputs is None else self._inputs

    def _update_back(self, step: Step, point: Point, found: Evaluated, *, whole: bool) -> None:
        """By the derivative of the optimizer's update."""
        states = leaves_of(differentiable_state(point.states))
        before = with_differentiable_state(point.states, states)
        # Their values are kept where they are needed.
        gradients = [
            cast("Gradients", micro) if back is None else _leaves(cast("Gradients", micro))
            for micro, back in zip(found.gradients, found.backs, strict=True)
        ]
        with torch.enable_grad():
            gradient = step.clipping(mean_gradient(gradients))
            after, states_after = self._tape.rule(found.leaves, gradient, before, step.groups)
        outputs = (*after, *differentiable_state(states_after))
        weights = (*self.solution, *(self._states or zeros_like(outputs[len(after) :])))
        wrt = (*found.leaves, *states) if whole else ()
        cut = [g for micro, back in zip(gradients, found.backs, strict=True) if back for g in micro if g is not None]
        cotangents = vector_jacobian_product(outputs, (*wrt, *found.inputs, *cut), weights)
        middle, end, last = len(found.leaves) if whole else 0, len(wrt), len(wrt) + len(found.inputs)
        rest = iter(cotangents[last:])
        products = [
            found.products(back, [None if g is None else next(rest) for g in micro], whole=whole)
            for micro, back in zip(gradients, found.backs, strict=True)
            if back is not None
        ]
        self.solution, self._states = cotangents[:middle], cotangents[middle:end]
        self._add(cotangents[end:last])
        self._add_all(products, found)

    def _descend_back(self, rate: float | Tensor, found: Evaluated, *, whole: bool) -> None:
        """By theta' = theta - rate g, where nothing more is done: the values of the gradients do not matter."""
        products = [found.products(back, self.solution, whole=whole) for back in found.backs if back is not None]
        micros = [micro for micro, back in zip(found.gradients, found.backs, strict=True) if back is None]
        if micros:
            outputs, wrt = [g for micro in micros for g in micro], found.wrt(whole=whole)
            products.append(vector_jacobian_product(outputs, wrt, self.solution * len(micros)))
        self.solution = self.solution if whole else ()
        self._add_all(products, found, -rate / len(found.gradients))

    def _add_all(self, products: Sequence[Tensors], found: Evaluated, factor: float | Tensor = 1.0) -> None:
        """Add cotangents of the inputs, and those of the leaves before them where they are there."""
        for cotangents in products:
            size = len(cotangents) - len(found.inputs)
            self._add(cotangents[size:], factor)
            if size:
                self.solution = add(self.solution, cotangents[:size], factor)


def vector_jacobian_product(
    outputs: Sequence[Gradient], wrt: Tensors, weights: Sequence[Tensor], *, create_graph: bool = False
) -> Tensors:
    """Weights times the derivative of the outputs, zeros where nothing depends on a tensor."""
    pairs = [(o, w) for o, w in zip(outputs, weights, strict=True) if _has_graph(o)]
    if not pairs or not wrt:
        return zeros_like(wrt)
    connected, cotangents = zip(*pairs, strict=True)
    if not create_graph:
        products = vector_products(connected, wrt, cotangents, retain_graph=False, create_graph=False)
        return filled(products, wrt)
    return filled(torch.autograd.grad(connected, wrt, cotangents, create_graph=True, allow_unused=True), wrt)


def _leaves(gradients: Gradients) -> Gradients:
    """The same values, to differentiate with respect to."""
    return tuple([None if g is None else g.detach().requires_grad_() for g in gradients])


def _has_graph(output: Gradient) -> bool:
    return output.requires_grad if isinstance(output, Tensor) else output is not None


def _have_graphs(tape: Tape, at: Linearization) -> bool:
    """Whether what was kept of the steps led to the solution, at these inputs."""
    graphs = [step.graph for step in tape.steps if step.graph is not None]
    if not graphs or at.objective.nested or len(tape.inputs) != len(at.inputs):
        return False
    if any(a.data_ptr() != b.data_ptr() for a, b in zip(tape.inputs, at.inputs, strict=True)):
        return False
    last = tape.steps[-1].graph
    if last is not None and not last.leads_to(at.solution):
        return False
    moved = [number for graph in graphs for number in graph.moved]
    return not moved or not torch.stack(moved).any()
