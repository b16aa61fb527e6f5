"""An optimizer's step as a pure function of parameters, gradients and optimizer state.

Equal to ``torch.optim`` step for step, differentiable in all three, and in a learning rate that is a tensor.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from .errors import ConfigError
from .tensors import Tensors
from .update_rules import Options, ParameterRule, ParameterState, adagrad, adam, adamw, rmsprop, scalar, sgd

RULES: Mapping[type[Optimizer], ParameterRule] = {
    SGD: sgd,
    Adam: adam,
    AdamW: adamw,
    RMSprop: rmsprop,
    Adagrad: adagrad,
}


@dataclass(frozen=True)
class UpdateRule:
    """The update of a tuple of parameters.

    Attributes:
        rule: The update of one parameter.
        groups: Per parameter the index of its parameter group, ``None`` where the optimizer does not hold it.
    """

    rule: ParameterRule
    groups: tuple[int | None, ...]

    def __call__(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        states: Sequence[ParameterState],
        options: Sequence[Options],
    ) -> tuple[Tensors, tuple[ParameterState, ...]]:
        """One step.

        Args:
            parameters: In the order that the rule was made for.
            gradients: One per parameter; ``None`` leaves parameter and state alone, as torch.optim does.
            states: What the optimizer keeps, per parameter.
            options: What it is set to, per parameter group.

        Returns:
            The new parameters and the new states.
        """
        steps = [
            (parameter, state)
            if gradient is None or group is None
            else self.rule(parameter, gradient, state, options[group])
            for parameter, gradient, state, group in zip(parameters, gradients, states, self.groups, strict=True)
        ]
        return tuple(p for p, _ in steps), tuple(s for _, s in steps)

    def descent_rate(self, options: Sequence[Options]) -> float | Tensor | None:
        """The learning rate of a step that is gradient descent and no more; ``None`` of any other step."""
        if self.rule is not sgd or None in self.groups:
            return None
        rate = options[0]["lr"]
        if len(options) > 1 and (isinstance(rate, Tensor) or any(group["lr"] != rate for group in options)):
            return None
        more = any(group["momentum"] or group["weight_decay"] or group["maximize"] for group in options)
        return None if more else scalar(rate)


def update_rule(optimizer: Optimizer, parameters: Sequence[Tensor]) -> UpdateRule:
    """The functional update of an optimizer, for parameters in the order given.

    Raises:
        ConfigError: Its class is none of those supported, nor inherits their ``step`` unchanged.
    """
    kind: Any = type(optimizer)
    return UpdateRule(_parameter_rule(kind), group_indices(optimizer, parameters))


def group_indices(optimizer: Optimizer, parameters: Sequence[Tensor]) -> tuple[int | None, ...]:
    """Per parameter the index of its parameter group, ``None`` where the optimizer does not hold it."""
    index = {id(p): i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}
    return tuple(index.get(id(p)) for p in parameters)


def optimizer_states(optimizer: Optimizer, parameters: Sequence[Tensor]) -> tuple[ParameterState, ...]:
    """Copies of what the optimizer keeps for each parameter; an empty dict where it keeps nothing yet."""
    if not optimizer.state:
        return ({},) * len(parameters)
    # .get, because optimizer.state[p] would leave an empty entry behind, which Adagrad takes for a broken state.
    return tuple(
        {key: _copied(value) for key, value in optimizer.state.get(parameter, {}).items()} for parameter in parameters
    )


def group_options(optimizer: Optimizer) -> tuple[Options, ...]:
    """Copies of the options of each parameter group, without its parameters."""
    return tuple(
        {key: _copied(value) for key, value in group.items() if key != "params"} for group in optimizer.param_groups
    )


def differentiable_state(states: Sequence[ParameterState]) -> Tensors:
    """The tensors in the states that depend on gradients: all that float but the count of steps.

    By their names: torch's optimizers and the rules here fill a state in orders of their own.
    """
    return tuple(state[key] for state in states for key in sorted(state) if _depends_on_gradients(key, state[key]))


def with_differentiable_state(
    states: Sequence[ParameterState], tensors: Sequence[Tensor]
) -> tuple[ParameterState, ...]:
    """The states with other tensors in place of :func:`differentiable_state`."""
    new = iter(tensors)
    return tuple(
        {key: next(new) if _depends_on_gradients(key, state[key]) else state[key] for key in sorted(state)}
        for state in states
    )


@cache
def _parameter_rule(optimizer_class: type[Optimizer]) -> ParameterRule:
    base = next((c for c in optimizer_class.__mro__ if issubclass(c, Optimizer) and c in RULES), None)
    # torch wraps ``step`` when an optimizer is first built, possibly in a subclass of its own.
    if base is None or inspect.unwrap(optimizer_class.step) is not inspect.unwrap(base.step):
        known = ", ".join(sorted(c.__name__ for c in RULES))
        raise ConfigError(
            f"the update of the optimizer {optimizer_class.__qualname__} cannot be differentiated; use one of "
            f"{known} (or a subclass that keeps their step), or a method that does not differentiate the optimizer, "
            "such as cg or darts"
        )
    return RULES[base]


def _depends_on_gradients(key: str, value: object) -> bool:
    return key != "step" and isinstance(value, Tensor) and value.is_floating_point()


def _copied(value: object) -> object:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
