"""The picture: for each row, how long each implementation takes by the hand-written loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .case import COMPILED, HAND, OURS
from .peers import PEERS
from .results import Results

COLOURS = {
    OURS: "#c1272d",
    COMPILED: "#7b1fa2",
    "betty-ml": "#0072b2",
    "torchopt": "#009e73",
    "higher": "#e69f00",
    "boat-torch": "#56b4e9",
    "hypergrad": "#999999",
    "jaxopt": "#000000",
}


def draw(found: Sequence[Results], path: Path) -> None:
    """One panel for each machine.

    Args:
        found: What was measured.
        path: Where the picture goes.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    heights = [len(results.rows) for results in found]
    figure, panels = plt.subplots(
        len(found),
        1,
        figsize=(10, 1.6 + 0.32 * sum(heights)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axes, results in zip(panels[:, 0], found, strict=True):
        _panel(axes, results)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _panel(axes: Any, results: Results) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.axvline(1, color="black", linewidth=1, zorder=1)
    for number, name in enumerate((OURS, COMPILED, *PEERS)):
        points = [
            (position + 0.08 * (number - 3.5), run.ratio, *run.quartiles)
            for position, row in enumerate(results.rows)
            if (run := row.runs.get(name)) is not None and run.ratio is not None and run.quartiles is not None
        ]
        if not points:
            continue
        places, ratios, lows, highs = zip(*points, strict=True)
        spread = [
            [max(0.0, r - low) for r, low in zip(ratios, lows, strict=True)],
            [max(0.0, high - r) for r, high in zip(ratios, highs, strict=True)],
        ]
        ours = name in (OURS, COMPILED)
        axes.errorbar(
            ratios,
            places,
            xerr=spread,
            fmt="o" if ours else "s",
            markersize=8 if ours else 5,
            color=COLOURS[name],
            label=name,
            zorder=3 if ours else 2,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"time of a step / the {HAND}-written loop's (left is faster)")
    axes.set_yticks(range(len(results.rows)), [f"{row.workload} {row.method}" for row in results.rows])
    axes.grid(axis="x", alpha=0.3)
    for position in range(0, len(results.rows), 2):
        axes.axhspan(position - 0.5, position + 0.5, color="black", alpha=0.04, linewidth=0)
    axes.set_ylim(len(results.rows) - 0.5, -0.5)
    axes.set_title(results.machine["device"], fontsize=10)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
