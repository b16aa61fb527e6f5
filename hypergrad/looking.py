"""Numbers that somebody wants to see, to warn of them: shown where nobody has to wait for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

Look: TypeAlias = Callable[[list[float]], None]

MOST = 100
"""So many looks may wait."""
_waiting: list[tuple[Tensor, Look]] = []


def show(numbers: Tensor, who: Look) -> None:
    """Show numbers to ``who``: now on the host. Those of a device wait for others, or for :func:`show_waiting`."""
    if numbers.is_cpu:
        who(numbers.tolist())
        return
    _waiting.append((numbers, who))
    if len(_waiting) >= MOST:
        show_waiting()


def show_waiting() -> None:
    """Show all that waits. It makes the host wait for the device: call it where that waits anyway."""
    waiting = _waiting.copy()
    _waiting.clear()
    for numbers, who in waiting:
        who(numbers.tolist())
