"""Refusals that the methods' options share: who, what was expected, what came."""

from __future__ import annotations

from .errors import ConfigError


def at_least(method: str, option: str, value: int, smallest: int) -> None:
    """Refuse anything but a whole number of at least ``smallest``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise ConfigError(f"{method}: {option} must be a whole number of at least {smallest}, got {value!r}")


def positive(method: str, option: str, value: float) -> None:
    """Refuse anything but a number above zero."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ConfigError(f"{method}: {option} must be a number above 0, got {value!r}")


def non_negative(method: str, option: str, value: float) -> None:
    """Refuse anything but a number of at least zero."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ConfigError(f"{method}: {option} must be a number of at least 0, got {value!r}")
