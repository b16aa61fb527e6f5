"""An optimizer whose state and learning rates are inputs of a program, for methods that differentiate its update."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ...problems.problem import Problem
from .reads import Source


class OptimizerPlaces:
    """Where the tensors of one problem's optimizer are.

    Args:
        problem: The problem.
        add: Takes a tensor and where it is found, and gives its number.
    """

    def __init__(self, problem: Problem, add: Callable[[Tensor, Source], int]) -> None:
        self._problem = problem
        self._optimizer: Optimizer = problem.optimizer
        self._parameters = problem.level.parameters
        self._states = [
            {key: add(value, _state(self._optimizer, p, key)) for key, value in _tensors(self._optimizer, p).items()}
            for p in self._parameters
        ]
        groups = self._optimizer.param_groups
        self._rates = [add(rate(group), _rate_source(self._optimizer, i)) for i, group in enumerate(groups)]

    def take(self, given: Sequence[Tensor]) -> None:
        """Let the problem have an optimizer that holds its parameters of now, with other tensors as its state."""
        index = {id(p): i for i, p in enumerate(self._parameters)}
        now = self._problem.level.parameters
        new: Any = copy.copy(self._optimizer)
        new.param_groups = [
            {**group, "lr": given[rate], "params": [now[index[id(p)]] for p in group["params"] if id(p) in index]}
            for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True)
        ]
        new.state = {
            parameter: {**self._optimizer.state[original], **{key: given[i] for key, i in state.items()}}
            for original, parameter, state in zip(self._parameters, now, self._states, strict=True)
            if state
        }
        self._problem.optimizer = new

    def put_back(self) -> None:
        """Give the problem its optimizer back."""
        self._problem.optimizer = self._optimizer


def settings(optimizer: Optimizer) -> Hashable:
    """All that a program takes for granted of an optimizer: options but for the learning rates, and what it keeps."""
    found: list[Hashable] = []
    for group in optimizer.param_groups:
        found += [_hashable(value) for key, value in group.items() if key not in ("params", "lr")]
        found += [tuple(optimizer.state.get(p, ())) for p in group["params"]]
    return tuple(found)


def _hashable(value: Any) -> Hashable:
    return value if value is None or isinstance(value, (bool, float, int, str, tuple)) else repr(value)


def _tensors(optimizer: Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    return {key: value for key, value in optimizer.state.get(parameter, {}).items() if isinstance(value, Tensor)}


def _state(optimizer: Optimizer, parameter: Tensor, key: str) -> Source:
    return lambda reading: optimizer.state[parameter][key]


def _rate_source(optimizer: Optimizer, group: int) -> Source:
    return lambda reading: rate(optimizer.param_groups[group])  # which load_state_dict() makes anew


def rate(group: dict[str, Any]) -> Tensor:
    """The learning rate of a group as a tensor."""
    value = group["lr"]
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
