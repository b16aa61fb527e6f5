"""One step of torch.optim's optimizers on one parameter, as pure functions.

``torch.optim``'s own ``differentiable=True`` is no substitute: it detaches SGD's first momentum buffer, which silently
drops part of the derivative, and has infinite derivatives where a second moment is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .tracing import is_readable, is_tracing

ParameterState: TypeAlias = dict[str, Any]
"""What torch.optim keeps for one parameter, under the same keys; empty before its first step."""
Options: TypeAlias = Mapping[str, Any]
"""One parameter group without the key ``"params"``."""
ParameterRule: TypeAlias = Callable[[Tensor, Tensor, ParameterState, Options], tuple[Tensor, ParameterState]]
"""(parameter, gradient, state, options) -> (new parameter, new state); changes none of its arguments."""


def sgd(parameter: Tensor, gradient: Tensor, state: ParameterState, options: Options) -> tuple[Tensor, ParameterState]:
    """b <- momentum b + (1 - dampening) g, then theta - lr b; with nesterov theta - lr (g + momentum b)."""
    gradient = with_weight_decay(parameter, gradient, options)
    momentum = options["momentum"]
    if momentum != 0:
        previous = state.get("momentum_buffer")
        # torch does not dampen the first gradient.
        buffer = gradient if previous is None else previous * momentum + (1 - options["dampening"]) * gradient
        state = {**state, "momentum_buffer": buffer}
        gradient = gradient + momentum * buffer if options["nesterov"] else buffer
    return parameter - scalar(options["lr"]) * gradient, state


def adam(parameter: Tensor, gradient: Tensor, state: ParameterState, options: Options) -> tuple[Tensor, ParameterState]:
    """Kingma and Ba 2015 (arXiv 1412.6980), with AMSGrad and, if the group asks for it, decoupled weight decay."""
    lr, (beta1, beta2) = scalar(options["lr"]), options["betas"]
    if options.get("decoupled_weight_decay", False):
        gradient = -gradient if options["maximize"] else gradient
        parameter = parameter * (1 - lr * options["weight_decay"])
    else:
        gradient = with_weight_decay(parameter, gradient, options)
    count, step = counted(state)
    mean = torch.lerp(_moment(state, "exp_avg", parameter), gradient, 1 - beta1)
    square = _moment(state, "exp_avg_sq", parameter) * beta2 + (1 - beta2) * gradient * gradient
    state = {**state, "step": step, "exp_avg": mean, "exp_avg_sq": square}
    if options["amsgrad"]:
        square = torch.maximum(_moment(state, "max_exp_avg_sq", parameter), square)
        state["max_exp_avg_sq"] = square
    denominator = safe_sqrt(square) / (1 - beta2**count) ** 0.5 + options["eps"]
    return parameter - lr / (1 - beta1**count) * (mean / denominator), state


def adamw(
    parameter: Tensor, gradient: Tensor, state: ParameterState, options: Options
) -> tuple[Tensor, ParameterState]:
    """Loshchilov and Hutter 2019 (arXiv 1711.05101): :func:`adam` with the weight decay taken out of the gradient."""
    # torch before 2.6 has no such option in AdamW's groups.
    return adam(parameter, gradient, state, {**options, "decoupled_weight_decay": True})


def rmsprop(
    parameter: Tensor, gradient: Tensor, state: ParameterState, options: Options
) -> tuple[Tensor, ParameterState]:
    """Tieleman and Hinton 2012 (lecture 6.5); centered as in Graves 2013 (arXiv 1308.0850), equations 38 to 45."""
    lr, alpha, momentum = scalar(options["lr"]), options["alpha"], options["momentum"]
    gradient = with_weight_decay(parameter, gradient, options)
    _, step = counted(state)
    square = _moment(state, "square_avg", parameter) * alpha + (1 - alpha) * gradient * gradient
    state = {**state, "step": step, "square_avg": square}
    if options["centered"]:
        mean = torch.lerp(_moment(state, "grad_avg", parameter), gradient, 1 - alpha)
        state["grad_avg"] = mean
        square = square - mean * mean
    direction = gradient / (safe_sqrt(square) + options["eps"])
    if momentum > 0:
        direction = _moment(state, "momentum_buffer", parameter) * momentum + direction
        state["momentum_buffer"] = direction
    return parameter - lr * direction, state


def adagrad(
    parameter: Tensor, gradient: Tensor, state: ParameterState, options: Options
) -> tuple[Tensor, ParameterState]:
    """Duchi, Hazan and Singer 2011 (JMLR 12), with a decaying learning rate."""
    gradient = with_weight_decay(parameter, gradient, options)
    count, step = counted(state)
    lr = scalar(options["lr"]) / (1 + (count - 1) * options["lr_decay"])
    total = state.get("sum")
    if total is None:
        total = torch.full_like(parameter, options["initial_accumulator_value"])
    total = total + gradient * gradient
    state = {**state, "step": step, "sum": total}
    return parameter - lr * (gradient / (safe_sqrt(total) + options["eps"])), state


def safe_sqrt(x: Tensor) -> Tensor:
    """The square root, with a derivative of zero at zero.

    A second moment is exactly zero only where every gradient so far was, and then the numerator above the root is zero
    as well, so that the derivative of their quotient is 1 / eps times the numerator's whatever finite derivative the
    root is given. The true one is infinite, and infinity times zero is not a number.
    """
    zero = x == 0  # not x <= 0: negative numbers and NaN must stay as visible as they are in torch
    # The inner `where` keeps the infinite derivative from being computed at all: masking it afterwards is too late.
    return torch.where(zero, torch.zeros_like(x), torch.where(zero, torch.ones_like(x), x).sqrt())


def with_weight_decay(parameter: Tensor, gradient: Tensor, options: Options) -> Tensor:
    gradient = -gradient if options["maximize"] else gradient
    decay = options["weight_decay"]
    return gradient + decay * parameter if decay != 0 else gradient


def counted(state: ParameterState) -> tuple[float | Tensor, Tensor]:
    """The number of this step, to compute with and to keep."""
    step = state["step"] + 1 if "step" in state else torch.ones(())
    return exponent(step), step


def exponent(step: Tensor) -> float | Tensor:
    """A count of steps to raise a decay rate to, so precise that the power is: a number where reading it is free."""
    return step.item() if is_readable(step) else step.to(torch.float64) if is_tracing() else step


def _moment(state: ParameterState, key: str, parameter: Tensor) -> Tensor:
    moment = state.get(key)
    return torch.zeros_like(parameter) if moment is None else moment


def scalar(value: float | Tensor) -> float | Tensor:
    return value.squeeze() if isinstance(value, Tensor) else value
