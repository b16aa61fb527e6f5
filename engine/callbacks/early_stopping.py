"""Ending a run that no longer improves, at its best parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from ...configs.watching import EarlyStoppingSettings
from ...problems.level_state import cloned, load_training_state, training_state
from ..metrics import scalars
from .base import Callback
from .watched import Watched

if TYPE_CHECKING:
    from ...problems.problem import Problem
    from ..engine import Engine


class EarlyStopping(Callback):
    """Ends the run when a metric of the validation has not improved for a while, and returns to the best parameters.

    A value counts as an improvement where it is better than the last one that did, by more than ``min_delta``; one that
    is infinite or not a number never does. The run ends after the engine step in which the validation was the
    ``patience``-th in a row without one. The first validation must have the metric; later ones without it do not count.

    At the end of the run, stopped early or not, the parameters and buffers of every problem are those of the best value
    of all, by however little, and so is ``engine.last_validation``. They are kept in main memory until then.
    Optimizers, schedulers and counters stay as they are, and a checkpoint of the run is one of where it went, not of
    where it returned to: it can be gone on with, with more patience for instance.

    Args:
        metric: A metric of the validation; those of a problem's ``validation_step`` are ``<problem>/<name>``.
        mode: Whether it is better smaller (``"min"``) or larger (``"max"``).
        patience: Validations in a row without an improvement after which the run ends.
        min_delta: How much better a value must be to count as an improvement.
        restore: Return to the best parameters at the end.

    Attributes:
        best: The best value so far; ``None`` before the first that is finite.
        best_step: The engine step of the validation that had it first.
        stopped_step: The engine step after which the run was ended; ``None`` where it was not.

    Raises:
        ConfigError: An argument is out of range.
    """

    def __init__(
        self,
        metric: str,
        mode: Literal["min", "max"] = "min",
        patience: int = 3,
        min_delta: float = 0.0,
        restore: bool = True,
    ) -> None:
        self._settings = EarlyStoppingSettings(
            metric=metric, mode=mode, patience=patience, min_delta=min_delta, restore=restore
        )
        self._watched = Watched("EarlyStopping", metric, mode)
        self.best: float | None = None
        self.best_step: int | None = None
        self.stopped_step: int | None = None
        self._improved: float | None = None
        self._waited = 0
        self._measured: dict[str, float] = {}
        self._weights: dict[str, Any] = {}

    def on_run_start(self, engine: Engine) -> None:
        self._watched.refuse_unmeasured(engine)
        if self.stopped_step is not None:  # a run is gone on with that was ended, perhaps with more patience now
            engine.should_stop = self._waited >= self._settings.patience
            self.stopped_step = self.stopped_step if engine.should_stop else None

    def on_validation(self, engine: Engine, metrics: Mapping[str, Any]) -> None:
        value = self._watched.value(metrics)
        if value is None:
            return
        if self._better(value, self.best):
            self.best, self.best_step = value, engine.step_count
            if self._settings.restore:
                self._measured = scalars(metrics)
                self._weights = {name: _weights(problem) for name, problem in engine.problems.items()}
        if self._better(value, self._improved, by=self._settings.min_delta):
            self._improved, self._waited = value, 0
        else:
            self._waited += 1
        if self._waited >= self._settings.patience and self.stopped_step is None:
            self.stopped_step = engine.step_count
            engine.should_stop = True

    def on_run_end(self, engine: Engine) -> None:
        if self._weights and self.best_step != engine.step_count:
            for name, weights in self._weights.items():
                _load_weights(engine.problems[name], weights)
            engine.last_validation = dict(self._measured)

    def state_dict(self) -> dict[str, Any]:
        return {
            "seen": self._watched.seen,
            "best": self.best,
            "best_step": self.best_step,
            "stopped_step": self.stopped_step,
            "improved": self._improved,
            "waited": self._waited,
            "measured": self._measured,
            "weights": self._weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._watched.seen = state["seen"]
        self.best, self.best_step, self.stopped_step = state["best"], state["best_step"], state["stopped_step"]
        self._improved, self._waited = state["improved"], state["waited"]
        self._measured, self._weights = state["measured"], state["weights"]

    def _better(self, value: float, than: float | None, *, by: float = 0.0) -> bool:
        rank = self._watched.rank
        return rank(value) < (rank(than) - by if than is not None else math.inf)


def _weights(problem: Problem) -> dict[str, Any]:
    """Copies of parameters and buffers, in main memory."""
    state = training_state(problem)
    return {part: {key: _copied(value) for key, value in state[part].items()} for part in ("module", "buffers")}


def _copied(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else cloned(value)


def _load_weights(problem: Problem, weights: dict[str, Any]) -> None:
    load_training_state(problem, {**training_state(problem), **weights})
    if problem.level.loop is not None:
        problem.level.loop.begin()  # the parameters are no longer where its recorded steps led
