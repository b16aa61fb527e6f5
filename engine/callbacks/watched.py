"""A metric of the validation that somebody watches, and which of two values of it is better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from ...hypergrad.errors import ConfigError, ProblemError, choices
from ..metrics import scalars

if TYPE_CHECKING:
    from ..engine import Engine


class Watched:
    """A metric of the validation.

    Args:
        who: Who watches it, for the error messages.
        metric: Its name.
        mode: Whether it is better smaller (``"min"``) or larger (``"max"``).

    Attributes:
        seen: Whether a validation had it.
    """

    def __init__(self, who: str, metric: str, mode: Literal["min", "max"]) -> None:
        self._who = who
        self.metric = metric
        self.seen = False
        self._sign = 1 if mode == "min" else -1

    def refuse_unmeasured(self, engine: Engine) -> None:
        """Refuse a run that never validates.

        Raises:
            ConfigError: It does not.
        """
        from ..engine import Engine

        if not engine.config.valid_step:
            raise ConfigError(
                f"{self._who}: watches '{self.metric}' of the validation, and valid_step is 0; give a number of engine "
                "steps (EngineConfig.valid_step)"
            )
        overridden = getattr(engine.validation, "__func__", None) is not Engine.validation
        if not overridden and not any(problem.validates for problem in engine.problems.values()):
            raise ConfigError(
                f"{self._who}: watches '{self.metric}' of the validation, and nothing is validated; give a problem a "
                "validation_step(), or override Engine.validation"
            )

    def value(self, metrics: Mapping[str, Any]) -> float | None:
        """The metric's value, fetched from its device.

        Returns:
            ``None`` where this validation does not have it, and an earlier one had.

        Raises:
            ProblemError: The first validation does not have it, or it is not a single number.
        """
        if self.metric not in metrics:
            if self.seen:
                return None
            raise ProblemError(
                f"{self._who}: the validation has no metric '{self.metric}'{choices(self.metric, metrics, 'metrics')}"
            )
        value = scalars({self.metric: metrics[self.metric]}).get(self.metric)
        if value is None:
            raise ProblemError(
                f"{self._who}: '{self.metric}' of the validation must be a single number, got "
                f"{_described(metrics[self.metric])}"
            )
        self.seen = True
        return value

    def rank(self, value: float) -> float:
        """A number that is smaller where a value is better; infinite where that is infinite or not a number."""
        return self._sign * value if math.isfinite(value) else math.inf


def _described(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" of shape {tuple(shape)}" if shape is not None else "")
