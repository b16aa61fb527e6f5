"""SAMA: the derivative of the optimizer's own update for the inverse Hessian, darts' difference for the mixed product.

Choe, Mehta, Ahn, Neiswanger, Xie, Strubell and Xing 2023 (arXiv 2310.05674), section 3.1. A solution that the optimizer
leaves alone satisfies u(g(theta*, phi)) = 0 with u its update, and differentiating that instead of g = 0 puts du/dg,
diagonal and free, where the identity stood.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from .autograd import scalar_gradients
from .checks import positive
from .errors import ConfigError
from .finite_difference import difference_pull_back
from .linearization import Linearization, evaluate
from .method import InverseMethod
from .objective import Objective
from .registry import register
from .slopes import slope_product
from .standalone import Level, apply_method
from .tensors import Tensors, filled, negative, zeros_like
from .update_rules import Options, ParameterState
from .updates import UpdateRule, group_options, update_rule

if TYPE_CHECKING:
    from torch import Tensor


@register("sama")
@dataclass(frozen=True)
class Sama(InverseMethod):
    """P v = - (d theta' / d g)^T v, where theta' is what the optimizer's *next* step makes of theta and the gradient g.

    The next step: from the optimizer's current state (its step count, hence its bias correction, one on), at the
    current gradient of the objective. Parameter groups count; gradient clipping does not. P includes the learning rate,
    so that changing the optimizer keeps the scale: it is lr I for gradient descent, and there sama is lr times darts.
    One more first-order gradient than darts, and no double backward.

    Where Adam's gradient is exactly zero and always was, P is lr / eps there: that is its update's derivative.

    Args:
        alpha: Length of the shift in the space of the solution.

    Raises:
        ConfigError: alpha <= 0.
    """

    reads_optimizer: ClassVar[bool] = True
    differences: ClassVar[bool] = True

    alpha: float = 0.01

    def __post_init__(self) -> None:
        positive("sama", "alpha", self.alpha)

    def pull_back(self, at: Linearization, cotangent: Tensors) -> Tensors:
        # P depends on the inputs through the gradient. The difference is of partial derivatives, so it is taken with
        # respect to other aliases of the inputs than those.
        apart = Linearization(at.objective, at.solution, at.inputs, differentiable=True) if at.differentiable else at
        return difference_pull_back(apart, self.solve(at, cotangent), self.alpha)

    def solve(self, at: Linearization, vector: Tensors) -> Tensors:
        optimizer, parameters = _optimizer(at.objective, at.solution)
        rule = update_rule(optimizer, parameters)
        states = tuple(optimizer.state.get(p, {}) for p in parameters)
        gradients, options = _gradient(at), group_options(optimizer)
        product = None
        if not at.differentiable:
            product = slope_product(rule, at.solution, gradients, states, options, vector)
        if product is None:
            product = _update_product(rule, at, gradients, states, options, vector)
        return product


def _update_product(
    rule: UpdateRule,
    at: Linearization,
    gradients: Sequence[Tensor | None],
    states: Sequence[ParameterState],
    options: Sequence[Options],
    vector: Tensors,
) -> Tensors:
    """:func:`.slopes.slope_product` for any rule, by autograd."""
    with torch.enable_grad():
        aliases = tuple(
            None if g is None else g.view_as(g) if g.requires_grad else g.detach().requires_grad_() for g in gradients
        )
        known = tuple(g for g in aliases if g is not None)
        if not known:
            return zeros_like(vector)
        updated, _ = rule(at.solution, aliases, states, options)
        derivative = torch.autograd.grad(
            updated, known, grad_outputs=vector, create_graph=at.differentiable, allow_unused=True
        )
    # Where the objective does not depend on a parameter, its optimizer leaves it alone.
    each = iter(derivative)
    return negative(filled([None if g is None else next(each) for g in gradients], vector))


def _gradient(at: Linearization) -> tuple[Tensor | None, ...]:
    """The gradient of the objective, to differentiate the update with respect to."""
    loss = evaluate(at.objective, at.solution, at.inputs).loss
    if not loss.requires_grad:
        return (None,) * len(at.solution)
    return scalar_gradients(loss, at.solution, create_graph=at.differentiable)


def _optimizer(objective: Objective, solution: Tensors) -> tuple[torch.optim.Optimizer, Tensors]:
    optimizer = objective.optimizer
    if optimizer is None:
        raise ConfigError(
            "sama: there is no optimizer whose update could be differentiated; give the problem an optimizer, or use "
            "darts, the same method with the identity in its place"
        )
    held = tuple(p for group in optimizer.param_groups for p in group["params"])
    parameters = objective.parameters or held
    expected, got = [tuple(t.shape) for t in solution], [tuple(p.shape) for p in parameters]
    if expected != got:
        raise ConfigError(f"sama: the optimizer must hold the solution, of shapes {expected}; got parameters of {got}")
    return optimizer, parameters


def sama(vector: Sequence[Tensor], curr: Level, prev: Level | Sequence[Level], sync: bool = False) -> Tensors | None:
    """Pull ``vector`` back through the best response of ``curr`` by the derivative of its optimizer's update.

    See :func:`multilevel.hypergrad.standalone.apply_method` for the arguments, the result and the errors.
    """
    return apply_method(Sama, vector, curr, prev, sync)
