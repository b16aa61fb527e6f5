"""A picture of the weight that was learned for each training sample, against the sample's loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GRID = "#1f2937", "#6b7280", "#e5e7eb"
RIGHT, WRONG, CURVE = "#0284c7", "#e11d48", "#1f2937"
BINS = 41
SMALLEST = 1e-4
"""Of the losses that are told apart: 0 has no place on a logarithmic axis."""


@dataclass(frozen=True)
class WeightedSamples:
    """Training samples at the end of a run, one entry a sample.

    Args:
        losses: Of the classifier, without the weight.
        weights: What they count.
        corrupted: Whether the label is wrong.
    """

    losses: Tensor
    weights: Tensor
    corrupted: Tensor


def save_weights_picture(samples: WeightedSamples, weight_of: Callable[[Tensor], Tensor], path: Path) -> None:
    """Draw the samples, right and wrong labels apart, the learned curve through them, and how both axes are spread.

    Args:
        samples: The samples.
        weight_of: The learned weights of given losses.
        path: The file; its ending says what kind.
    """
    # No pyplot: it would choose a window system and keep the figure alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 6.0), facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        2, 2, width_ratios=(4.6, 1), height_ratios=(1, 4), left=0.09, right=0.97, bottom=0.1, top=0.84, hspace=0.06,
        wspace=0.05,
    )  # fmt: skip
    middle = figure.add_subplot(grid[1, 0])
    above = figure.add_subplot(grid[0, 0], sharex=middle)
    beside = figure.add_subplot(grid[1, 1], sharey=middle)
    figure.text(0.09, 0.94, "What a training sample counts, learned from its loss", color=INK, size=15, weight="bold")
    figure.text(0.09, 0.895, _subtitle(samples), color=MUTED, size=10.5)
    _scatter(middle, samples, weight_of)
    losses = samples.losses.clamp(min=SMALLEST)
    _histogram(above, losses, _logspace(losses, BINS), samples.corrupted, orientation="vertical")
    _histogram(beside, samples.weights, torch.linspace(0, 1, BINS), samples.corrupted, orientation="horizontal")
    for axes in (middle, above, beside):
        _plain(axes)
    figure.savefig(path, dpi=160)


def _subtitle(samples: WeightedSamples) -> str:
    wrong = samples.corrupted
    right, others = samples.weights[~wrong].mean().item(), samples.weights[wrong].mean().item()
    return f"mean weight {right:.2f} where the label is right, {others:.2f} where it is wrong"


def _scatter(axes: Axes, samples: WeightedSamples, weight_of: Callable[[Tensor], Tensor]) -> None:
    losses = samples.losses.clamp(min=SMALLEST)
    curve = _logspace(losses, 300)
    axes.plot(curve, weight_of(curve), color=CURVE, linewidth=1.6, zorder=2, label="learned weight")
    # The points lie on the curve: a little noise in the height lets the eye see how many there are.
    spread = 0.012 * torch.randn(samples.weights.shape, generator=torch.Generator().manual_seed(0))
    for chosen, colour, label in _groups(samples.corrupted):
        height = (samples.weights + spread)[chosen]
        axes.scatter(losses[chosen], height, s=14, color=colour, alpha=0.4, linewidths=0, zorder=3, label=label)
    axes.set(xlabel="loss of the sample, by the trained classifier (at least $10^{-4}$)")
    axes.set(ylabel="weight of the sample (points jittered)")
    axes.set(xscale="log", xlim=(curve[0].item(), curve[-1].item()), ylim=(-0.06, 1.06))
    legend = axes.legend(frameon=False, loc="center left", labelcolor=INK, markerscale=2)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _histogram(axes: Axes, values: Tensor, bins: Tensor, corrupted: Tensor, *, orientation: Any) -> None:
    for chosen, colour, _ in _groups(corrupted):
        axes.hist(values[chosen].tolist(), bins=bins.tolist(), color=colour, alpha=0.6, orientation=orientation)
    axes.tick_params(labelbottom=orientation == "horizontal", labelleft=orientation == "vertical")
    if orientation == "vertical":
        axes.set_ylabel("samples")
    else:
        axes.set_xlabel("samples")


def _logspace(losses: Tensor, size: int) -> Tensor:
    """Losses from the least to the largest and a little beyond, evenly spaced on a logarithmic axis."""
    least, largest = losses.min().item(), losses.max().item()
    return torch.logspace(math.log10(least / 1.3), math.log10(largest * 1.3), size, dtype=losses.dtype)


def _groups(corrupted: Tensor) -> tuple[tuple[Tensor, str, str], ...]:
    right, wrong = int((~corrupted).sum()), int(corrupted.sum())
    return (~corrupted, RIGHT, f"right label ({right})"), (corrupted, WRONG, f"wrong label ({wrong})")


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    axes.tick_params(which="both", colors=MUTED)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
