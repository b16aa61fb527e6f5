"""A problem's objective F(solution, inputs) around one point: everything a method may ask about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .autograd import scalar_gradients, vector_products
from .grad_mode import grad_mode
from .moving import Counting, Pass, evaluating, moved, recorded
from .objective import Evaluation, Objective, State
from .once import once
from .tally import count
from .tensors import Tensors, add, filled

if TYPE_CHECKING:
    from .method import ImplicitMethod
    from .moving import Response


class Linearization:
    """First and second derivatives of an objective at ``(solution, inputs)``.

    Args:
        objective: F, evaluated again for each gradient that is needed.
        solution: One tensor per parameter of the problem.
        inputs: The tensors that the best response depends on.
        differentiable: Record every product, so that the result can be differentiated again. The default computes
            values only and takes no part in any graph.

    Attributes:
        solution: Aliases of the tensors given, to differentiate with respect to.
        inputs: Likewise.
    """

    def __init__(
        self,
        objective: Objective,
        solution: Sequence[Tensor],
        inputs: Sequence[Tensor],
        *,
        differentiable: bool = False,
    ) -> None:
        # Aliases, not the tensors themselves: a partial derivative with respect to a tensor that has a history would
        # include the paths through that history (and re-enter the node that called us, for ever).
        alias = _view if differentiable else _leaf
        self.objective = objective
        self.solution: Tensors = tuple(alias(t) for t in solution)
        self.inputs: Tensors = tuple(alias(t) for t in inputs)
        self.differentiable = differentiable
        self._origin = (tuple(solution), tuple(inputs))

    def of(self, objective: Objective) -> Linearization:
        """Another objective around the same point."""
        return Linearization(objective, *self._origin, differentiable=self.differentiable)

    @property
    def state(self) -> State:
        """What the method remembers from earlier upper steps."""
        return self.objective.state

    @once
    def evaluation(self) -> Evaluation:
        """F at the point, with its graph. Evaluated once."""
        return evaluate(self.objective, self.solution, self.inputs)

    @once
    def gradient(self) -> Tensors:
        """dF/dtheta with its graph, one tensor per solution tensor. Evaluated once."""
        return gradients(self.evaluation.loss, self.solution, create_graph=True)

    def hessian_product(self, vector: Tensors) -> Tensors:
        """H v with H = d2F/dtheta2, and the curvature of the optimizer's weight decay."""
        count("hessian_products")
        product = self._gradient_vjp(self.solution, vector, retain_graph=True)
        # Embeddings with sparse=True give sparse ones, which solvers cannot take inner products of.
        return self.decayed(tuple(p.to_dense() if p.is_sparse else p for p in product), vector)

    def decayed(self, product: Tensors, vector: Tensors) -> Tensors:
        """A matrix times a vector, with the curvature of the optimizer's weight decay added to the matrix."""
        decay = self.objective.decay
        return tuple([p + d * v for p, d, v in zip(product, decay, vector, strict=True)]) if decay else product

    def mixed_product(self, vector: Tensors) -> Tensors:
        """(d2F / dphi dtheta) v, one tensor per input. Frees the graph of :attr:`gradient`: ask for it last."""
        count("mixed_products")
        product = self._gradient_vjp(self.inputs, vector, retain_graph=self.differentiable)
        if not self.differentiable:
            del self.gradient, self.evaluation
        return product

    def inverse_product(self, method: ImplicitMethod, vector: Tensors) -> Tensors:
        """H^{-1} v as the method approximates it.

        When this linearization is differentiable so is the result, by a second solve with the same method: its
        derivative is that of the exact formula, d(H^{-1} v) = H^{-1} dv - H^{-1} dH H^{-1} v, with every inverse
        replaced by the method's.
        """
        from .solve import differentiable_solve

        if self.differentiable:
            return differentiable_solve(method, self.objective, *self._origin, vector)
        with torch.no_grad():
            return method.solve(self, vector)

    def input_gradient(self, direction: Tensors, step: float | Tensor = 1.0) -> Tensors:
        """dF/dphi at theta + step * direction, one tensor per input, from first derivatives alone.

        Responses inside the objective move along, to first order.
        """
        with torch.set_grad_enabled(self.differentiable):
            point = add(self.solution, direction, step)
        # Aliases once more: the direction may itself depend on the inputs, and this is a partial derivative.
        inputs = tuple(_view(t) for t in self.inputs) if self.differentiable else self.inputs
        counting = Counting()
        value = None if self._responses else evaluate(self.objective, point, inputs, counting)
        if value is None or counting.count:
            self._responses = self._responses or recorded(self.objective, *self._origin)
            beside = moved(self.objective, self._responses, point, inputs)
            value = evaluate(beside, point, inputs)
        return gradients(value.loss, inputs, create_graph=self.differentiable)

    _responses: list[Response] | None = None

    def _gradient_vjp(self, wrt: Tensors, vector: Tensors, *, retain_graph: bool) -> Tensors:
        # A gradient that does not depend on anything (a linear objective) has no graph to go back through.
        pairs = [(g, v) for g, v in zip(self.gradient, vector, strict=True) if g.requires_grad]
        if not pairs or not wrt:
            return filled([None] * len(wrt), wrt)
        outputs, weights = zip(*pairs, strict=True)
        again = self.differentiable
        products = vector_products(outputs, wrt, weights, retain_graph=retain_graph or again, create_graph=again)
        return filled(products, wrt)


def evaluate(objective: Objective, solution: Tensors, inputs: Tensors, new: Pass | None = None) -> Evaluation:
    """Evaluate an objective, with its graph, as an evaluation of its own inside whatever is running."""
    count("evaluations")
    with grad_mode(True), evaluating(new or Pass()):
        return objective(solution, inputs)


def gradients(value: Tensor, wrt: Tensors, *, create_graph: bool = False) -> Tensors:
    """Gradients of a scalar, zeros where it does not depend on a tensor."""
    if not value.requires_grad or not wrt:
        return filled([None] * len(wrt), wrt)
    count("gradients")
    return filled(scalar_gradients(value, wrt, create_graph=create_graph), wrt)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def _view(tensor: Tensor) -> Tensor:
    with torch.enable_grad():
        tensor = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
        return tensor.view_as(tensor)
