"""What is seen of many runs while they run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..metrics import brief
from .folder import RunFolder
from .plan import Outcome, Plan
from .run import Terms

TAIL = 4096
"""Bytes at the end of a file of metrics in which its last line is looked for."""
INTERVAL = 0.5
"""Seconds between two looks."""


class Progress:
    """A line for each run that ended and, on a terminal, a bar over the engine steps of all.

    Args:
        plan: The runs.
        base: The folder of their folders.
        lengths: The engine steps of those that are to run, by folder.
        terms: What holds for every run.
    """

    def __init__(self, plan: Plan, base: Path, lengths: Mapping[str, int], terms: Terms) -> None:
        self._plan, self._base, self._say = plan, base, terms.say
        self._lengths, self._steps = lengths, dict.fromkeys(lengths, 0)
        self._over: set[str] = set()
        self._looked = 0.0
        self._bar: tqdm[Any] = tqdm(
            total=sum(lengths.values()),
            desc=plan.experiment,
            unit="step",
            dynamic_ncols=True,
            disable=terms.quiet or not lengths or not sys.stderr.isatty(),
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def look(self) -> None:
        """Move the bar to where the runs are."""
        if self._bar.disable or time.monotonic() - self._looked < INTERVAL:
            return
        self._looked = time.monotonic()
        for folder in self._lengths.keys() - self._over:
            self._steps[folder] = max(self._steps[folder], steps_taken(RunFolder(self._base / folder).metrics))
        self._move()

    def ended(self, found: Outcome, seconds: float) -> None:
        """Say how a run ended."""
        folder = found.member.folder
        self._over.add(folder)
        self._steps[folder] = self._lengths[folder]  # it may have stopped early, or failed
        line = f"[{len(self._over)}/{len(self._lengths)}] {found.member.label}: {self._said(found, seconds)}"
        if self._bar.disable:
            self._say(line)
        else:
            self._bar.write(line, file=sys.stdout)
            self._move()

    def _move(self) -> None:
        self._bar.set_postfix_str(f"{len(self._over)}/{len(self._lengths)} runs", refresh=False)
        self._bar.update(sum(self._steps.values()) - self._bar.n)

    def _said(self, found: Outcome, seconds: float) -> str:
        if found.status == "finished":
            shown = {name: value for name, value in found.report.items() if name == self._plan.metric} or found.report
            return f"{brief(shown) or 'finished'} ({seconds:.1f} s)"
        return "stopped" if found.error is None else f"failed: {found.error} ({self._base / found.member.folder})"


def steps_taken(metrics: Path) -> int:
    """The engine step of the last whole line of a file of metrics."""
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, metrics.stat().st_size - TAIL))
            lines = file.read().splitlines(keepends=True)
        return int(json.loads(next(line for line in reversed(lines) if line.endswith(b"\n")))["step"])
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return 0
