"""What a hypergradient method is: a frozen value that pulls a cotangent back through a best response.

With theta*(phi) the solution of a problem and v the derivative of some upper loss with respect to theta*, every method
approximates (implicit function theorem)

    (d theta* / d phi)^T v  =  - (d2F / d phi d theta) H^{-1} v,        H = d2F / d theta2.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from .linearization import Linearization, evaluate, gradients
from .moving import Response
from .tensors import Tensors, negative, subtract


class Method(ABC):
    """A way to differentiate through a problem's solution. Subclasses are frozen dataclasses of their options.

    Attributes:
        name: The name it is registered under.
        needs_tape: True when the method reads the recorded inner loop (``at.objective.tape``).
        reads_optimizer: True when the method reads the optimizer of the problem (``at.objective.optimizer``).
        differences: True when the method takes finite differences over the solution.
        differentiates_choices: True when the method accounts for what the problem samples (``at.objective.draw``).
    """

    name: ClassVar[str] = "?"
    needs_tape: ClassVar[bool] = False
    reads_optimizer: ClassVar[bool] = False
    differences: ClassVar[bool] = False
    differentiates_choices: ClassVar[bool] = False

    @property
    def kept_points(self) -> int:
        """How many of the newest points of a recorded inner loop to keep copies of while it runs."""
        return 0

    @property
    def keeps_graphs(self) -> bool:
        """Whether to keep the graph of each of their gradients beside these points, where that can be done."""
        return False

    def __str__(self) -> str:
        """Name and the options that differ from their defaults: ``cg(iterations=10)``."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]  # every registered method is a dataclass
        chosen = {f.name: getattr(self, f.name) for f in fields if getattr(self, f.name) != f.default}
        return f"{self.name}({', '.join(f'{key}={value}' for key, value in chosen.items())})" if chosen else self.name

    @abstractmethod
    def pull_back(self, at: Linearization, cotangent: Tensors) -> Tensors:
        """Return (d theta* / d phi)^T v, one tensor per input.

        Args:
            at: The problem's objective around its current point.
            cotangent: v, one tensor per solution tensor, of the same shapes and dtypes.
        """

    @abstractmethod
    def displacement(self, base: Response, beside: Response) -> Tensors:
        """Return the first-order change of the solution when its inputs change, without any double backward.

        Args:
            base: The response at its solution.
            beside: The same solution, at other inputs.
        """


class InverseMethod(Method):
    """A method with an approximation P of the inverse Hessian. A subclass writes :meth:`solve`."""

    @abstractmethod
    def solve(self, at: Linearization, vector: Tensors) -> Tensors:
        """Return P v, an approximation of H^{-1} v.

        Args:
            at: The objective around its current point: ``at.hessian_product(v)`` multiplies by the symmetric matrix
                H as often as the method needs, and ``at.state`` is a dict of tensors and numbers that survives from
                one upper step to the next and is saved in checkpoints.
            vector: v, one tensor per solution tensor.
        """

    def displacement(self, base: Response, beside: Response) -> Tensors:
        change = subtract(_gradient(beside), _gradient(base))
        with torch.no_grad():
            return negative(self.solve(Linearization(base.objective, base.solution, base.inputs), change))


class ImplicitMethod(InverseMethod):
    """An :class:`InverseMethod` whose mixed derivative is taken by autograd."""

    def pull_back(self, at: Linearization, cotangent: Tensors) -> Tensors:
        return negative(at.mixed_product(at.inverse_product(self, cotangent)))

    def matrix_product(self, at: Linearization, vector: Tensors) -> Tensors:
        """The matrix that :meth:`solve` inverts, times a vector."""
        return at.hessian_product(vector)


def _gradient(response: Response) -> Tensors:
    solution = tuple(t.detach().requires_grad_() for t in response.solution)
    value = evaluate(response.objective, solution, response.inputs)
    return gradients(value.loss, solution)
