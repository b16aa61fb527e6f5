"""Training at copies of a problem's parameters, so that the graphs of its gradients outlive the optimizer's steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from ..hypergrad.autograd import scalar_gradients
from ..hypergrad.errors import ProblemError
from ..hypergrad.grad_mode import grad_mode
from ..hypergrad.lazy_copies import copied, parted
from ..hypergrad.same_bits import same_bits
from ..hypergrad.tape import Back, Gradient, Graph
from ..hypergrad.tensors import Tensors, norm, subtract
from ..hypergrad.tracing import is_readable, is_tracing
from .optimizer_step import is_hooked
from .writes import written

if TYPE_CHECKING:
    from .problem import Problem


class StepGraphs:
    """The graphs of the gradients of a problem's current step.

    An optimizer writes to the parameters in place, and what a graph had saved of them would be gone. So the loss is
    evaluated at copies, which are kept anyway: they are where the step begins.

    Args:
        problem: The problem.
        parameters: Its trainable parameters.
    """

    def __init__(self, problem: Problem, parameters: Tensors) -> None:
        self._problem = problem
        self._parameters = parameters
        self._inputs: Tensors | None = None
        self._hidden_writes = False
        self._after: Tensors = ()
        self.forget()

    def forget(self) -> None:
        """Forget the batches since the last step."""
        self._copies: Tensors | None = None
        self._versions = (0, 0)
        self._gradients: list[tuple[Tensor | None, ...]] = []
        self._backs: list[Back | None] = []
        self._moved: list[Tensor] = []
        self._given: list[tuple[tuple[Tensor | None, ...], int]] = []

    def copies(self) -> Tensors | None:
        """Copies of the parameters to train at; ``None`` where it has to be the parameters themselves."""
        if is_tracing():
            return None
        after, self._after = self._after, ()
        hooked = any([p._backward_hooks for p in self._parameters]) or self._problem.edits_gradients
        if hooked or self._hidden_writes or is_hooked(self._problem.optimizer):
            self.forget()
            return None
        versions = written(self._parameters), self._inputs_written()
        readable = is_readable(self._parameters[0])
        if self._copies is not None:  # from another micro-batch
            moved = readable and not same_bits(self._parameters, self._copies)
            if not moved and versions == self._versions:
                return self._copies
            self.forget()
        self._copies = after if after and readable and same_bits(self._parameters, after) else self._copied()
        self._versions = versions
        return self._copies

    def after_step(self) -> Tensors:
        """Copies of the parameters, to train at next if nothing else writes to these until then."""
        self._after = self._copied()
        return self._after

    def _copied(self) -> Tensors:
        with grad_mode(False):
            return tuple([copied(p).requires_grad_() for p in self._parameters])

    @property
    def are_kept(self) -> bool:
        """Whether the running batch is evaluated at copies."""
        return self._copies is not None

    def gradients(self, loss: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of a loss that was evaluated at the copies; their graphs are kept."""
        copies, size = self._copies or (), len(self._parameters)
        found = scalar_gradients(loss, (*copies, *self._parameters), create_graph=True)
        at_copies, at_parameters = found[:size], found[size:]
        values = tuple([None if g is None else g.detach() for g in at_copies])
        wrote = self._taken_over(copies)
        # A loss may read the parameters past their module, and an evaluation elsewhere does not know.
        if wrote or any([g is not None for g in at_parameters]) or any([g is not None and g.is_sparse for g in values]):
            self.forget()
            return tuple(_sum(g, h) for g, h in zip(values, at_parameters, strict=True))
        return self.keep(at_copies)

    def keep(self, gradients: tuple[Tensor | None, ...], back: Back | None = None) -> tuple[Tensor | None, ...]:
        """Keep the graphs of gradients at the copies; gives their values alone.

        Args:
            gradients: The gradients.
            back: Goes back through them, where they have no graphs.
        """
        values = tuple([None if g is None else g.detach() for g in gradients])
        self._gradients.append(gradients)
        self._backs.append(back)
        if any([group.get("nesterov") for group in self._problem.optimizer.param_groups]):
            values = tuple(None if g is None else g.clone() for g in values)  # torch may write to them
        self._given.append((values, written(values)))
        return values

    def _taken_over(self, copies: Tensors) -> bool:
        """Whether the training step wrote to the copies. It meant the parameters.

        Autograd counts writes, but not those through ``.data``.

        Raises:
            ProblemError: It wrote to the parameters, which the loss was not evaluated at.
        """
        if written(self._parameters) != self._versions[0]:
            raise ProblemError(
                f"problem '{self._problem.name}': training_step writes to a parameter by a reference of its own, where "
                "the copies cannot be found that unroll trains at; write to it through self.module or self.parameters"
            )
        counted = bool(written(copies))
        if not counted and not is_readable(copies[0]):
            self._take_over_unread(copies)
            return False
        if not counted and same_bits(self._parameters, copies):
            return False
        self._hidden_writes |= not counted
        with torch.no_grad():
            torch._foreach_copy_(self._parameters, copies)
        return True

    def _take_over_unread(self, copies: Tensors) -> None:
        """Without waiting for a GPU: how far they were moved is read when the step is looked back at."""
        values = [p.data for p in self._parameters]
        with torch.no_grad():
            self._moved.append(norm(subtract(values, copies)))
            torch._foreach_copy_(values, copies)

    def of_step(self, batches: int, *, with_values: bool) -> Graph | None:
        """The graphs of the batches since the last step; ``None`` where they are not there for every one.

        Args:
            batches: How many there are.
            with_values: Keep the values of the gradients too.
        """
        copies, found, inputs = self._copies, self._gradients, self._versions[1]
        backs, moved = tuple(self._backs), tuple(self._moved)
        # By a callback of the engine: gradients or parameters.
        edited = any([written(values) != count for values, count in self._given])
        edited = edited or written(self._parameters) != self._versions[0]
        self.forget()
        if copies is None or len(found) != batches or edited:
            return None
        parted(copies)  # the optimizer is about to write to the parameters
        values = sum([written(micro) for micro in found]) if with_values else 0
        gradients = found if with_values else [tuple([_edge(g) for g in micro]) for micro in found]
        return Graph(copies, tuple(gradients), backs, (inputs, values), moved=moved)

    def usable(self, graphs: Sequence[Graph | None]) -> list[Graph | None]:
        """Those graphs of which nothing was written to since."""
        inputs = self._inputs_written()
        return [graph if graph is not None and _is_as_it_was(graph, inputs) else None for graph in graphs]

    def _inputs_written(self) -> int:
        if self._inputs is None and (hierarchy := self._problem.level.hierarchy) is not None:
            names = hierarchy.inputs[self._problem.name]
            self._inputs = tuple(p for name in names for p in hierarchy.levels[name].parameters)
        return written(self._inputs or ())


def _is_as_it_was(graph: Graph, inputs: int) -> bool:
    kept = sum(g._version for micro in graph.gradients for g in micro if isinstance(g, Tensor))
    return graph.versions == (inputs, kept) and not written(graph.leaves)


def _edge(gradient: Tensor | None) -> Gradient:
    # What get_gradient_edge() gives of a tensor that is no leaf, in half of its time.
    if gradient is None or not gradient.requires_grad:
        return None
    node = gradient.grad_fn
    return gradient if node is None else GradientEdge(node, gradient.output_nr)


def _sum(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    if x is None or y is None:
        return x if y is None else y.detach()
    return x + y.detach()
