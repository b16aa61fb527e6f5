"""A progress bar, with a line for each problem."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ...problems.processes import is_first_process
from ..metrics import brief
from ..streams import standard_error
from .base import Callback

if TYPE_CHECKING:
    from ...problems.problem import Problem
    from ..engine import Engine

LINES_UP_TO = 8
"""Most problems that get a line each; more would fill the terminal."""


class ProgressBar(Callback):
    """Shows engine steps and, below, each problem's batches, loss, and place in its inner loop, on standard error.

    The results of validations are printed above it. Where standard error is not a terminal it is quiet: in the log of
    a batch job, bars are noise, and the logger ``console`` writes lines. Losses are fetched from their device only when
    the bar is drawn again. A terminal that is gone ends no run.

    Args:
        title: What stands in front of the bar.
        interval: Least seconds between two refreshes.
        shown: Whether there is a bar; by default where standard error is a terminal.
    """

    def __init__(self, title: str = "", interval: float = 0.1, shown: bool | None = None) -> None:
        self._title = title
        self._interval = interval
        self._shown = shown
        self._bar: tqdm[Any] | None = None
        self._lines: dict[str, tqdm[Any]] = {}
        self._refreshed = 0.0

    def on_run_start(self, engine: Engine) -> None:
        if not (sys.stderr.isatty() if self._shown is None else self._shown) or not is_first_process():
            return
        # tqdm would draw at moments of its own, with losses of some earlier step: it only draws when told to.
        self._bar = tqdm(
            total=engine.config.train_iters,
            initial=engine.step_count,
            desc=self._title or None,
            unit="step",
            file=standard_error(),
            dynamic_ncols=True,
            mininterval=float("inf"),
        )
        names = list(reversed(engine.graph.order))
        for name in names if 1 < len(names) <= LINES_UP_TO else ():
            self._lines[name] = _line(engine.problems[name], position=len(self._lines) + 1)
        self._refreshed = time.monotonic()

    def on_step_end(self, engine: Engine) -> None:
        if self._bar is not None and time.monotonic() - self._refreshed >= self._interval:
            self._update(engine, self._bar)
            for bar in (self._bar, *self._lines.values()):
                bar.refresh()
            self._refreshed = time.monotonic()

    def on_validation(self, engine: Engine, metrics: Mapping[str, Any]) -> None:
        if self._bar is not None and metrics:
            self._update(engine, self._bar)
            self._bar.write(f"step {engine.step_count}: {brief(metrics)}", file=standard_error())

    def on_run_end(self, engine: Engine) -> None:
        if self._bar is not None:
            self._bar.update(engine.step_count - self._bar.n)
            self._bar.set_postfix_str(brief(_losses(engine)), refresh=False)
        self._close()

    def on_exception(self, engine: Engine, error: BaseException) -> None:
        self._close()

    def _update(self, engine: Engine, bar: tqdm[Any]) -> None:
        """Tell the bar what to show when it is drawn next (by a refresh, a message, or its end)."""
        bar.update(engine.step_count - bar.n)
        losses = _losses(engine)
        if not self._lines:
            bar.set_postfix_str(brief(losses), refresh=False)
        width = max(map(len, self._lines), default=0)
        for name, line in self._lines.items():
            problem = engine.problems[name]
            loss = brief({"loss": losses[name]}) if name in losses else ""
            line.n = _steps_in_loop(problem)
            line.set_description_str(
                f"  {name:{width}}  batch {problem.count:<9,}  {loss:14}  {_place(problem)}", refresh=False
            )

    def _close(self) -> None:
        for bar in (*self._lines.values(), self._bar):
            if bar is not None:
                bar.close()
        self._bar, self._lines = None, {}


def _line(problem: Problem, position: int) -> tqdm[Any]:
    """The line of one problem, with a small bar for its inner loop where it has one of several steps."""
    several = bool(problem.uppers) and problem.config.unroll_steps > 1
    return tqdm(
        total=problem.config.unroll_steps,
        position=position,
        bar_format="{desc} {bar:10}" if several else "{desc}",
        leave=False,
        file=standard_error(),
        dynamic_ncols=True,
        mininterval=float("inf"),
    )


def _place(problem: Problem) -> str:
    """Where in its inner loop a problem is, where it has one of several steps."""
    steps, config = problem.level.update.steps, problem.config
    if not problem.uppers:
        return ""
    if steps <= config.warmup_steps and config.warmup_steps:
        return f"warm-up {steps}/{config.warmup_steps}"
    return f"inner step {_steps_in_loop(problem)}/{config.unroll_steps}" if config.unroll_steps > 1 else ""


def _steps_in_loop(problem: Problem) -> int:
    """Optimizer steps since the problem's inner loop began; all of them where it just ended."""
    beyond = problem.level.update.steps - problem.config.warmup_steps
    return (beyond - 1) % problem.config.unroll_steps + 1 if beyond > 0 else 0


def _losses(engine: Engine) -> dict[str, Any]:
    return {name: metrics["loss"] for name, metrics in engine.last_metrics.items() if "loss" in metrics}
