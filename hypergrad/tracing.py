"""Whether what runs now is recorded into a program, to be compiled and run later on other numbers.

While it is, tensors have shapes but no values: nothing may branch on a number, and what depends on one stays a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor

Look: TypeAlias = Callable[[list[float]], None]


class Looks:
    """Numbers that something wants to see after each run of the program, to warn of them: tensors, and who looks."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.who: list[Look] = []


_recording: Looks | None = None


def is_tracing() -> bool:
    """Whether a program is being recorded."""
    return _recording is not None


@contextmanager
def tracing() -> Iterator[Looks]:
    """Record what happens inside; one at a time in a process."""
    global _recording
    before, _recording = _recording, Looks()
    try:
        yield _recording
    finally:
        _recording = before


def look(numbers: tuple[Tensor, ...], who: Look) -> None:
    """Show scalars of one device to ``who``: now, or after each run of the program that is being recorded."""
    together = torch.stack(numbers)
    if _recording is None:
        who(together.tolist())
        return
    _recording.tensors.append(together)
    _recording.who.append(who)


def is_readable(tensor: Tensor) -> bool:
    """Whether the value of a scalar is there to be read at no cost: on a GPU the host would wait for it."""
    return _recording is None and tensor.device.type == "cpu"
