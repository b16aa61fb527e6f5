"""Oracles for hypergradients, in plain torch: nothing here is the library's.

A hierarchy is a dict of losses. Two ways lead to the total gradient of its top problem: solve everything below again at
shifted values and take finite differences, or differentiate the stationarity conditions by dense algebra. The second
also predicts what a method computes that puts something else in place of an inverse Hessian.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor
from torch.func import jacrev

Values: TypeAlias = dict[str, Tensor]
Field: TypeAlias = Callable[[Values], Tensor]
Edges: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Hierarchy:
    """Losses and who is above whom.

    Attributes:
        losses: By name, listed so that every problem comes after those that it responds to. Each is a function of the
            vectors of the problem itself and of its neighbours.
        start: Where to begin to solve; the values of those that are on top.
        constrains: Pairs (upper, lower): the upper's vector enters the lower's loss.
        reads: Pairs (upper, lower): the lower's solution enters the upper's loss.
    """

    losses: Mapping[str, Field]
    start: Values
    constrains: Edges
    reads: Edges

    def below(self, name: str) -> list[str]:
        """Everything below, in the order of the losses."""
        found, front = set(), {name}
        while front:
            front = {low for up, low in (*self.constrains, *self.reads) if up in front} - found
            found |= front
        return [other for other in self.losses if other in found]

    @property
    def tops(self) -> list[str]:
        """The problems with nothing above them."""
        lowers = {low for _, low in (*self.constrains, *self.reads)}
        return [name for name in self.losses if name not in lowers]


# --- Solving again ---


def settled(hierarchy: Hierarchy, values: Values, name: str) -> Values:
    """Everything below ``name`` at its solution: each at the minimum of its loss with everything below *it* solved."""
    for member in hierarchy.below(name):
        values = minimised(hierarchy, values, member)
    return values


def minimised(hierarchy: Hierarchy, values: Values, name: str) -> Values:
    """Newton's method on the total objective of ``name``; what is below it is solved again at every iterate."""
    for _ in range(60):
        values = settled(hierarchy, values, name)
        formula = Formula(hierarchy, values)
        gradient = formula.gradient(name, values)
        step = torch.linalg.solve(formula.hessian(name, values), gradient)
        values = {**values, name: values[name] - step}
        if step.norm() <= 1e-11 * (1 + values[name].norm()):
            return settled(hierarchy, values, name)
    raise RuntimeError(f"the oracle did not solve '{name}'")


def total_loss(hierarchy: Hierarchy, values: Values, name: str) -> Tensor:
    """The loss of ``name`` with everything below solved again."""
    return hierarchy.losses[name](settled(hierarchy, values, name))


def difference_gradient(hierarchy: Hierarchy, values: Values, name: str, size: float = 2e-3) -> Tensor:
    """Its gradient by central differences of fourth order."""

    def shifted(direction: Tensor) -> Tensor:
        return total_loss(hierarchy, {**values, name: values[name] + size * direction}, name)

    slopes = [
        (8 * (shifted(e) - shifted(-e)) - (shifted(2 * e) - shifted(-2 * e))) / (12 * size)
        for e in torch.eye(len(values[name]))
    ]
    return torch.stack(slopes)


# --- Differentiating the stationarity conditions ---


@dataclass(frozen=True)
class Inverse:
    """What stands for an inverse Hessian.

    Attributes:
        matrix: P as a function of H.
        first_order: The method differences gradients: P is a constant, the mixed derivative that of dF/dphi along
            theta (not of dF/dtheta along phi: that is another one as soon as F's own gradient is approximate), and what
            is below moves by P times the change of its gradient. Otherwise the derivative of P is - P dH P, as if it
            were the inverse.
    """

    matrix: Callable[[Tensor], Tensor] = field(repr=False)  # a lambda's address would be another in every process
    first_order: bool = False


EXACT = Inverse(torch.linalg.inv)


class Formula:
    """The implicit function theorem, nested, with P in place of every H^{-1}.

    Every vector of ``values`` is free here; that a problem responds is put in by the chain rule alone:

        Theta_m = - P_m T_m[G_m],      T_j[f] = df + sum over m below j of (df / d theta_m) D_m,      G_m = T_m[L_m],

    with D_m the total movement of m when what is not below j moves: Theta_m applied to the movements of m's inputs.

    Args:
        hierarchy: The problems.
        values: The solution.
        inverses: P by problem; the inverse itself where none is given.
    """

    def __init__(self, hierarchy: Hierarchy, values: Values, inverses: Mapping[str, Inverse] | None = None) -> None:
        self.hierarchy = hierarchy
        self.inverses = {name: (inverses or {}).get(name, EXACT) for name in hierarchy.losses}
        self.anchors: dict[str, tuple[Tensor, Tensor]] = {}
        for name in reversed(hierarchy.losses):
            if self.inverses[name] is not EXACT and name not in hierarchy.tops:
                hessian = self.hessian(name, values)
                self.anchors[name] = hessian, self.inverses[name].matrix(hessian)

    def gradient(self, name: str, values: Values, wrt: str | None = None) -> Tensor:
        """G_name: the total gradient of a problem's loss with respect to its own vector, or another's."""
        return self.total(name, self.hierarchy.losses[name], values)[wrt or name]

    def hessian(self, name: str, values: Values) -> Tensor:
        """The derivative of G_name along its own vector."""
        return self.total(name, lambda v: self.gradient(name, v), values)[name]

    def total(self, name: str, field: Field, values: Values, *, by_difference: bool = False) -> Values:
        """The Jacobian of ``field`` in everything that is not below ``name``, with what is below responding."""
        partial: Values = jacrev(field)(values)
        movements = self._movements(name, values, by_difference)
        return {
            other: partial[other] + sum(partial[m] @ movement[other] for m, movement in movements.items())
            for other in partial
            if other not in movements
        }

    def _movements(self, name: str, values: Values, by_difference: bool) -> dict[str, Values]:
        below = self.hierarchy.below(name)
        outside = [other for other in self.hierarchy.losses if other not in below]
        movements: dict[str, Values] = {}
        for member in below:
            response = self._response(member, values, by_difference)
            movements[member] = {
                other: response[other] + sum(response[m] @ movements[m][other] for m in movements if m in response)
                for other in outside
            }
        return movements

    def _response(self, name: str, values: Values, by_difference: bool) -> Values:
        """Theta_name: the Jacobian of a best response in everything that is not below it."""
        first_order = self.inverses[name].first_order
        jacobians = self.total(name, lambda v: self.gradient(name, v), values, by_difference=by_difference)
        inverse = self._inverse(name, jacobians.pop(name))
        if not first_order or by_difference:
            return {other: -inverse @ jacobian for other, jacobian in jacobians.items()}
        along = {
            other: self.total(name, lambda v, o=other: self.gradient(name, v, o), values, by_difference=True)[name]
            for other in jacobians
        }
        return {other: -inverse.mT @ jacobian.mT for other, jacobian in along.items()}

    def _inverse(self, name: str, hessian: Tensor) -> Tensor:
        if name not in self.anchors:
            return torch.linalg.inv(hessian)
        anchor, inverse = self.anchors[name]
        if self.inverses[name].first_order:
            return inverse
        # The function of H that is P at the anchor and has the derivative - P dH P everywhere.
        return inverse @ torch.linalg.inv(torch.eye(len(hessian)) + (hessian - anchor) @ inverse)


def bilevel_gradient(
    hierarchy: Hierarchy, values: Values, name: str, solve: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """The formula for one lower, where ``solve(H, v)`` need not be linear in v."""
    (lower,) = hierarchy.below(name)
    direct = jacrev(hierarchy.losses[name])(values)
    second = jacrev(jacrev(hierarchy.losses[lower]))(values)[lower]
    return direct[name] - second[name].mT @ solve(second[lower], direct[lower])
