"""How pictures of runs look: colours, fonts, axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...hypergrad.errors import ConfigError
from ..audit.picture import COLOURS as COLOURS
from ..graph import Graph
from ..layout import rows
from ..picture import BORDERS
from ..picture import INK as INK
from .wording import counted, power_label, tick_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MUTED, GRID, LOST = "#6b7280", "#e5e7eb", "#dc2626"
VALIDATION = "#0f766e"
TICKS = 8.5
"""Size of the labels of an axis, in points."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure that no window system knows of.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ConfigError("pictures need matplotlib; install it with: pip install 'multilevel[examples]'") from error
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def level_colours(graph: Graph | None, levels: list[str]) -> Mapping[str, str]:
    """The colour that each level has in the picture of the graph."""
    row = rows(graph) if graph else {name: len(levels) - 1 - i for i, name in enumerate(levels)}
    return {name: BORDERS[min(row.get(name, 0), len(BORDERS) - 1)] for name in levels}


def plain_axes(axes: Axes) -> None:
    """Take away what an axis does not need."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(which="both", colors=MUTED, labelsize=TICKS)
    axes.tick_params(which="minor", length=0)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def step_axis(axes: Axes, last: int) -> None:
    """Engine steps from 0 to the last, in thousands where there are many."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0, 1.02 * max(last, 1))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: counted(value))


def value_axis(axes: Axes, *, logarithmic: bool) -> None:
    """Tick labels as short as they can be and still tell the ticks apart."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    if not logarithmic:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(lambda value, _: tick_label(value, axes.get_yticks()))
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_major_formatter(lambda value, _: power_label(value))
    axes.yaxis.set_minor_formatter(NullFormatter())
