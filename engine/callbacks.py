"""What watches a run: a base class whose hooks are all empty, and the list that calls them in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from ..problems.problem import Problem
    from .engine import Engine


class Callback:
    """Watches a run from outside. Override the hooks you need; each receives the engine itself."""

    def on_run_start(self, engine: Engine) -> None:
        """Before the first engine step of a run."""

    def on_level_step(self, engine: Engine, problem: Problem, metrics: Mapping[str, Tensor]) -> None:
        """After a problem's level step.

        Args:
            engine: The engine.
            problem: The problem that advanced.
            metrics: ``"loss"`` and whatever else its ``training_step`` returned: detached tensors on the problem's
                device. Fetching one (``.item()``) makes the host wait; do it only for what is shown.
        """

    def on_step_end(self, engine: Engine) -> None:
        """After each engine step."""

    def on_validation(self, engine: Engine, metrics: Mapping[str, Any]) -> None:
        """After each validation, with what ``Engine.validation`` returned."""

    def on_run_end(self, engine: Engine) -> None:
        """After the last engine step of a run that was not interrupted."""

    def on_exception(self, engine: Engine, error: BaseException) -> None:
        """When a run ends by an exception (a keyboard interrupt too), which is raised again afterwards."""


class Callbacks(Callback):
    """Passes each event on to several callbacks, in order."""

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        self.callbacks = list(callbacks)

    def on_run_start(self, engine: Engine) -> None:
        for callback in self.callbacks:
            callback.on_run_start(engine)

    def on_level_step(self, engine: Engine, problem: Problem, metrics: Mapping[str, Tensor]) -> None:
        for callback in self.callbacks:
            callback.on_level_step(engine, problem, metrics)

    def on_step_end(self, engine: Engine) -> None:
        for callback in self.callbacks:
            callback.on_step_end(engine)

    def on_validation(self, engine: Engine, metrics: Mapping[str, Any]) -> None:
        for callback in self.callbacks:
            callback.on_validation(engine, metrics)

    def on_run_end(self, engine: Engine) -> None:
        for callback in self.callbacks:
            callback.on_run_end(engine)

    def on_exception(self, engine: Engine, error: BaseException) -> None:
        for callback in self.callbacks:
            callback.on_exception(engine, error)
