"""Metrics of a run as JSON lines."""

from __future__ import annotations

import json
from typing import Any

from ..metrics import plain
from .base import Record
from .text_file import TextFile


class JsonLines(TextFile):
    """Writes one JSON object a line: a problem's metrics, or the result of a validation."""

    name = "jsonl"

    def text(self, record: Record) -> str:
        line: dict[str, Any] = {"step": record.step, "seconds": round(record.seconds, 3)}
        if record.problem is None:
            line["validation"] = plain(record.metrics)
        else:
            line.update(problem=record.problem, count=record.count, metrics=plain(record.metrics))
        return json.dumps(line) + "\n"
