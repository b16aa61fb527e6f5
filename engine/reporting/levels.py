"""What there is to draw of some runs: per level its metrics, and per group of runs one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...hypergrad.errors import ConfigError, choices
from .folders import Group
from .look import COLOURS, VALIDATION, level_colours
from .records import Curves, RunRecord
from .series import Line, pooled

STROKES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Level:
    """The metrics of a problem, or of the validations (``name`` is ``None``).

    Attributes:
        name: The problem.
        metrics: Names of its metrics.
    """

    name: str | None
    metrics: list[str]

    @property
    def title(self) -> str:
        """What is written over its panels."""
        return "validation" if self.name is None else self.name

    def curves(self, run: RunRecord) -> Curves:
        """Its curves in one run."""
        return run.validation if self.name is None else run.problems.get(self.name, {})


@dataclass(frozen=True)
class Drawn:
    """A line, and how it is drawn.

    Attributes:
        line: The numbers.
        colour: Its colour.
        style: Solid, dashed, ...
    """

    line: Line
    colour: str
    style: str = "-"


def levels_of(groups: Sequence[Group], only: Sequence[str] = ()) -> list[Level]:
    """What there is to draw, top level first.

    Args:
        groups: The runs.
        only: Metrics to draw; all by default.

    Raises:
        ConfigError: There is nothing, or nothing of a name in ``only``.
    """
    runs = [run for group in groups for run in group.runs]
    names: list[str | None] = list(dict.fromkeys(name for run in runs for name in run.levels()))
    found = []
    for name in [*names, None]:
        level = Level(name, [])
        metrics = dict.fromkeys(metric for run in runs for metric in level.curves(run))
        found.append(Level(name, list(metrics)))
    known = dict.fromkeys(metric for level in found for metric in level.metrics)
    for metric in only:
        if metric not in known:
            raise ConfigError(f"--metric: no run has '{metric}'{choices(metric, known, 'there are')}")
    if not known:
        where = ", ".join(str(run.path) for run in runs[:3]) + (", ..." if len(runs) > 3 else "")
        raise ConfigError(f"nothing to draw: no metrics were written in {where} (was the run stopped at once?)")
    kept = [Level(level.name, [m for m in level.metrics if not only or m in only]) for level in found]
    return [level for level in kept if level.metrics]


def colours_of(groups: Sequence[Group], levels: Sequence[Level]) -> Mapping[str | None, str]:
    """The colour of each level where one group is drawn alone: that of its box in the graph."""
    names = [level.name for level in levels if level.name is not None]
    found: dict[str | None, str] = {None: VALIDATION}
    found.update(level_colours(groups[0].runs[0].graph(), names).items())
    return found


def lines_of(groups: Sequence[Group], level: Level, metric: str, colours: Mapping[str | None, str]) -> list[Drawn]:
    """One line a group that has the metric.

    Args:
        groups: The runs.
        level: Whose metric.
        metric: Its name.
        colours: As :func:`colours_of` chooses them.
    """
    lines = []
    for i, group in enumerate(groups):
        found = [level.curves(run)[metric] for run in group.runs if metric in level.curves(run)]
        if found:
            colour, style = style_of(i) if len(groups) > 1 else (colours[level.name], "-")
            lines.append(Drawn(pooled(found), colour, style))
    return lines


def style_of(number: int) -> tuple[str, Any]:
    """Colour and stroke of one of several groups."""
    return COLOURS[number % len(COLOURS)], STROKES[number // len(COLOURS) % len(STROKES)]
