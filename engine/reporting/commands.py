"""What ``multilevel plot`` and ``multilevel report`` do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .curves import save_curves
from .folders import read_groups, read_one
from .page import save_page
from .records import CURVES

PAGE = "report.html"


def plot(folders: Sequence[Path], output: Path | None = None, metrics: Sequence[str] = ()) -> Path:
    """Draw the curves of runs.

    Args:
        folders: Of runs, of seeds, or of whole sweeps.
        output: The picture; by default ``curves.png`` in the folder, or in the current one where there are several.
        metrics: Metrics to draw; all by default.

    Returns:
        The picture.

    Raises:
        ConfigError: There is no such run, nothing to draw, or no matplotlib.
    """
    groups = read_groups(folders)
    path = output or (folders[0] if len(folders) == 1 else Path()) / CURVES
    save_curves(groups, path, metrics)
    return path


def report(folder: Path, output: Path | None = None) -> Path:
    """Write a page about a run.

    Args:
        folder: Of the run.
        output: The page; by default ``report.html`` in the folder.

    Returns:
        The page.

    Raises:
        ConfigError: There is no such run, no matplotlib, or the page cannot be written.
    """
    path = output or folder / PAGE
    save_page(read_one(folder), path)
    return path
