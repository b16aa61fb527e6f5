"""What a run was started with, as trackers show it: hyperparameters by name, and the graph as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..drawing import text

if TYPE_CHECKING:
    from ..engine import Engine

Hyperparameters = dict[str, bool | int | float | str]

ABOUT_WRITING = ("loggers", "run_dir")
"""Settings of the engine that say where a run is written, not what it is."""


ABOUT_SPEED = ("foreach", "fused", "capturable", "differentiable")
"""Options of optimizers that say how they compute, not what."""


def hyperparameters(engine: Engine) -> Hyperparameters:
    """Every setting of the engine and of each problem, the options of its optimizer included.

    Returns:
        Single values by dotted name (``classifier.optimizer.lr``); what is ``None`` is left out.
    """
    found: dict[str, Any] = {"engine": engine.config.model_dump(exclude=set(ABOUT_WRITING))}
    for name, problem in engine.problems.items():
        found[name] = {**problem.config.model_dump(), "optimizer": _described(problem.optimizer)}
        if problem.scheduler is not None:
            found[name]["scheduler"] = type(problem.scheduler).__name__
    return dict(_flat(found))


def graph_text(engine: Engine) -> str:
    """The graph of the problems, each with its method."""
    return text(engine.graph, {name: problem.config for name, problem in engine.problems.items()})


def _described(optimizer: Any) -> dict[str, Any]:
    options = {key: value for key, value in getattr(optimizer, "defaults", {}).items() if key not in ABOUT_SPEED}
    return {"name": type(optimizer).__name__, **options}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value if isinstance(value, (bool, int, float, str)) else str(value)
