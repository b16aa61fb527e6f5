"""Computing a hypergradient without moving anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch

from ..hypergrad.replay import RandomState
from ..hypergrad.tensors import Tensors, filled
from ..problems.level import ProblemLevel
from .gradients import Gradients


def hypergradient(name: str, levels: Mapping[str, ProblemLevel], gradients: Gradients) -> Tensors:
    """The total gradient of a problem's loss at the current parameters and batches; leaves everything as it was."""
    with untouched(levels.values()):
        loss = levels[name].evaluate({}).loss
        return filled(gradients.total(name, loss).total, levels[name].parameters)


@contextmanager
def untouched(levels: Iterable[ProblemLevel]) -> Iterator[None]:
    """Put random state, the methods' memory and the current batches back, also after an error.

    Parameters and buffers need no care here: an evaluation never writes to them.
    """
    levels = list(levels)
    random = RandomState(levels[0].parameters[0].device, host=True)
    before = [(level, level.moment, dict(level.memory)) for level in levels]
    try:
        # A leaf goes first in training too. Problems that saw the same random numbers would not sample independently.
        undrawn = sorted((level for level in levels if level.moment is None), key=lambda level: not level.is_leaf)
        for stream, level in enumerate(undrawn):
            level.moment = level.upcoming_moment(stream)
        with torch.enable_grad():
            yield
    finally:
        for level, moment, memory in before:
            level.moment = moment
            level.memory.clear()
            level.memory.update(memory)
        random.restore()
