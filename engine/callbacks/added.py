"""Metrics that callbacks add to those of a problem."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Added:
    """Keeps metrics that callbacks added as those of ``training_step`` are kept, and who added what is none."""

    def __init__(self) -> None:
        self._by: dict[tuple[str, Any], str] = {}

    def keep(self, callback: str, problem: str, metrics: dict[str, Any]) -> None:
        """Make detached tensors of the numbers and arrays among metrics.

        Args:
            callback: Who had them last.
            problem: Whose metrics they are.
            metrics: They themselves, which are changed.
        """
        known = {key for name, key in self._by if name == problem} if self._by else ()
        for key, value in metrics.items():
            if isinstance(value, Tensor) and not value.requires_grad:
                continue
            metrics[key] = kept = as_metric(value)
            if not isinstance(kept, Tensor) and key not in known:
                self._by[problem, key] = callback

    def named(self, problem: str, key: Any) -> str:
        """What a metric is called in a message."""
        by = self._by.get((problem, key))
        return f"the metric '{key}' of problem '{problem}'" + (f", which callback {by} added," if by else "")


def as_metric(value: Any) -> Any:
    """A number or an array as a detached tensor; anything else as it is."""
    if isinstance(value, Tensor):
        return value.detach()
    if not isinstance(value, (bool, int, float)) and type(value).__module__ != "numpy":
        return value
    try:  # a float of Python's keeps its precision: it may be a time
        return torch.tensor(value, dtype=torch.float64 if type(value) is float else None)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # texts of numpy's, an integer beyond 64 bits
        return value
