"""Metrics as plain data, and as the numbers that people read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def plain(value: Any) -> Any:
    """Metrics as plain data for JSON, which has no infinities: those become texts."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # tensors, and NumPy's arrays and numbers
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, (int, str)) else str(value)


def scalars(metrics: Mapping[str, Any] | None) -> dict[str, float]:
    """The metrics that are single numbers, fetched from the device."""
    found: dict[str, float] = {}
    for name, value in (metrics or {}).items():
        if hasattr(value, "item") and getattr(value, "size", None) is not None:
            value = value.item() if math.prod(value.shape) == 1 else None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found[str(name)] = _float(value)
    return found


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond what a float reaches
        return math.inf if value > 0 else -math.inf


def brief(metrics: Mapping[str, Any]) -> str:
    """Metrics on one line: ``accuracy 0.913, loss 0.31``."""
    return ", ".join(f"{name} {value:.4g}" for name, value in scalars(metrics).items())
