"""Metrics of a run as JSON lines."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from torch import Tensor

from ..callbacks.base import Callback
from ..metrics import plain

if TYPE_CHECKING:
    from ...problems.problem import Problem
    from ..engine import Engine


class MetricsFile(Callback):
    """Writes one JSON object a line: a problem's metrics, or the result of a validation.

    A problem with a ``log_step`` of its own is written every so many of its batches, the others every
    ``EngineConfig.log_step`` engine steps, and all of them at the end.

    Args:
        path: The file, which is added to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None
        self._start = 0.0
        self._written: dict[str, int] = {}

    def on_run_start(self, engine: Engine) -> None:
        self._file = self.path.open("a", encoding="utf-8", buffering=1)  # by lines: a killed run keeps what it wrote
        self._start = time.perf_counter()
        self._written = {}

    def on_level_step(self, engine: Engine, problem: Problem, metrics: Mapping[str, Tensor]) -> None:
        every = problem.config.log_step
        if every > 0 and problem.count % every == 0:
            self._write_problem(engine, problem, metrics)

    def on_step_end(self, engine: Engine) -> None:
        if engine.step_count % engine.config.log_step == 0:
            for name, metrics in engine.last_metrics.items():
                if engine.problems[name].config.log_step < 0:
                    self._write_problem(engine, engine.problems[name], metrics)

    def on_validation(self, engine: Engine, metrics: Mapping[str, Any]) -> None:
        self._write(engine, {"validation": plain(metrics)})

    def on_run_end(self, engine: Engine) -> None:
        for name, metrics in engine.last_metrics.items():
            self._write_problem(engine, engine.problems[name], metrics)
        self._close()

    def on_exception(self, engine: Engine, error: BaseException) -> None:
        self._close()

    def _write_problem(self, engine: Engine, problem: Problem, metrics: Mapping[str, Tensor]) -> None:
        if self._written.get(problem.name) == problem.count:
            return  # an upper that has not stepped since has nothing new
        self._written[problem.name] = problem.count
        self._write(engine, {"problem": problem.name, "count": problem.count, "metrics": plain(metrics)})

    def _write(self, engine: Engine, record: dict[str, Any]) -> None:
        if self._file is not None:
            seconds = round(time.perf_counter() - self._start, 3)
            self._file.write(json.dumps({"step": engine.step_count, "seconds": seconds, **record}) + "\n")

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
