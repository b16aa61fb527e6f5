"""One hierarchy built twice, with compiled steps and without: the eager engine is the oracle of the compiled one."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multilevel import Callback, Engine, EngineConfig, Problem
from multilevel.engine.compiled import Compilation
from multilevel.engine.gradients import LevelGradients

from ...givens import bits

WITHIN = 1e-9
"""The compiled engine does the eager one's arithmetic in another order."""
STEPS = 8
"""Two eager, one noted, one that compiles, one that is taken both ways, and some that programs take."""
LONG = 10**9
"""A run long enough for anything to be worth compiling."""

Build = Callable[..., Engine]


class Seen(Callback):
    """Keeps the gradients and metrics of every level step."""

    def __init__(self) -> None:
        self.steps: list[Any] = []

    def on_gradients(self, engine: Engine, problem: Problem, gradients: LevelGradients) -> None:
        self.steps.append((problem.name, copied(tuple(gradients))))

    def on_level_step(self, engine: Engine, problem: Problem, metrics: dict[str, Tensor]) -> None:
        self.steps.append((problem.name, copied(metrics)))


class Twins:
    """Two engines that are stepped alike, each with random numbers of its own.

    Args:
        build: Builds an engine; takes ``config`` and ``callbacks``.
        config: Settings of both engines.

    Attributes:
        eager: The one without programs.
        compiled: The one with them.
    """

    def __init__(self, build: Build, **config: Any) -> None:
        self._seen, self._random = (Seen(), Seen()), [random_state()] * 2
        self.engines: list[Engine] = []
        start = random_state()
        for i, seen in enumerate(self._seen):
            set_random_state(start)
            settings = EngineConfig(**{"train_iters": LONG, "compile": bool(i), **config})
            self.engines.append(build(config=settings, callbacks=[seen]))
            self._random[i] = random_state()
        self.eager, self.compiled = self.engines

    def step(self, times: int = STEPS) -> None:
        """Take engine steps with both."""
        self.each(lambda engine: [engine.step() for _ in range(times)])

    def forget(self) -> None:
        """Forget what was seen of the steps so far."""
        for seen in self._seen:
            seen.steps.clear()

    def each(self, act: Callable[[Engine], Any]) -> None:
        """Do something with both."""
        for i, engine in enumerate(self.engines):
            set_random_state(self._random[i])
            act(engine)
            self._random[i] = random_state()

    def assert_equal(self, within: float = WITHIN) -> None:
        """Every gradient, metric and state since they were built, and the random numbers to come."""
        assert len(self._seen[0].steps) == len(self._seen[1].steps) > 0
        assert_close(self._seen[1].steps, self._seen[0].steps, within)
        assert_close(bits(self.compiled), bits(self.eager), within)
        assert repr(self._random[1]) == repr(self._random[0])

    def compilation(self, name: str) -> Compilation:
        """What became of a problem's steps."""
        return self.compiled.compilations[name]

    def assert_compiled(self, *programs: int) -> None:
        """Every problem runs programs, so many each."""
        found = {name: (c.programs, c.reason, c.steps > 0) for name, c in self.compiled.compilations.items()}
        expected = dict(zip(found, programs or [1] * len(found), strict=True))
        assert found == {name: (number, None, True) for name, number in expected.items()}


def assert_close(got: Any, expected: Any, within: float) -> None:
    """Equal up to rounding, however nested."""
    if isinstance(expected, Tensor):
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got, expected, rtol=within, atol=within, equal_nan=True)
    elif isinstance(expected, dict):
        assert list(got) == list(expected)
        for key in expected:
            assert_close(got[key], expected[key], within)
    elif isinstance(expected, (list, tuple)):
        assert len(got) == len(expected)
        for a, b in zip(got, expected, strict=True):
            assert_close(a, b, within)
    elif isinstance(expected, float):
        assert abs(got - expected) <= within * max(1.0, abs(expected)) or got == expected
    else:
        assert got == expected


def copied(tree: Any) -> Any:
    """Copies of the tensors in nested containers."""
    if isinstance(tree, Tensor):
        return tree.detach().to_dense().clone()
    if isinstance(tree, dict):
        return {key: copied(value) for key, value in tree.items()}
    return tuple(copied(part) for part in tree) if isinstance(tree, tuple) else tree


def random_state() -> Any:
    """The state of every generator of the process."""
    kind, keys, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), (kind, tuple(keys.tolist()), *rest), random.getstate()


def set_random_state(state: Any) -> None:
    """Go back to one."""
    of_torch, of_numpy, of_python = state
    torch.set_rng_state(torch.tensor(of_torch, dtype=torch.uint8))
    np.random.set_state(of_numpy)
    random.setstate(of_python)
