"""One evaluation of a problem's loss, and all it takes to repeat it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..hypergrad.objective import Objective
from ..hypergrad.replay import RandomState
from ..hypergrad.tensors import Tensors

if TYPE_CHECKING:
    from .inner_loop import InnerLoop


@dataclass(frozen=True)
class Moment:
    """A training evaluation of one problem.

    Attributes:
        batch: The batch.
        random: The random numbers that were about to come.
        values: Solutions of the problems around it that will have moved when the moment is looked back at. Recorded
            only for inner loops that are differentiated, like what follows.
        objectives: The objectives of the problems that responded inside its own, as they were.
        loop: Its own inner loop as it was.
    """

    batch: Any
    random: RandomState
    values: Mapping[str, Tensors] = field(default_factory=dict)
    objectives: Mapping[str, Callable[[Sequence[str]], Objective]] = field(default_factory=dict)
    loop: InnerLoop | None = None
