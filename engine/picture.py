"""The graph of a hierarchy as a picture: uppers above lowers, and an arrow head wherever something enters a loss."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..configs.config import Config
from ..hypergrad.errors import ConfigError
from .drawing import BOTH, DOWN, UP, arrow, caption
from .graph import Edge, Graph
from .layout import Layout, layout

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]

COLUMN, ROW = 3.0, 1.75
"""Distance of two columns and of two rows, in inches."""
BOX_WIDTH, BOX_HEIGHT, MARGIN, NOTE, NARROWEST = 2.3, 0.95, 0.35, 0.45, 4.2
INK, MUTED, LINE = "#1f2937", "#4b5563", "#64748b"
FILLS = ("#e0f2fe", "#e0e7ff", "#ede9fe", "#fae8ff", "#ffe4e6")
BORDERS = ("#0284c7", "#4f46e5", "#7c3aed", "#c026d3", "#e11d48")
"""By row, from the leaves upward."""
STYLES = {BOTH: "<|-|>", DOWN: "-|>", UP: "<|-"}
NOTES = (
    "arrow down: the upper's parameters enter the lower's loss",
    "arrow up: the lower's solution enters the upper's loss",
)
CENTRED: dict[str, Any] = {"ha": "center", "va": "center"}


def save_picture(graph: Graph, configs: Mapping[str, Config], path: Path) -> None:
    """Write the picture of a graph.

    Args:
        graph: The graph.
        configs: The settings of every problem: method and steps are written in its box.
        path: Where to; the ending (``.png``, ``.svg``, ``.pdf``) chooses the format.

    Raises:
        ConfigError: matplotlib is not installed, or does not know the ending.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ConfigError("pictures need matplotlib; install it with: pip install 'multilevel[examples]'") from error
    placed = layout(graph)
    note = NOTE if graph.networkx.edges else 0.0
    width = max(placed.width * COLUMN + BOX_WIDTH, NARROWEST) + 2 * MARGIN
    bottom = -BOX_HEIGHT / 2 - MARGIN - note
    top = placed.height * ROW + BOX_HEIGHT / 2 + MARGIN
    figure = Figure(figsize=(width, top - bottom), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-width / 2, width / 2), ylim=(bottom, top))
    axes.set_axis_off()
    for edge in graph.networkx.edges:
        _draw_edge(axes, placed, edge, arrow(graph, edge))
    for name in graph.order:
        _draw_box(axes, name, caption(graph, name, configs[name]), *placed.boxes[name])
    if note:
        axes.text(0, bottom + note / 2 + 0.1, "\n".join(NOTES), fontsize=8, color=MUTED, linespacing=1.5, **CENTRED)
    try:
        figure.savefig(path, dpi=200)
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _draw_box(axes: Axes, name: str, lines: list[str], column: float, row: int) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y = column * COLUMN, row * ROW
    shade = min(row, len(FILLS) - 1)
    axes.add_patch(
        FancyBboxPatch(
            (x - BOX_WIDTH / 2, y - BOX_HEIGHT / 2),
            BOX_WIDTH,
            BOX_HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.16",
            facecolor=FILLS[shade],
            edgecolor=BORDERS[shade],
            linewidth=1.6,
            zorder=3,
        )
    )
    title = y + 0.12 * len(lines)
    axes.text(x, title, name, fontsize=_fit(name, 13), weight="bold", color=INK, zorder=4, **CENTRED)
    for i, line in enumerate(lines):
        axes.text(x, title - 0.27 - 0.2 * i, line, fontsize=_fit(line, 9), color=MUTED, zorder=4, **CENTRED)


def _fit(words: str, size: float) -> float:
    """The font size at which ``words`` fit into a box (a character is about 0.6 of its size wide)."""
    return min(size, 72 * (BOX_WIDTH - 0.2) / (0.6 * len(words)))


def _draw_edge(axes: Axes, placed: Layout, edge: Edge, sign: str) -> None:
    from matplotlib.patches import FancyArrowPatch

    (upper_column, upper_row), (lower_column, lower_row) = (placed.boxes[name] for name in edge)
    gap = BOX_HEIGHT / 2 + 0.05
    # Leaning towards the other end keeps the edges of one box apart where they meet it.
    passed = [(x * COLUMN, row * ROW) for x, row in placed.routes[edge]]
    first = passed[0] if passed else (lower_column * COLUMN, lower_row * ROW)
    last = passed[-1] if passed else (upper_column * COLUMN, upper_row * ROW)
    start = (_lean(upper_column * COLUMN, first[0]), upper_row * ROW - gap)
    end = (_lean(lower_column * COLUMN, last[0]), lower_row * ROW + gap)
    axes.add_patch(
        FancyArrowPatch(
            path=_curve([start, *passed, end]),
            arrowstyle=STYLES[sign],
            mutation_scale=15,
            linewidth=1.7,
            color=LINE,
            zorder=2,
            capstyle="round",
            joinstyle="round",
        )
    )


def _lean(x: float, other: float) -> float:
    return x + max(-0.7, min(0.7, 0.25 * (other - x)))


def _curve(points: list[Point]) -> Any:
    """A smooth path that leaves every point vertically."""
    from matplotlib.path import Path as Curve

    vertices, codes = [points[0]], [Curve.MOVETO]
    for (x0, y0), (x1, y1) in pairwise(points):
        middle = (y0 + y1) / 2
        vertices += [(x0, middle), (x1, middle), (x1, y1)]
        codes += [Curve.CURVE4] * 3
    return Curve(vertices, codes)
