"""What an experiment amounts to, before anything is trained."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from ..configs.loader import LoadedExperiment
from .drawing import describe, text
from .graph import Graph, as_edges
from .tables import table

if TYPE_CHECKING:
    from .engine import Engine


def graph_of(loaded: LoadedExperiment) -> Graph:
    """The graph of an experiment, without constructing its parts.

    Raises:
        GraphError: The edges do not form a hierarchy.
    """
    experiment = loaded.experiment
    both = experiment.edges or []
    declared = experiment.dependencies
    down = as_edges(declared.u2l, upper_first=True) if declared else []
    up = as_edges(declared.l2u, upper_first=False) if declared else []
    with loaded.source.located():
        return Graph(experiment.problems, upper_to_lower=[*both, *down], lower_to_upper=[*both, *up])


def steps_per_engine_step(engine: Engine) -> dict[str, Fraction]:
    """How often each problem steps: a leaf once, an upper whenever the slowest of its lowers has been solved."""
    rate: dict[str, Fraction] = {}
    for name in engine.graph.order:
        lowers = [(rate[lower], engine.problems[lower].config) for lower in engine.graph.lowers(name)]
        solved = [steps / (config.unroll_steps * config.gradient_accumulation) for steps, config in lowers]
        rate[name] = min(solved, default=Fraction(1))
    return rate


def summarize(engine: Engine) -> str:
    """The graph, and each problem's method, pace and size."""
    rate = steps_per_engine_step(engine)
    rows = []
    for name in reversed(engine.graph.order):
        problem = engine.problems[name]
        method = describe(problem.config.method) if engine.graph.uppers(name) else "-"
        size = sum(p.numel() for p in problem.parameters)
        rows.append((name, method, str(rate[name]), f"{size:,}", type(problem.optimizer).__name__))
    header = ("problem", "method", "steps per engine step", "parameters", "optimizer")
    configs = {name: problem.config for name, problem in engine.problems.items()}
    return f"{text(engine.graph, configs)}\n\n{table(header, rows)}"
