"""The picture of an audit: accuracy against time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...hypergrad.errors import ConfigError
from .report import Audit, Row
from .verdict import GOOD

SMALLEST = 1e-12
"""Errors below are drawn here: rounding."""

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bb5500", "#882255", "#117733", "#999999")


def save_audit_picture(audit: Audit, path: Path) -> None:
    """Draw relative error against time, one point a method.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, NullFormatter
    except ModuleNotFoundError:
        raise ConfigError("a picture needs matplotlib: pip install 'multilevel[examples]'") from None
    rows = [r for r in audit.rows if r.level == "all" and r.relative_error is not None and r.seconds is not None]
    rows.sort(key=lambda r: r.seconds or 0.0)
    figure = Figure(figsize=(7.5, 5.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    bottom = max(min([GOOD, *(r.relative_error or 0.0 for r in rows)]), SMALLEST) / 3
    for i, row in enumerate(rows):
        _draw(axes, row, color=COLOURS[i % len(COLOURS)], bottom=bottom)
    axes.axhspan(bottom, GOOD, color="#4c9f70", alpha=0.10, zorder=0)
    across = axes.get_yaxis_transform()
    axes.text(0.99, GOOD * 0.9, "accurate", ha="right", va="top", transform=across, color="#2e6b48")
    axes.set(xscale="log", yscale="log", xlabel="time of one hypergradient (ms)", ylabel="relative error")
    if rows:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, title="fastest first")
    else:
        axes.text(0.5, 0.5, "nothing to compare", ha="center", va="center", transform=axes.transAxes)
    axes.set_title(f"Hypergradient of '{audit.upper}': error against time", loc="left", fontsize=11)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(bottom=bottom)
    axes.grid(True, which="major", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    figure.savefig(path)


def _draw(axes: Any, row: Row, *, color: str, bottom: float) -> None:
    x, y = (row.seconds or 0.0) * 1e3, max(row.relative_error or 0.0, 2 * bottom)
    if row.label == "as configured":
        ring = {"facecolors": "none", "edgecolors": "#222222", "linewidths": 1.8}
        axes.scatter([x], [y], s=190, zorder=2, label=row.label, **ring)
    else:
        axes.scatter([x], [y], s=70, zorder=3, color=color, label=row.label)
