"""From an experiment file to its audit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...configs.loader import LoadedExperiment
from ..build import build
from .report import Audit


def audit_experiment(
    loaded: LoadedExperiment,
    upper: str | None,
    methods: Sequence[str] | None,
    steps: int,
    allow: Iterable[str] = (),
) -> Audit:
    """Build an experiment, train it for some engine steps, and audit one of its problems.

    Args:
        loaded: The experiment.
        upper: The problem whose hypergradient is audited; ``None`` is the highest.
        methods: Names of methods; ``None`` is every registered one.
        steps: Engine steps to train before.
        allow: Packages that the file may import.

    Raises:
        ConfigError: The file is wrong, or the problem has no lower.
    """
    engine = build(loaded, allow=allow)
    name = engine[upper].name if upper is not None else engine.graph.order[-1]
    for problem in engine.problems.values():
        problem.module.train()
    for _ in range(steps):
        engine.step()
    return engine.audit(name, methods)
