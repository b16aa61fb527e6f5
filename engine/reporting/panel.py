"""The picture of one metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .levels import Drawn
from .look import INK, LOST, MUTED, TICKS, plain_axes, step_axis, value_axis
from .series import is_logarithmic
from .wording import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW = 25
"""Points up to which each gets a mark."""
LABELS = 0.55
"""Inches on the left of a panel that are there for the labels of its ticks."""
SIZE, SMALLEST, CHARACTER = 10, 7.5, 0.62
"""Of a title in points, of one that would be too long, and the width of a character as a share of that."""


def draw_panel(axes: Axes, metric: str, lines: Sequence[Drawn], last_step: int) -> None:
    """Draw one metric.

    Args:
        axes: Where.
        metric: Its name.
        lines: One a group.
        last_step: Where the axis of steps ends.

    The axes become narrower where their labels need more room than :data:`LABELS` on the left.
    """
    plain_axes(axes)
    for drawn in lines:
        _draw_line(axes, drawn)
    lost = sorted({step for drawn in lines for step in drawn.line.lost})
    if lost:
        marks: dict[str, Any] = {"marker": "|", "markersize": 5, "linestyle": "", "clip_on": False}
        axes.plot(lost, [0.03] * len(lost), color=LOST, transform=axes.get_xaxis_transform(), zorder=4, **marks)
    values = [value for drawn in lines for value in drawn.line.values()]
    if values:
        value_axis(axes, logarithmic=is_logarithmic(values))
        _make_room(axes)
    else:
        axes.text(0.5, 0.5, "never a finite number", color=MUTED, ha="center", va="center", transform=axes.transAxes)
        axes.set_yticks([])
    step_axis(axes, last_step)
    _write_title(axes, metric, short(lines[0].line.means[-1]) if len(lines) == 1 and lines[0].line.means else "")


def _make_room(axes: Axes) -> None:
    write = axes.yaxis.get_major_formatter()
    low, high = axes.get_ylim()
    longest = max((len(write(tick)) for tick in axes.get_yticks() if low <= tick <= high), default=0)
    beyond = (CHARACTER * TICKS * longest + 8) / 72 - LABELS
    if beyond > 0:
        x0, y0, width, height = axes.get_position().bounds
        beyond *= width * axes.figure.dpi / axes.get_window_extent().width
        axes.set_position((x0 + beyond, y0, width - beyond, height))


def _write_title(axes: Axes, metric: str, latest: str) -> None:
    """The metric, and the last value at the other end."""
    font: dict[str, Any] = {"pad": 6, "parse_math": False}
    width = 72 * axes.get_window_extent().width / axes.figure.dpi - CHARACTER * SIZE * (len(latest) + 1)
    room = max(int(width / (CHARACTER * SMALLEST)), 2)
    name = metric if len(metric) <= room else f"{metric[: room - 1]}…"
    size = min(SIZE, max(width, 1) / (CHARACTER * max(len(name), 1)))
    axes.set_title(name, loc="left", fontsize=size, color=INK, **font)
    axes.set_title(latest, loc="right", fontsize=SIZE - 1, color=MUTED, **font)


def _draw_line(axes: Axes, drawn: Drawn) -> None:
    line, colour = drawn.line, drawn.colour
    if line.band_steps:
        axes.fill_between(line.band_steps, line.low, line.high, color=colour, alpha=0.18, linewidth=0, zorder=2)
    marks: dict[str, Any] = {"marker": "o", "markersize": 3.2} if len(line.steps) <= FEW else {}
    axes.plot(line.steps, line.means, color=colour, linestyle=drawn.style, linewidth=1.6, zorder=3, **marks)
    if line.alone() and not marks:
        axes.plot(*zip(*line.alone(), strict=True), color=colour, linestyle="", marker="o", markersize=3.2, zorder=3)
