"""Stepping a learning-rate scheduler: with the optimizer, or when the metric that it watches is measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..hypergrad.errors import ConfigError, ProblemError, choices

VALIDATION = "validation/"
"""Stands in front of the names of validation metrics."""


class Scheduling:
    """When one problem's scheduler steps.

    Args:
        name: The problem's name, for error messages.
        scheduler: Any scheduler of ``torch.optim.lr_scheduler``; ``None`` for none.
        metric: What ``ReduceLROnPlateau`` watches.

    Raises:
        ConfigError: A metric is named, and the scheduler watches none.
    """

    def __init__(self, name: str, scheduler: Any, metric: str) -> None:
        self._name = name
        self._scheduler = scheduler
        self._watches = isinstance(scheduler, ReduceLROnPlateau)
        self._metric = metric.removeprefix(VALIDATION)
        self._validated = metric.startswith(VALIDATION)
        if metric != "loss" and not self._watches:
            kind = type(scheduler).__name__ if scheduler is not None else "no scheduler"
            raise ConfigError(
                f"problem '{name}': scheduler_metric='{metric}' is read by ReduceLROnPlateau only, and it has {kind}; "
                "leave it out"
            )

    def refuse_unfed(self, valid_step: int) -> None:
        """Refuse a run whose validation, which is watched, never comes.

        Raises:
            ConfigError: There is none.
        """
        if self._watches and self._validated and not valid_step:
            raise ConfigError(
                f"problem '{self._name}': its scheduler watches '{self._metric}' of the validation, and valid_step is "
                "0; give a number of engine steps (EngineConfig.valid_step)"
            )

    def after_step(self, metrics: Mapping[str, Any]) -> None:
        """The optimizer stepped, on a batch with these metrics."""
        if self._scheduler is None:
            return
        if not self._watches:
            self._scheduler.step()
        elif not self._validated:
            self._watch(metrics, "its training_step returned")

    def after_validation(self, metrics: Mapping[str, Any]) -> None:
        """The validation returned these metrics."""
        if self._watches and self._validated:
            self._watch(metrics, "the validation returned")

    def _watch(self, metrics: Mapping[str, Any], source: str) -> None:
        if self._metric not in metrics:
            raise ProblemError(
                f"problem '{self._name}': its scheduler watches '{self._metric}', which is not among the metrics that "
                f"{source}{choices(self._metric, map(str, metrics), 'those')} (scheduler_metric)"
            )
        self._scheduler.step(metrics[self._metric])  # converted with float()
