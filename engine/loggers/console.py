"""Metrics of a run as lines on standard error, for a terminal or the log of a batch job."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tqdm import tqdm

from ..metrics import brief
from .base import Logger, Record

if TYPE_CHECKING:
    from ..engine import Engine


class Console(Logger):
    """Prints one line a record: ``step 500  classifier  loss 0.31``. A progress bar stays below them."""

    name = "console"

    def open(self, engine: Engine) -> None:
        """Standard error is open already."""

    def write(self, record: Record) -> None:
        numbers = brief(record.metrics)
        if numbers:
            tqdm.write(f"step {record.step}  {record.source}  {numbers}", file=sys.stderr)

    def close(self, error: BaseException | None) -> None:
        """Standard error stays open."""
