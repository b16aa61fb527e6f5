"""Whether what runs now is recorded into a program, to be compiled and run later on other numbers.

While it is, tensors have shapes but no values: nothing may branch on a number, and what depends on one stays a tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .looking import Look, show
from .tensors import Tensors


class Notes:
    """What is to be known of a program besides what it computes.

    Attributes:
        seen: Numbers that something wants to see after each run of the program, to warn of them.
        who: Who looks at each of these.
        pairs: Results that were computed in the same way from other numbers.
    """

    def __init__(self) -> None:
        self.seen: list[Tensor] = []
        self.who: list[Look] = []
        self.pairs: list[tuple[Tensors, Tensors]] = []


_recording: Notes | None = None


def is_tracing() -> bool:
    """Whether a program is being recorded."""
    return _recording is not None


@contextmanager
def tracing() -> Iterator[Notes]:
    """Record what happens inside; one at a time in a process."""
    global _recording
    before, _recording = _recording, Notes()
    try:
        yield _recording
    finally:
        _recording = before


def look(numbers: tuple[Tensor, ...], who: Look) -> None:
    """Show scalars of one device to ``who``, also after each run of the program that is being recorded."""
    together = torch.stack(numbers)
    if _recording is None:
        show(together, who)
        return
    _recording.seen.append(together)
    _recording.who.append(who)


def note_pair(one: Tensors, other: Tensors) -> None:
    """Say that two results were computed alike, from other numbers, so that a program may compute both at once."""
    if _recording is not None:
        _recording.pairs.append((one, other))


def is_readable(tensor: Tensor) -> bool:
    """Whether the value of a scalar is there to be read at no cost: on a GPU the host would wait for it."""
    return _recording is None and tensor.is_cpu
