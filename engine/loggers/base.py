"""From the hooks of a run to records: what is written, when, and what happens where it cannot be."""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...hypergrad.errors import ConfigError, LoggerWarning
from ...problems.processes import is_first_process
from ..callbacks.base import Callback

if TYPE_CHECKING:
    from ...problems.problem import Problem
    from ..engine import Engine

SLOW = 1.0
"""Seconds from which a failure is one that holds up the run."""
REST = 20.0
"""The next attempt after a slow failure is put off by so many times what that took: failing costs 5 % at most."""


@dataclass(frozen=True)
class Record:
    """What was measured at one moment.

    Attributes:
        step: The engine step it was measured in; 0 is before the first.
        seconds: How long the run had taken, that of the runs it goes on from included.
        metrics: What was measured, by name: tensors on their device, numbers, texts.
        problem: Whose metrics they are; ``None`` for those of a validation.
        count: Batches that the problem has trained on.
    """

    step: int
    seconds: float
    metrics: Mapping[str, Any]
    problem: str | None = None
    count: int | None = None

    @property
    def source(self) -> str:
        """The problem's name, or ``"validation"``."""
        return self.problem if self.problem is not None else "validation"


class Logger(Callback, ABC):
    """Writes the metrics of a run: those of every problem, and the results of validations.

    A problem with a ``log_step`` of its own is written every so many of its batches, the others every
    ``EngineConfig.log_step`` engine steps, and all of them at the end; each only if it has stepped since. Metrics that
    other callbacks add to those of a problem are written with them: a logger belongs behind these in the list.

    Where several processes train together, the first one writes. A logger that raises while the run goes on is reported
    once, by a :class:`LoggerWarning`, and asked again with the next record; one that cannot start ends the run before
    it begins.

    Attributes:
        name: What messages call it.
        last_step: The engine step of the last record that was written.
    """

    name = ""

    def __init__(self) -> None:
        self.last_step = 0
        self._running = False
        self._warned = False
        self._written: dict[str, int] = {}
        self._began = 0.0
        self._seconds_before = 0.0
        self._rests_until = 0.0

    @abstractmethod
    def open(self, engine: Engine) -> None:
        """Make ready to write. Whatever this raises ends the run before it begins."""

    @abstractmethod
    def write(self, record: Record) -> None:
        """Write a record. Only what is written should be fetched from its device."""

    @abstractmethod
    def close(self, error: BaseException | None) -> None:
        """Finish writing; also called where :meth:`open` failed halfway.

        Args:
            error: What the run ended by.
        """

    def on_run_start(self, engine: Engine) -> None:
        if not is_first_process():
            return
        try:
            self.open(engine)
        except Exception as error:
            with suppress(Exception):
                self.close(error)
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"logger '{self._title}': cannot start: {_short(error)}; mend this, or leave the logger out"
            ) from error
        self._running = True
        self._began = time.perf_counter()

    def on_level_step(self, engine: Engine, problem: Problem, metrics: Mapping[str, Tensor]) -> None:
        every = problem.config.log_step
        if every > 0 and problem.count % every == 0:
            self._write_problem(engine.step_count + 1, problem, metrics)

    def on_step_end(self, engine: Engine) -> None:
        if engine.step_count % engine.config.log_step == 0:
            for name, metrics in engine.last_metrics.items():
                if engine.problems[name].config.log_step < 0:
                    self._write_problem(engine.step_count, engine.problems[name], metrics)

    def on_validation(self, engine: Engine, metrics: Mapping[str, Any]) -> None:
        self._write(Record(engine.step_count, self._seconds, metrics))

    def on_run_end(self, engine: Engine) -> None:
        for name, metrics in engine.last_metrics.items():
            self._write_problem(engine.step_count, engine.problems[name], metrics)
        self._end(None)

    def on_exception(self, engine: Engine, error: BaseException) -> None:
        self._end(error)

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self._seconds, "last_step": self.last_step, "written": dict(self._written)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._seconds_before = state["seconds"]
        self.last_step = state["last_step"]
        self._written = dict(state["written"])

    @contextmanager
    def surviving(self) -> Iterator[None]:
        """Let the run go on whatever the block raises."""
        began = time.perf_counter()
        try:
            yield
        except Exception as error:
            ended = time.perf_counter()
            if ended - began > SLOW:
                self._rests_until = ended + REST * (ended - began)
            self._warn(error)

    @property
    def _title(self) -> str:
        return self.name or type(self).__name__

    @property
    def _seconds(self) -> float:
        return self._seconds_before + (time.perf_counter() - self._began if self._running else 0.0)

    def _write_problem(self, step: int, problem: Problem, metrics: Mapping[str, Tensor]) -> None:
        if self._written.get(problem.name) == problem.count:
            return  # an upper that has not stepped since has nothing new
        if self._write(Record(step, self._seconds, metrics, problem.name, problem.count)):
            self._written[problem.name] = problem.count

    def _write(self, record: Record) -> bool:
        if not self._running or time.perf_counter() < self._rests_until:
            return False
        with self.surviving():
            self.write(record)
            self.last_step = record.step
            return True
        return False

    def _end(self, error: BaseException | None) -> None:
        if self._running:
            self._seconds_before, self._running = self._seconds, False
            with self.surviving():
                self.close(error)

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"logger '{self._title}': {_short(error)}; what it could not write is lost, the run goes on, and it is "
                "tried again (this is said once)",
                LoggerWarning,
                stacklevel=2,
            )


def _short(error: Exception) -> str:
    """Kind and message: the errors of some packages are pages long."""
    return shorten(f"{type(error).__name__}: {error}", 400, placeholder=" ...")
