"""Evaluating a loss elsewhere without a trace: other tensors stand in for parameters, buffers and random numbers
are private.

Classes with slots rather than generators: an evaluation enters several, and its own work may be microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..hypergrad.replay import RandomState
from ..hypergrad.tensors import Tensors
from .moment import Moment
from .slots import Buffers

if TYPE_CHECKING:
    from .level import ProblemLevel
    from .problem import Problem


class Substituted:
    """While its block runs, other tensors stand in for the parameters of some levels.

    Args:
        levels: The levels that can be reached, by name.
        values: The tensors by name; names that cannot be reached are left out.
    """

    __slots__ = ("_levels",)

    def __init__(self, levels: Mapping[str, ProblemLevel], values: Mapping[str, Tensors]) -> None:
        self._levels = [(levels[name], tensors) for name, tensors in values.items() if name in levels]

    def __enter__(self) -> None:
        try:
            for level, tensors in self._levels:
                level.slots.put(tensors)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        for level, _ in self._levels:
            level.slots.put(level.parameters)


class Untraced:
    """While its block runs, a problem counts, draws random numbers and has buffers as at a moment.

    The buffers are copies: of those of then where they were recorded, else of what they are now.

    Args:
        problem: The problem.
        buffers: The buffers.
        moment: The moment.
        device: Where they are drawn besides the host, if anywhere.
        host: Whether numpy's and Python's generators are drawn from too.
    """

    __slots__ = ("_buffers", "_count", "_device", "_host", "_moment", "_originals", "_problem", "_random")

    def __init__(
        self, problem: Problem, buffers: Buffers, moment: Moment, device: torch.device | None, *, host: bool
    ) -> None:
        self._problem = problem
        self._count = problem.count
        self._buffers = buffers
        self._moment = moment
        self._device = device
        self._host = host
        self._originals: list[Tensor | None] = []

    def __enter__(self) -> None:
        self._random = RandomState(self._device, host=self._host)
        self._originals = self._buffers.detach(self._moment.buffers)
        self._problem.count = self._moment.counted
        self._moment.random.restore()

    def __exit__(self, *error: object) -> None:
        self._buffers.restore(self._originals)
        self._problem.count = self._count
        self._random.restore()
