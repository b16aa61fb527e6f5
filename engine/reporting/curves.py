"""Curves of runs: one row of panels per level, top level first, and one of validations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...hypergrad.errors import ConfigError
from .folders import Group
from .levels import colours_of, levels_of, lines_of, style_of
from .look import INK, MUTED, new_figure
from .panel import LABELS, draw_panel
from .wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS = 3
"""Panels side by side."""
WIDTH, EDGE, GAP = 11.0, 0.33, 0.2
"""Inches from left to right: the figure, its edge, and between two panels."""
TITLE, LEGEND, HEADING, PANEL, ROW = 0.95, 0.205, 0.34, 1.9, 2.65
"""Inches from top to bottom: title, a line of the legend, a level's name, a panel, a panel with its title and ticks."""


def save_curves(groups: Sequence[Group], path: Path, only: Sequence[str] = ()) -> None:
    """Draw the curves of some runs.

    Args:
        groups: The runs; several of one group are drawn as their mean in a band from the least to the largest.
        path: The file; its ending (``.png``, ``.svg``, ``.pdf``) chooses the format.
        only: Metrics to draw; all by default.

    Raises:
        ConfigError: Nothing to draw, no matplotlib, or the file cannot be written.
    """
    figure = draw_curves(groups, only)
    try:
        figure.savefig(path, dpi=150)
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path}: {error}") from error


def draw_curves(groups: Sequence[Group], only: Sequence[str] = ()) -> Figure:
    """What :func:`save_curves` saves."""
    levels = levels_of(groups, only)
    colours = colours_of(groups, levels)
    several = len(groups) > 1
    top = TITLE + (LEGEND * math.ceil(len(groups) / _legend_columns(groups)) + 0.12 if several else 0.0)
    rows = [(level, metrics, i == 0) for level in levels for i, metrics in enumerate(_in_rows(level.metrics))]
    height = top + sum(ROW + HEADING * first for _, _, first in rows) + 0.2
    figure = new_figure(WIDTH, height)
    _head(figure, groups, height)
    if several:
        _legend(figure, groups, height)
    last_step = max(run.steps for group in groups for run in group.runs)
    below = height - top
    for level, metrics, first in rows:
        if first:
            middle = (below - HEADING / 2) / height
            _write(figure, middle, level.title, INK if several else colours[level.name], size=12, weight="bold")
        below -= ROW + HEADING * first
        for axes, metric in zip(_panels(figure, len(metrics), below, height), metrics, strict=True):
            draw_panel(axes, metric, lines_of(groups, level, metric, colours), last_step)
    axes.set_xlabel("engine steps", color=MUTED, fontsize=9)
    return figure


def _panels(figure: Figure, count: int, bottom: float, height: float) -> Iterator[Axes]:
    """Axes side by side; ``bottom`` and ``height`` (of the figure) are in inches."""
    width = (WIDTH - 2 * EDGE) / count
    for i in range(count):
        left = EDGE + i * width + LABELS
        size = (width - LABELS - GAP, PANEL)
        yield figure.add_axes((left / WIDTH, (bottom + 0.45) / height, size[0] / WIDTH, size[1] / height))


def _write(figure: Figure, middle: float, words: str, colour: str, **font: Any) -> None:
    figure.text(EDGE / WIDTH, middle, words, color=colour, va="center", parse_math=False, **font)


def _in_rows(metrics: list[str]) -> list[list[str]]:
    """As few rows as there can be, about equally full."""
    count = math.ceil(len(metrics) / ACROSS)
    size, larger = divmod(len(metrics), count)
    starts = [i * size + min(i, larger) for i in range(count + 1)]
    return [metrics[a:b] for a, b in pairwise(starts)]


def _head(figure: Figure, groups: Sequence[Group], height: float) -> None:
    names = list(dict.fromkeys(run.name for group in groups for run in group.runs))
    title = names[0] if len(names) == 1 else f"{len(groups)} runs"
    _write(figure, 1 - 0.36 / height, title, INK, size=15, weight="bold")
    runs = [run for group in groups for run in group.runs]
    words = [counted(max(run.steps for run in runs), "engine step")]
    if len(groups) == 1 and groups[0].label != title:
        words.insert(0, groups[0].label)
    if len(groups) > 1:
        words.append(f"{len(groups)} runs" if len(runs) == len(groups) else f"{len(runs)} runs in {len(groups)} groups")
    if any(len(group.runs) > 1 for group in groups):
        seeds = sorted({len(group.runs) for group in groups})
        count = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        words.append(f"mean of {count} seeds, in a band from the least to the largest")
    if any(not math.isfinite(value) for run in runs for value in run.values()):
        words.append("red ticks where a value is not finite")
    _write(figure, 1 - 0.66 / height, ", ".join(words), MUTED, size=10)


def _legend_columns(groups: Sequence[Group]) -> int:
    longest = max(len(group.label) for group in groups)
    return max(1, min(len(groups), int((WIDTH - 2 * EDGE) / (0.09 * longest + 0.65))))


def _legend(figure: Figure, groups: Sequence[Group], height: float) -> None:
    from matplotlib.lines import Line2D

    styles = map(style_of, range(len(groups)))
    handles = [Line2D([], [], color=colour, linestyle=style, linewidth=2) for colour, style in styles]
    legend = figure.legend(
        handles, [group.label for group in groups], loc="upper left", bbox_to_anchor=(EDGE / WIDTH, 1 - 0.9 / height),
        ncols=_legend_columns(groups), frameon=False, fontsize=9.5, labelcolor=INK, borderpad=0, borderaxespad=0.0,
        handlelength=2.2,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
