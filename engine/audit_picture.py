"""The picture of an audit: accuracy against time."""

from __future__ import annotations

from pathlib import Path

from ..hypergrad.errors import ConfigError
from .audit_report import GOOD, Audit


def save_audit_picture(audit: Audit, path: Path) -> None:
    """Draw relative error against time, one point a method.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ConfigError("a picture needs matplotlib: pip install 'multilevel[examples]'") from None
    rows = [r for r in audit.rows if r.level == "all" and r.relative_error is not None and r.seconds is not None]
    figure = Figure(figsize=(7.5, 5.0), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    floor = 1e-9
    for row in rows:
        own = row.label == "as configured"
        x, y = (row.seconds or 0.0) * 1e3, max(row.relative_error or 0.0, floor)
        axes.scatter(
            [x], [y], s=150 if own else 55, zorder=2 if own else 3, linewidths=1.8 if own else 0,
            facecolors="none" if own else "#2f6db5", edgecolors="#d1495b",
        )  # fmt: skip
        axes.annotate(
            row.label, (x, y), textcoords="offset points", xytext=(8, -13 if own else 5), fontsize=9,
            color="#d1495b" if own else "#222222",
        )  # fmt: skip
    axes.axhspan(floor / 3, GOOD, color="#4c9f70", alpha=0.10, zorder=0)
    axes.text(
        0.99, GOOD * 0.85, "accurate", ha="right", va="top", transform=axes.get_yaxis_transform(), color="#2e6b48"
    )
    axes.set(xscale="log", yscale="log", xlabel="time of one hypergradient (ms)", ylabel="relative error")
    axes.set_title(f"Hypergradient of '{audit.upper}': error against time", loc="left", fontsize=11)
    axes.set_ylim(bottom=floor / 3)
    axes.grid(True, which="major", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.18)
    figure.savefig(path)
