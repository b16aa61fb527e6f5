"""What watches a run: a base class whose hooks are all empty, and the list that calls them in order."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...hypergrad.errors import CheckpointWarning, ConfigError, choices

if TYPE_CHECKING:
    from ...problems.problem import Problem
    from ..engine import Engine
    from ..gradients import LevelGradients


class Callback:
    """Watches a run from outside. Override the hooks you need; each receives the engine itself.

    Set ``engine.should_stop = True`` in any hook to end the run after the current engine step.
    """

    def on_run_start(self, engine: Engine) -> None:
        """Before the first engine step of a run; where one goes on from a checkpoint, its state is loaded already."""

    def on_gradients(self, engine: Engine, problem: Problem, gradients: LevelGradients) -> None:
        """When a problem's gradients of one batch are computed, before they are accumulated, clipped and stepped by.

        Args:
            engine: The engine.
            problem: The problem that is about to advance.
            gradients: ``total``, ``direct`` and ``swept`` (the part through the lowers; ``None`` for a leaf), one
                tensor per trainable parameter, or ``None`` where a loss does not depend on one. They are not to be
                changed. Under ``precision="fp16"`` they are scaled.
        """

    def on_level_step(self, engine: Engine, problem: Problem, metrics: dict[str, Tensor]) -> None:
        """After a problem's level step.

        Args:
            engine: The engine.
            problem: The problem that advanced.
            metrics: ``"loss"`` and whatever else its ``training_step`` returned: detached tensors on the problem's
                device. Fetching one (``.item()``) makes the host wait; do it only for what is shown. Metrics that are
                added here are shown and written with the others by the callbacks behind this one.
        """

    def on_step_end(self, engine: Engine) -> None:
        """After each engine step."""

    def on_validation(self, engine: Engine, metrics: Mapping[str, Any]) -> None:
        """After each validation, with what ``Engine.validation`` and the problems' ``validation_step`` returned."""

    def on_run_end(self, engine: Engine) -> None:
        """After the last engine step of a run that was not interrupted."""

    def on_exception(self, engine: Engine, error: BaseException) -> None:
        """When a run ends by an exception (an interruption too), which is raised again afterwards."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the callback: tensors, numbers, texts, and lists and dicts of them."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` returned, before :meth:`on_run_start`."""


class Callbacks(Callback):
    """Passes each event on to several callbacks, in order.

    Raises:
        ConfigError: One is no :class:`Callback`, or has a hook of a name that nobody calls.
    """

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        self.callbacks = list(callbacks)
        for callback in self.callbacks:
            if isinstance(callback, type):
                raise ConfigError(f"Engine: callbacks must be objects, got the class; write {callback.__name__}()")
            if not isinstance(callback, Callback):
                raise ConfigError(f"Engine: callbacks must be Callback objects, got {type(callback).__name__}")
            _refuse_unknown_hooks(type(callback))

    def on_run_start(self, engine: Engine) -> None:
        for callback in self.callbacks:
            callback.on_run_start(engine)

    def on_gradients(self, engine: Engine, problem: Problem, gradients: LevelGradients) -> None:
        for callback in self.callbacks:
            callback.on_gradients(engine, problem, gradients)

    def on_level_step(self, engine: Engine, problem: Problem, metrics: dict[str, Tensor]) -> None:
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
        raised = None
        for callback in self.callbacks:  # all are told, also where one of them raises
            try:
                callback.on_exception(engine, error)
            except Exception as own:
                raised = raised or own
        if raised is not None:
            raise raised

    def state_dict(self) -> dict[str, Any]:
        """The states of all, by class and by its number among those of its class."""
        return {key: callback.state_dict() for key, callback in self._keyed()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give each callback its state; one that was not there then starts anew.

        Warns of one that is not here now: a logger whose server is away must not keep a run from going on.

        Raises:
            ConfigError: It had ended the run, which cannot go on without it.
        """
        present = dict(self._keyed())
        for key in [key for key, kept in state.items() if kept and key not in present]:
            if state[key].get("stopped_step") is not None:
                raise ConfigError(
                    f"the checkpoint is that of a run that {key} had ended, which this engine does not have; to go on, "
                    "keep it and give it more patience (engine.early_stopping.patience)"
                )
            warnings.warn(
                f"the checkpoint has the state of a callback {key}, which this engine does not have; it has: "
                f"{', '.join(present) or 'none'}; the run goes on without",
                CheckpointWarning,
                stacklevel=2,
            )
        for key, callback in present.items():
            if key in state:
                callback.load_state_dict(state[key])

    def _keyed(self) -> list[tuple[str, Callback]]:
        seen: dict[str, int] = {}
        keyed = []
        for callback in self.callbacks:
            kind = type(callback).__name__
            number = seen[kind] = seen.get(kind, 0) + 1
            keyed.append((kind if number == 1 else f"{kind}-{number}", callback))
        return keyed


def _refuse_unknown_hooks(kind: type[Callback]) -> None:
    hooks = [name for name in vars(Callback) if name.startswith("on_")]
    own = [cls for cls in kind.__mro__ if issubclass(cls, Callback)]  # others may be called by whoever they are for
    for name, value in (item for cls in own for item in vars(cls).items()):
        if name.startswith("on_") and name not in hooks and callable(value):
            raise ConfigError(
                f"callback {kind.__name__}: no hook is named '{name}', and nothing would call it"
                f"{choices(name, hooks, 'hooks')}; a method for your own use needs another name, as '_{name}'"
            )
