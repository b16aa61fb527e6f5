"""A hierarchy of any depth whose problems are vectors, written once for everyone who solves it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from .case import Setting


@dataclass(frozen=True)
class Level:
    """One problem, trained by gradient descent.

    Attributes:
        start: Where its vector starts.
        loss: Of its own vector, then those of the problems that it reads.
        reads: Their names, in that order.
        rate: Learning rate.
        steps: Steps for each step of its uppers.
    """

    start: Tensor
    loss: Callable[..., Tensor]
    reads: tuple[str, ...] = ()
    rate: float = 0.1
    steps: int = 1


@dataclass(frozen=True)
class Levels:
    """A hierarchy; darts at every edge.

    Attributes:
        setting: Where it computes.
        levels: The problems, the lowest first.
        cycle: Steps of the lowest for each step of the top.
    """

    setting: Setting
    levels: Mapping[str, Level]
    cycle: int = 1

    def edges(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Upper-to-lower and lower-to-upper: who reads a problem above it follows it, who reads one below uses it."""
        order = {name: position for position, name in enumerate(self.levels)}
        down: dict[str, list[str]] = {}
        up: dict[str, list[str]] = {}
        for name, level in self.levels.items():
            for other in level.reads:
                (down if order[other] > order[name] else up).setdefault(other, []).append(name)
        return down, up


class Vector(nn.Module):
    """A module of one vector."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value.clone())
