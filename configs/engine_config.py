"""The settings of a run."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, field_validator

from ..hypergrad.errors import ConfigError
from .validation import Settings


class EngineConfig(Settings):
    """How long, where and with what response a hierarchy is trained.

    Args:
        train_iters: Engine steps, each of which gives every leaf one batch.
        valid_step: Validate every so many engine steps, and at the end; 0 never validates.
        response: ``"total"`` lets the lowers of a middle problem respond while its own response is differentiated;
            ``"direct"`` holds them fixed, which is cheaper and biased.
        seed: Seeds Python, NumPy and torch: before anything is built from a file, and when the engine is constructed;
            ``None`` leaves them alone.
        device: ``"auto"`` (the first accelerator, else the CPU) or what ``torch.device`` accepts.
        log_step: Write metrics every so many engine steps.
        roll_back: Reserved; only ``False`` is available.
        strategy: Reserved; only ``"default"`` is available.

    Raises:
        ConfigError: Anything above is unknown, out of range or not available.
    """

    train_iters: int = Field(default=1000, ge=1)
    valid_step: int = Field(default=0, ge=0)
    response: Literal["total", "direct"] = "total"
    seed: int | None = Field(default=None, ge=0, lt=2**32)
    device: str = "auto"
    log_step: int = Field(default=100, ge=1)
    roll_back: bool = False
    strategy: str = "default"

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if value != "auto":
            try:
                torch.device(value)
            except RuntimeError as error:
                raise ConfigError(f"expected 'auto', 'cpu', 'cuda', 'cuda:1', ..., got {value!r}") from error
        return value

    @field_validator("roll_back")
    @classmethod
    def _no_roll_back(cls, value: bool) -> bool:
        return _only(value, False)

    @field_validator("strategy")
    @classmethod
    def _no_strategy(cls, value: str) -> str:
        return _only(value, "default")


def _only(value: Any, available: Any) -> Any:
    if value != available:
        raise ConfigError(f"{value!r} is not available yet; leave it at {available!r}")
    return value
