"""One metric of one or several runs, in few enough points to be drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Series = Mapping[int, float]
"""Values by engine step; a value may be infinite or not a number."""

MOST_POINTS = 400
"""Of one line: more are not told apart on a screen, and would make a page heavy."""
DECADES = 2.0
"""Span from which positive values are drawn on a logarithmic axis."""


@dataclass
class Line:
    """What is drawn of a metric.

    Attributes:
        steps: Of the line.
        means: Over the runs (and over the steps in between, where there were more than can be drawn); not a number
            where the line has a gap.
        band_steps: Of the band around it; empty where no point stands for more than one value.
        low: The smallest value.
        high: The largest.
        lost: Steps with a value that is not finite.
    """

    steps: list[float] = field(default_factory=list)
    means: list[float] = field(default_factory=list)
    band_steps: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    lost: list[float] = field(default_factory=list)

    def values(self) -> Iterable[float]:
        """Every finite value that is drawn."""
        return (value for values in (self.means, self.low, self.high) for value in values if math.isfinite(value))

    def alone(self) -> list[tuple[float, float]]:
        """The points between two gaps, which a line does not show."""
        there = [False, *map(math.isfinite, self.means), False]
        return [
            (step, mean)
            for i, (step, mean) in enumerate(zip(self.steps, self.means, strict=True), start=1)
            if there[i] and not there[i - 1] and not there[i + 1]
        ]


def pooled(runs: Sequence[Series], most: int = MOST_POINTS) -> Line:
    """Draw several runs as one: their mean, where all of them have a value, in a band from the least to the largest.

    Args:
        runs: The same metric of each run.
        most: Points at most; beyond it neighbouring steps share one.
    """
    steps = sorted({step for run in runs for step in run})
    size = max(1, math.ceil(len(steps) / most))
    line = Line()
    for start in range(0, len(steps), size):
        here = steps[start : start + size]
        _add_point(line, here[len(here) // 2], [[run[step] for step in here if step in run] for run in runs])
    if not any(low < high for low, high in zip(line.low, line.high, strict=True)):
        line.band_steps, line.low, line.high = [], [], []
    return line


def is_logarithmic(values: Iterable[float]) -> bool:
    """Whether values are positive and span more than two decades."""
    values = list(values)
    return bool(values) and min(values) > 0 and math.log10(max(values)) - math.log10(min(values)) > DECADES


def _add_point(line: Line, step: float, by_run: list[list[float]]) -> None:
    everything = [value for values in by_run for value in values]
    finite = [value for value in everything if math.isfinite(value)]
    if len(finite) < len(everything):
        line.lost.append(step)
    if all(by_run):
        mean = sum(value / len(everything) for value in everything)
        line.steps.append(step)
        line.means.append(mean if math.isfinite(mean) else math.nan)
    line.band_steps.append(step)
    line.low.append(min(finite, default=math.nan))
    line.high.append(max(finite, default=math.nan))
