"""Checkpoints that stay because of what the validation said."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...configs.watching import KeepBestSettings
from ...hypergrad.errors import CheckpointError, CheckpointWarning, ConfigError, warn_once
from ...problems.processes import is_first_process
from ..checkpoints.file import read_checkpoint, write_checkpoint
from ..underway import Part
from .base import Callback
from .watched import Watched

if TYPE_CHECKING:
    from ..engine import Engine

NUMBER = r"-?\d[\d.]*(?:e[-+]\d+)?"
LONGEST_NAME = 80
"""Characters of a metric's name that are used in the name of a file."""


class KeepBest(Callback):
    """Keeps the whole state of the run at its best validations.

    The files are ``RUN_DIR/checkpoints/best-<metric>-<value>-step-<step>.pt``; each is loaded like any other
    checkpoint, with ``engine.load_state_dict(read_checkpoint(path))``. One that is no longer among the best is removed
    after the better one is written. Of equal values, the earlier is better; one that is infinite or not a number is not
    kept. Where a file cannot be written, the run goes on with a warning.

    Args:
        metric: A metric of the validation; those of a problem's ``validation_step`` are ``<problem>/<name>``.
        mode: Whether it is better smaller (``"min"``) or larger (``"max"``).
        count: How many checkpoints stay.

    Attributes:
        kept: Value and engine step of each, the best first.

    Raises:
        ConfigError: An argument is out of range.
    """

    def __init__(self, metric: str, mode: Literal["min", "max"] = "min", count: int = 1) -> None:
        self._settings = KeepBestSettings(metric=metric, mode=mode, count=count)
        self._watched = Watched("KeepBest", metric, mode)
        self._name = re.sub(r"[^\w.=+-]", "_", metric)[:LONGEST_NAME]
        self._pattern = re.compile(rf"best-{re.escape(self._name)}-{NUMBER}-step-(\d{{8,}})\.pt")
        self._verified = False
        self.kept: list[tuple[float, int]] = []

    def files(self, engine: Engine) -> list[Path]:
        """The checkpoints, the best first."""
        return [_folder(engine) / self._file_name(value, step) for value, step in self.kept]

    def on_run_start(self, engine: Engine) -> None:
        self._watched.refuse_unmeasured(engine)
        folder = _folder(engine)
        if is_first_process():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                for left in folder.glob(".best-*"):  # of a process that was killed while it wrote
                    left.unlink(missing_ok=True)
            except OSError as error:
                raise ConfigError(f"KeepBest: {folder} cannot be written to: {error}") from error

    def on_validation(self, engine: Engine, metrics: Mapping[str, Any]) -> None:
        value = self._watched.value(metrics)
        if value is None or not math.isfinite(value):
            return
        entry = (value, engine.step_count)
        before = [kept for kept in self.kept if kept[1] != engine.step_count]
        best = sorted([*before, entry], key=lambda kept: (self._watched.rank(kept[0]), kept[1]))
        self.kept = best[: self._settings.count]
        try:
            if entry in self.kept:
                self._write(engine, entry)
        except (OSError, CheckpointError) as error:
            self.kept = before
            _warn(engine, f"this validation is among the best, but its checkpoint could not be written ({error})")
        self._remove_others(engine)

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self._watched.seen, "kept": [list(entry) for entry in self.kept]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._watched.seen = state["seen"]
        self.kept = [(value, step) for value, step in state["kept"]]

    def _write(self, engine: Engine, entry: tuple[float, int]) -> None:
        state = engine.state_dict()  # in every process: they may have to agree on it
        if not is_first_process():
            return
        if Part.LEVEL_STEP in engine.underway:
            warn_once(
                "best in a level step",
                f"KeepBest: step {engine.step_count}: validate() was called in the middle of a level step; a run that "
                "goes on from this checkpoint takes that step again, on another batch. Validate in on_step_end",
                CheckpointWarning,
            )
        path = _folder(engine) / self._file_name(*entry)
        write_checkpoint(path, state, engine.step_count)
        if not self._verified:
            read_checkpoint(path)
            self._verified = True

    def _remove_others(self, engine: Engine) -> None:
        """Remove what is no longer among the best.

        Files from beyond this step stay: a run that goes on from an earlier checkpoint will write them anew.
        """
        if not is_first_process():
            return
        wanted = {path.name for other in (self, *_others(engine)) for path in other.files(engine)}
        try:
            for path in _folder(engine).iterdir():
                match = self._pattern.fullmatch(path.name)
                if match and int(match[1]) <= engine.step_count and path.name not in wanted:
                    path.unlink(missing_ok=True)
        except OSError as error:
            _warn(engine, f"a checkpoint that is no longer among the best could not be removed ({error})")

    def _file_name(self, value: float, step: int) -> str:
        return f"best-{self._name}-{value:.6g}-step-{step:08d}.pt"


def _folder(engine: Engine) -> Path:
    if engine.run_dir is None:
        raise ConfigError("KeepBest: needs a folder to write to; give EngineConfig(run_dir='runs/mine')")
    return engine.run_dir / "checkpoints"


def _others(engine: Engine) -> list[KeepBest]:
    return [callback for callback in engine.callbacks.callbacks if isinstance(callback, KeepBest)]


def _warn(engine: Engine, message: str) -> None:
    warnings.warn(f"step {engine.step_count}: {message}; the run goes on", CheckpointWarning, stacklevel=3)
