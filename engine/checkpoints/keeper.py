"""When a run is saved, and what happens where that fails."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...hypergrad.errors import CheckpointError, CheckpointWarning, ConfigError, NonFiniteError
from ...problems.processes import is_first_process
from ..finite import diverged
from .folder import CheckpointFolder

if TYPE_CHECKING:
    from ..engine import Engine


class Checkpoints:
    """Saves an engine every so many engine steps, and goes on from what was saved.

    A checkpoint is written before the first step too: what cannot be saved shows before anything is lost. One that
    cannot be written later (a full disk) is left out with a warning, and the one before it stays. None is written of
    parameters that are not finite: nothing could go on from it.

    Args:
        run_dir: The run's folder; ``None`` where nothing is saved.
        every: ``EngineConfig.checkpoint_every``.
        keep: ``EngineConfig.keep``.

    Raises:
        ConfigError: Checkpoints are asked for, and there is no folder.
    """

    def __init__(self, run_dir: Path | None, every: int, keep: int) -> None:
        if every and run_dir is None:
            raise ConfigError(
                f"EngineConfig: checkpoint_every={every} needs a folder to write to; give run_dir='runs/mine'"
            )
        self._folder = CheckpointFolder(run_dir / "checkpoints", keep) if run_dir is not None else None
        self._every = every
        self._begun = False

    def begin(self, engine: Engine) -> None:
        """A run starts, or goes on.

        Raises:
            ConfigError: The folder has checkpoints of another run, or cannot be written to.
            CheckpointError: The state holds something that could not be read again.
        """
        if self._begun or self._folder is None:
            return
        if is_first_process():  # what the others see may be its first checkpoint already
            self._refuse_other(self._folder)
        if self._every:
            self._save_first(engine, self._folder)
        self._begun = True

    def _refuse_other(self, folder: CheckpointFolder) -> None:
        if folder.files():
            raise ConfigError(
                f"{folder.path}: there are checkpoints of a run in it; go on from them with engine.resume(), or give "
                "another run_dir"
            )

    def _save_first(self, engine: Engine, folder: CheckpointFolder) -> None:
        state = engine.state_dict()  # in every process: they may have to agree on it
        if not is_first_process():
            return
        try:
            folder.save(engine.step_count, state)
        except OSError as error:
            raise ConfigError(f"run_dir: cannot be written to: {error}") from error

    def after_step(self, engine: Engine, *, last: bool) -> None:
        """An engine step is done; save where that is due.

        Raises:
            NonFiniteError: The run has diverged, and ``EngineConfig.non_finite`` says to raise.
        """
        if self._every and (last or engine.step_count % self._every == 0):
            why = self._divergence(engine) if engine.config.non_finite == "raise" else None
            if why is not None:
                raise NonFiniteError(
                    f"{why}. Lower the learning rate or clip (gradient_clipping), and go on from the last one if there "
                    "is any (in Python, set the rate after engine.resume()), or leave out what is not finite "
                    "(EngineConfig(non_finite='skip'))"
                )
            self.save(engine, then="" if last else "the run goes on")

    def save(self, engine: Engine, *, then: str = "") -> Path | None:
        """Save now; ``None`` where there is no folder, or where it could not be, of which it warns.

        Args:
            engine: What to save.
            then: What becomes of the run where it could not be, for the warning.

        Raises:
            ConfigError: The folder has checkpoints of another run.
        """
        if self._folder is None:
            return None
        if not self._begun and is_first_process():  # by engine.step() alone, without run()
            self._refuse_other(self._folder)
        self._begun = True
        if (why := self._divergence(engine)) is not None:
            warnings.warn(why, CheckpointWarning, stacklevel=2)
            return None
        state = engine.state_dict()  # in every process: they may have to agree on it
        if not is_first_process():
            return None
        try:
            return self._folder.save(engine.step_count, state)
        except (OSError, CheckpointError) as error:
            warnings.warn(
                f"step {engine.step_count}: no checkpoint could be written ({error})"
                f"{f'; {then}' if then else ''}; {self._left(engine)}",
                CheckpointWarning,
                stacklevel=2,
            )
            return None

    def resume(self, engine: Engine, amend: Callable[[dict[str, Any]], object] | None = None) -> int | None:
        """Load the newest good checkpoint and return its step; ``None`` where there is none.

        Args:
            engine: The engine.
            amend: Is given the state before it is loaded; it may change it in place, or refuse it.

        Raises:
            ConfigError: There is no folder to look in.
            CheckpointError: There are checkpoints, and none can be used.
        """
        if self._folder is None:
            raise ConfigError("engine.resume(): needs the folder of the run: EngineConfig(run_dir='runs/mine')")
        found = self._folder.newest()
        if found is None:
            return None
        if amend is not None:
            amend(found[1])
        engine.load_state_dict(found[1])
        self._begun = True
        return engine.step_count

    def _divergence(self, engine: Engine) -> str | None:
        name = diverged(engine.problems.values())
        if name is None:
            return None
        return (
            f"step {engine.step_count}: parameters of problem '{name}' are infinite or not a number, so no checkpoint "
            f"is written; {self._left(engine)}"
        )

    def _left(self, engine: Engine) -> str:
        """What there is to go on from, without a checkpoint of now."""
        try:
            steps = self._folder.steps() if self._folder is not None else []
        except OSError as error:
            return f"whether there is another one cannot be seen ({error})"
        earlier = [step for step in steps if step <= engine.step_count]
        return f"the last one, of step {earlier[0]}, is still there" if earlier else "there is none to go on from"
