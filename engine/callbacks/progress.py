"""A progress bar with each problem's loss."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..metrics import brief
from .base import Callback

if TYPE_CHECKING:
    from ..engine import Engine

TERMINAL, LOG_FILE = 0.1, 10.0
"""Seconds between two refreshes where a person watches, and where every refresh is one more line of a log."""


class ProgressBar(Callback):
    """Shows engine steps, each problem's last loss, and the results of validations, on standard error.

    Losses are fetched from their device only when the bar is drawn again.

    Args:
        title: What stands in front of the bar.
        interval: Least seconds between two refreshes; by default what suits a terminal or a file.
    """

    def __init__(self, title: str = "", interval: float | None = None) -> None:
        self._title = title
        self._interval = interval if interval is not None else TERMINAL if sys.stderr.isatty() else LOG_FILE
        self._bar: tqdm[Any] | None = None
        self._refreshed = 0.0

    def on_run_start(self, engine: Engine) -> None:
        # tqdm would draw at moments of its own, with losses of some earlier step: it only draws when told to.
        self._bar = tqdm(
            total=engine.config.train_iters,
            initial=engine.step_count,
            desc=self._title or None,
            unit="step",
            dynamic_ncols=True,
            mininterval=float("inf"),
        )
        self._refreshed = time.monotonic()

    def on_step_end(self, engine: Engine) -> None:
        if self._bar is not None and time.monotonic() - self._refreshed >= self._interval:
            self._update(engine, self._bar)
            self._bar.refresh()
            self._refreshed = time.monotonic()

    def on_validation(self, engine: Engine, metrics: Mapping[str, Any]) -> None:
        if self._bar is not None and metrics:
            self._update(engine, self._bar)
            self._bar.write(f"step {engine.step_count}: {brief(metrics)}", file=sys.stderr)

    def on_run_end(self, engine: Engine) -> None:
        if self._bar is not None:
            self._update(engine, self._bar)
        self._close()

    def on_exception(self, engine: Engine, error: BaseException) -> None:
        self._close()

    def _update(self, engine: Engine, bar: tqdm[Any]) -> None:
        """Tell the bar what to show when it is drawn next (by a refresh, a message, or its end)."""
        losses = {name: metrics["loss"] for name, metrics in engine.last_metrics.items() if "loss" in metrics}
        bar.set_postfix_str(brief(losses), refresh=False)
        bar.update(engine.step_count - bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
