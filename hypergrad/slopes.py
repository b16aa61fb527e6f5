"""d theta' / d g of an optimizer's update, in closed form: every rule works element by element, so it is a diagonal.

What autograd finds from :mod:`.update_rules` too, in a third of the time and without a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from .update_rules import Options, ParameterRule, ParameterState, adam, adamw, counted, scalar, sgd, with_weight_decay
from .updates import UpdateRule

Slope: TypeAlias = Callable[[Tensor, Tensor, ParameterState, Options], "float | Tensor | None"]


def slopes(
    rule: UpdateRule,
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    states: Sequence[ParameterState],
    options: Sequence[Options],
) -> list[float | Tensor] | None:
    """The diagonal for each parameter that has a gradient; ``None`` where some closed form is not known.

    Args:
        rule: The update.
        parameters: In the order that the rule was made for.
        gradients: One per parameter; those without are left alone.
        states: What the optimizer keeps, per parameter.
        options: What it is set to, per parameter group.
    """
    slope = SLOPES.get(rule.rule)
    if slope is None:
        return None
    found: list[float | Tensor] = []
    with torch.no_grad():
        for parameter, gradient, state, group in zip(parameters, gradients, states, rule.groups, strict=True):
            if gradient is None:
                continue
            value = slope(parameter, gradient, state, options[group]) if group is not None else 0.0
            if value is None:
                return None
            found.append(value)
    return found


def sgd_slope(parameter: Tensor, gradient: Tensor, state: ParameterState, options: Options) -> float | Tensor:
    """- lr (1 - dampening), with Nesterov's momentum - lr (1 + momentum (1 - dampening))."""
    momentum = options["momentum"]
    share = 1.0
    if momentum != 0:
        share = 1.0 if state.get("momentum_buffer") is None else 1 - options["dampening"]
        share = 1 + momentum * share if options["nesterov"] else share
    slope: float | Tensor = scalar(options["lr"]) * (share if options["maximize"] else -share)
    return slope


def adam_slope(parameter: Tensor, gradient: Tensor, state: ParameterState, options: Options) -> Tensor | None:
    """With m and s the new moments, r = sqrt(s) / c the corrected root and d = r + eps:

    - lr / (1 - beta1^t) [(1 - beta1) / d - m (1 - beta2) g / (c sqrt(s) d^2)],  c = sqrt(1 - beta2^t).
    """
    if options["amsgrad"]:
        return None
    (beta1, beta2), eps = options["betas"], options["eps"]
    decoupled = options.get("decoupled_weight_decay", False)
    sign = -1.0 if options["maximize"] else 1.0
    gradient = sign * gradient if decoupled else with_weight_decay(parameter, gradient, options)
    count, _ = counted(state)
    correction = (1 - beta2**count) ** 0.5
    mean, square = (1 - beta1) * gradient, ((1 - beta2) * gradient).mul_(gradient)
    if "exp_avg" in state:
        mean.add_(state["exp_avg"], alpha=beta1)
        square.add_(state["exp_avg_sq"], alpha=beta2)
    root = square.sqrt_()
    inner = mean.mul_(gradient).mul_(1 - beta2).div_(root)
    inner = torch.where(root == 0, torch.zeros_like(inner), inner)  # as safe_sqrt: its derivative at zero is zero
    denominator = (root / correction).add_(eps)
    slope = inner.div_(denominator).div_(-correction).add_(1 - beta1).div_(denominator)
    return slope.mul_(-sign * scalar(options["lr"]) / (1 - beta1**count))


def _adamw_slope(parameter: Tensor, gradient: Tensor, state: ParameterState, options: Options) -> Tensor | None:
    return adam_slope(parameter, gradient, state, {**options, "decoupled_weight_decay": True})


SLOPES: Mapping[ParameterRule, Slope] = {sgd: sgd_slope, adam: adam_slope, adamw: _adamw_slope}
"""The closed forms of the commonest rules."""
