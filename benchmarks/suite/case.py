"""What is compared: rows of the table, each with several implementations of the same steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

HAND, OURS, COMPILED = "hand", "multilevel", "multilevel, compiled"


@dataclass(frozen=True)
class Setting:
    """Where and at which size rows are built.

    Attributes:
        device: Where to compute.
        dtype: What parameters and data are in.
        large: Sizes that fill a GPU.
        tiny: The same code at sizes for tests.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    large: bool = False
    tiny: bool = False

    def pick(self, normal: int, large: int | None = None, *, tiny: int) -> int:
        """The number for this size."""
        if self.tiny:
            return tiny
        return large if self.large and large is not None else normal


class Run(Protocol):
    """One implementation of a row, built and ready to go."""

    def step(self) -> None:
        """Take one step of the top problem, with all the steps below that come before it."""

    def parameters(self) -> Sequence[Sequence[Tensor]]:
        """The parameters of every problem, the lowest first: the very tensors it trains, where they are torch's."""


Builder: TypeAlias = Callable[[], Run]


class UnavailableError(Exception):
    """An implementation cannot run a row; the message says why."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        workload: Its short name, ``"W1"``.
        method: What differentiates the best response, ``"cg 5"``.
        runs: Builders by implementation; always with :data:`HAND`. A builder may raise :class:`UnavailableError`.
        tolerance: Largest distance from the hand-written trajectory, relative to how far that moved, in the dtype that
            is timed; ``None`` where that is too coarse to tell anything. In float64 it is
            :data:`suite.agreement.DOUBLE`.
        error: The relative error of one hypergradient against the exact one, where that is cheap.
    """

    workload: str
    method: str
    runs: Mapping[str, Builder]
    tolerance: float | None
    error: Callable[[], float | None] | None = None

    @property
    def name(self) -> str:
        """``"W1 cg 5"``."""
        return f"{self.workload} {self.method}"
