"""A picture of returns against the steps taken in the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from .weights_picture import GRID, INK, MUTED, RIGHT

TRAINING = "#94a3b8"


@dataclass
class Curve:
    """Mean returns in the course of a run.

    Attributes:
        steps: Taken in the environment.
        returns: Then.
        training: Steps and mean return of the episodes trained on.
    """

    steps: list[int] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    training: list[tuple[int, float]] = field(default_factory=list)

    def add(self, steps: int, value: float) -> None:
        """Add a test; one at the same number of steps replaces it."""
        if self.steps and self.steps[-1] == steps:
            self.steps.pop(), self.returns.pop()
        self.steps.append(steps)
        self.returns.append(value)

    def add_training(self, steps: int, value: Tensor) -> None:
        """Add what was earned while training; of several at the same number of steps, the first stays."""
        if not self.training or self.training[-1][0] < steps:
            self.training.append((steps, value.item()))


def save_curve_picture(curve: Curve, path: Path, *, episodes: int) -> None:
    """Draw the returns of tests, and of the episodes trained on.

    Args:
        curve: The returns.
        path: The file; its ending says what kind.
        episodes: Of each test.
    """
    # No pyplot: it would choose a window system and keep the figure alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 5.0), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.09, 0.12, 0.87, 0.7))
    figure.text(0.09, 0.925, "What the actor earns in an episode", color=INK, size=15, weight="bold")
    figure.text(0.09, 0.87, _subtitle(curve), color=MUTED, size=10.5)
    if curve.training:
        axes.plot(
            *zip(*curve.training, strict=True),
            color=TRAINING,
            linewidth=1.4,
            label="last 100 training episodes, actions sampled",
        )
    axes.plot(
        curve.steps,
        curve.returns,
        color=RIGHT,
        linewidth=2,
        marker="o",
        markersize=4,
        label=f"{episodes} test episodes, most likely actions",
    )
    axes.set(xlabel="steps in the environments", ylabel="mean return", xlim=(0, None), ylim=(0, None))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}".replace(",", " "))
    axes.legend(frameon=False, loc="lower right", labelcolor=INK)
    _plain(axes)
    figure.savefig(path, dpi=160)


def _subtitle(curve: Curve) -> str:
    steps = f"{curve.steps[-1]:,}".replace(",", " ")
    return f"mean return {curve.returns[-1]:.1f} after {steps} steps in the environments"


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    axes.tick_params(colors=MUTED)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
