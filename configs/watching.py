"""Settings of what watches a metric of the validation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .validation import Settings


class EarlyStoppingSettings(Settings):
    """When a run has improved enough.

    Args:
        metric: A metric of the validation.
        mode: Whether it is better smaller (``"min"``) or larger (``"max"``).
        patience: Validations in a row without an improvement after which the run ends.
        min_delta: How much better a value must be to count as an improvement.
        restore: Return to the parameters of the best validation at the end.
    """

    metric: str = Field(min_length=1)
    mode: Literal["min", "max"] = "min"
    patience: int = Field(default=3, ge=1)
    min_delta: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    restore: bool = True


class KeepBestSettings(Settings):
    """Which checkpoints stay because of what the validation said.

    Args:
        metric: A metric of the validation.
        mode: Whether it is better smaller (``"min"``) or larger (``"max"``).
        count: How many stay.
    """

    metric: str = Field(min_length=1)
    mode: Literal["min", "max"] = "min"
    count: int = Field(default=1, ge=1)
