"""- d theta' / d g of an optimizer's update times a vector, in closed form: every rule works element by element.

What autograd finds from :mod:`.update_rules` too, in a quarter of the time and without a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from .tensors import Tensors, add, filled, negative, scale, zeros_like
from .update_rules import Options, ParameterRule, ParameterState, adam, adamw, exponent, scalar, sgd
from .updates import UpdateRule

SlopeProduct: TypeAlias = Callable[[Tensors, Tensors, Sequence[ParameterState], Options, Tensors], "Tensors | None"]
"""(parameters, gradients, states, options, vector) -> - (d theta' / d g) vector, for a group at one stage."""


def slope_product(
    rule: UpdateRule,
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    states: Sequence[ParameterState],
    options: Sequence[Options],
    vector: Tensors,
) -> Tensors | None:
    """- (d theta' / d g) v, zero for a parameter without a gradient; ``None`` where some closed form is not known.

    Args:
        rule: The update.
        parameters: In the order that the rule was made for.
        gradients: One per parameter.
        states: What the optimizer keeps, per parameter.
        options: What it is set to, per parameter group.
        vector: v, one tensor per parameter.
    """
    closed_form = SLOPE_PRODUCTS.get(rule.rule)
    if closed_form is None:
        return None
    alike: dict[tuple[int, Hashable], list[int]] = {}
    for i, (gradient, state, group) in enumerate(zip(gradients, states, rule.groups, strict=True)):
        if gradient is not None and group is not None:
            alike.setdefault((group, _stage(state)), []).append(i)
    product: list[Tensor | None] = [None] * len(vector)
    with torch.no_grad():
        for (group, _), members in alike.items():
            known = tuple(g for i in members if (g := gradients[i]) is not None)
            own, along = tuple(parameters[i] for i in members), tuple(vector[i] for i in members)
            part = closed_form(own, known, [states[i] for i in members], options[group], along)
            if part is None:
                return None
            for i, tensor in zip(members, part, strict=True):
                product[i] = tensor
        return filled(product, vector)


def _stage(state: ParameterState) -> Hashable:
    """What the numbers in a closed form depend on, beside the options: what is kept yet, and after how many steps."""
    return tuple(key for key, value in state.items() if value is not None), _steps(state)


def _steps(state: ParameterState) -> float | Tensor:
    step = state.get("step", 0.0)
    return exponent(step) if isinstance(step, Tensor) else step


def sgd_product(
    parameters: Tensors, gradients: Tensors, states: Sequence[ParameterState], options: Options, vector: Tensors
) -> Tensors:
    """lr (1 - dampening) v, with Nesterov's momentum lr (1 + momentum (1 - dampening)) v."""
    momentum = options["momentum"]
    share = 1.0
    if momentum != 0:
        share = 1.0 if states[0].get("momentum_buffer") is None else 1 - options["dampening"]
        share = 1 + momentum * share if options["nesterov"] else share
    return scale(vector, scalar(options["lr"]) * (-share if options["maximize"] else share))


def adam_product(
    parameters: Tensors, gradients: Tensors, states: Sequence[ParameterState], options: Options, vector: Tensors
) -> Tensors | None:
    """With m and s the new moments, c = sqrt(1 - beta2^t) and d = sqrt(s) + c eps:

    lr c / (1 - beta1^t) [(1 - beta1) - m (1 - beta2) g / (sqrt(s) d)] v / d.
    """
    if options["amsgrad"]:
        return None
    (beta1, beta2), decay = options["betas"], options["weight_decay"]
    gradients = negative(gradients) if options["maximize"] else gradients
    if decay != 0 and not options.get("decoupled_weight_decay", False):
        gradients = add(gradients, parameters, decay)
    count = _steps(states[0]) + 1
    correction = (1 - beta2**count) ** 0.5
    mean = torch._foreach_lerp(_moments(states, "exp_avg", parameters), gradients, 1 - beta1)
    root = torch._foreach_mul(_moments(states, "exp_avg_sq", parameters), beta2)
    torch._foreach_addcmul_(root, gradients, gradients, value=1 - beta2)
    torch._foreach_sqrt_(root)
    torch._foreach_clamp_min_(root, _smallest_root(root[0].dtype))  # as safe_sqrt: its derivative at zero is zero
    torch._foreach_mul_(mean, gradients)
    torch._foreach_div_(mean, root)
    denominator = root  # in the same memory
    _add_(denominator, correction * options["eps"])
    torch._foreach_div_(mean, denominator)
    torch._foreach_sub_(mean, (1 - beta1) / (1 - beta2))
    torch._foreach_div_(mean, denominator)
    torch._foreach_mul_(mean, vector)
    factor = scalar(options["lr"]) * correction * (1 - beta2) / (1 - beta1**count)
    torch._foreach_mul_(mean, factor if options["maximize"] else -factor)
    return tuple(mean)


def _adamw_product(
    parameters: Tensors, gradients: Tensors, states: Sequence[ParameterState], options: Options, vector: Tensors
) -> Tensors | None:
    return adam_product(parameters, gradients, states, {**options, "decoupled_weight_decay": True}, vector)


def _moments(states: Sequence[ParameterState], key: str, parameters: Tensors) -> Tensors:
    return tuple(state[key] for state in states) if key in states[0] else zeros_like(parameters)


def _add_(tensors: Sequence[Tensor], number: float | Tensor) -> None:
    if not isinstance(number, Tensor):
        torch._foreach_add_(tuple(tensors), number)
        return
    for tensor in tensors:  # the fused form would read it
        tensor.add_(number)


def _smallest_root(dtype: torch.dtype) -> float:
    """The root of the smallest number above zero."""
    info = torch.finfo(dtype)
    return float(info.tiny**0.5 * info.eps**0.5)


SLOPE_PRODUCTS: Mapping[ParameterRule, SlopeProduct] = {sgd: sgd_product, adam: adam_product, adamw: _adamw_product}
"""The closed forms of the commonest rules."""
