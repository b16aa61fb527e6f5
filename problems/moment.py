"""One evaluation of a problem's loss, and all it takes to repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from ..hypergrad.replay import RandomState
from ..hypergrad.tensors import Tensors

if TYPE_CHECKING:
    from .inner_loop import InnerLoop


class Moment(NamedTuple):
    """A training evaluation of one problem.

    Attributes:
        batch: The batch.
        random: The random numbers that were about to come.
        values: Solutions of the problems around it that will have moved when the moment is looked back at. Recorded
            only for inner loops that are differentiated, like what follows.
        members: The moments of the problems that responded inside its objective.
        loop: Its own inner loop as it was.
        counted: How many batches the problem had trained on.
        buffers: Copies of the buffers that its loss may read, as they were before it was evaluated; recorded like
            ``values``.
        writes: How often the batch's tensors had been written to.
    """

    batch: Any
    random: RandomState
    values: Mapping[str, Tensors] = MappingProxyType({})
    members: Mapping[str, Moment] = MappingProxyType({})
    loop: InnerLoop | None = None
    counted: int = 0
    writes: int = 0
    buffers: Sequence[Tensor | None] = ()
