"""What watches a run: a base class whose hooks are all empty, and the list that calls them in order."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...hypergrad.errors import CheckpointError, CheckpointWarning, ConfigError, choices
from ...problems.packing import PackingError, pack_or_warn, pack_parts, unpack
from .added import Added

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
                added here are shown and written with the others by the callbacks behind this one, numbers and arrays
                as detached tensors too.
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
        """What a checkpoint keeps of the callback: tensors, arrays, numbers, texts, and containers of them.

        An entry that is something else is left out, with a :class:`CheckpointWarning`.
        """
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
        self._added = Added()
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
            self._added.keep(type(callback).__name__, problem.name, metrics)

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
        """The states of all as plain data, by class and by its number among those of its class."""
        packed = {key: _packed(key, callback.state_dict()) for key, callback in self._keyed()}
        return {key: state for key, state in packed.items() if state is not None}

    def packed_metrics(self, problem: str, metrics: Mapping[str, Any]) -> Any:
        """A problem's metrics as plain data; it warns of what callbacks added that cannot be written."""
        return pack_parts(metrics, lambda key: self._added.named(problem, key))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give each callback its state; one that was not there then starts anew.

        Warns of one that is not here now: a logger whose server is away must not keep a run from going on.

        Raises:
            ConfigError: It had ended the run, which cannot go on without it.
            CheckpointError: One needs what the checkpoint does not have.
        """
        present = dict(self._keyed())
        for key, kept in state.items():
            left = _unpacked_or_none(kept) if key not in present else {}
            if left == {}:
                continue
            if left is not None and left.get("stopped_step") is not None:
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
                _load(key, callback, _unpacked(key, state[key]))

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


def _packed(key: str, state: Any) -> Any:
    what = f"of what state_dict() of callback {key} returned"
    if isinstance(state, Mapping):
        return pack_parts(state, lambda entry: f"'{entry}' {what}") if state else {}
    return pack_or_warn(f"all {what}", state)


def _unpacked(key: str, packed: Any) -> Any:
    try:
        return unpack(packed)
    except PackingError as error:
        raise CheckpointError(f"callback {key}: its state cannot be read: {error}") from error


def _unpacked_or_none(packed: Any) -> Mapping[str, Any] | None:
    """The state of a callback that is not here; ``None`` where it is none that this process can read."""
    try:
        state = unpack(packed)
    except PackingError:
        return None
    return state if isinstance(state, Mapping) else None


def _load(key: str, callback: Callback, state: Any) -> None:
    try:
        callback.load_state_dict(state)
    except KeyError as error:
        missing = error.args[0] if error.args else None
        if not isinstance(state, Mapping) or missing in state:
            raise
        raise CheckpointError(
            f"callback {key}: its load_state_dict() reads '{missing}', which the checkpoint does not have"
            f"{choices(str(missing), map(str, state), 'it has')}. It was left out where it could not be written, or "
            "state_dict() did not return it then; to go on, let load_state_dict() do without, for example with "
            f"state.get({missing!r})"
        ) from error
