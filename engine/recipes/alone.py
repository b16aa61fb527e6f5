"""Training one problem by itself, from where a run began: what a hierarchy is compared with."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ...configs import EngineConfig
from ...hypergrad.errors import ConfigError
from ...problems.problem import Problem
from ..engine import Engine

P = TypeVar("P", bound=Problem)


class Start:
    """What a problem was before its first step: parameters, optimizer, scheduler, and the order of its data.

    Args:
        problem: The problem, in an engine that has not run yet.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._state = copy.deepcopy(problem.state_dict())

    @contextmanager
    def parts(self) -> Iterator[dict[str, Any]]:
        """The problem's parts as they were at the start, for another problem; inside, they are lent to that one."""
        problem = self._problem
        trained = copy.deepcopy(problem.state_dict())
        try:
            problem.load_state_dict(self._state)
            yield {
                "module": problem.module,
                "optimizer": problem.optimizer,
                "scheduler": problem.scheduler,
                "train_data_loader": problem.train_data_loader,
                "config": problem.config,
            }
        finally:
            problem.load_state_dict(trained)


def train_alone(problem: Problem, steps: int, device: str) -> None:
    """Train a problem that has no neighbours.

    Args:
        problem: The problem.
        steps: Batches to train on.
        device: As for :class:`EngineConfig`.
    """
    Engine([problem], config=EngineConfig(train_iters=steps, device=device)).run()


def only(engine: Engine, cls: type[P]) -> P:
    """The one problem of a class.

    Raises:
        ConfigError: There is none, or more than one.
    """
    found = [problem for problem in engine.problems.values() if isinstance(problem, cls)]
    if len(found) != 1:
        names = ", ".join(f"{name} ({type(p).__name__})" for name, p in engine.problems.items())
        raise ConfigError(
            f"{type(engine).__name__}: needs exactly one problem of class {cls.__name__}, got {len(found)}; "
            f"its problems are {names}"
        )
    return found[0]
