"""Metrics of a run as a table of comma-separated values."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from io import StringIO
from typing import Any

from ..metrics import scalars
from .base import Record
from .text_file import TextFile

COLUMNS = ("step", "seconds", "problem", "count", "metric", "value")


class Csv(TextFile):
    """Writes one row for each metric that is a single number, so that the columns are the same whatever is measured.

    The rows of a validation have ``validation`` for a problem, and no count.
    """

    name = "csv"

    def header(self) -> str:
        return _lines([COLUMNS])

    def text(self, record: Record) -> str:
        front = (record.step, round(record.seconds, 3), record.source, record.count)
        return _lines((*front, metric, value) for metric, value in scalars(record.metrics).items())


def _lines(rows: Iterable[tuple[Any, ...]]) -> str:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
