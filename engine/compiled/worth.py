"""Whether compiling pays in the time that is left."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import pairwise
from statistics import median_low
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..engine import Engine

FIRST, EACH, PER_OPERATION = 15.0, 1.5, 0.05
"""Seconds that the first program of a process takes more than others (the compiler is started, and translates torch's
headers), that each takes, and each operation of it.

They are seconds of a processor, which is what a machine takes that does nothing else; on one that did, the clock said
up to three times as many. Fitted to 34 programs of 6 to 882 operations with torch 2.13 and an empty cache, on an AMD
EPYC: solvers, finite differences and unrolling on MLPs, convolutions, attention and quadratics. Each of these 13
hierarchies took 0.5 to 1.3 of what they say. Reading and recording it, which is not in them, took 0.5 to 3 s."""
SAVED = 0.5
"""The share of an eager step's time that its program saves: a tenth to four fifths in the benchmarks."""

SEEN, NOTED = 2, 9
"""So many eager steps are seen before anything is said of those to come, and so many are noted."""


class Pace:
    """How long the eager level steps of a problem would take until the end of the run, as the first ones went.

    The very first one takes much longer than all others (allocators and libraries start), so that no mean would do.

    Args:
        engine: The engine that takes the steps.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._taken: dict[int, Mapping[str, float]] = {}

    def took(self, laps: Mapping[str, float]) -> None:
        """Take note of an eager step, by the seconds of its parts."""
        if len(self._taken) < NOTED:
            self._taken[self._engine.step_count] = laps

    @property
    def known(self) -> bool:
        """Whether enough steps were taken."""
        return len(self._taken) >= SEEN

    def left(self, *parts: str) -> float:
        """The seconds that these parts of the steps will take, once it is known."""
        seconds = median_low(sum(laps.get(part, 0.0) for part in parts) for laps in self._taken.values())
        every = median_low(abs(later - sooner) for sooner, later in pairwise(self._taken))
        return seconds * (self._engine.config.train_iters - self._engine.step_count) / every


def too_late(left: float, operations: int = 0, programs: int = 1) -> str | None:
    """Why compiling cannot pay any more, where it cannot.

    Args:
        left: How many seconds what is to be compiled will take until the end of the run, eagerly.
        operations: How many operations are to be compiled; none are the smallest program.
        programs: How many programs they become.
    """
    begun = "torch._inductor.compile_fx" in sys.modules
    seconds = (0.0 if begun else FIRST) + EACH * programs + PER_OPERATION * operations
    if SAVED * left > seconds:
        return None
    return (
        f"its steps take {left:.2g} s more until train_iters, of which a program saves about half, and {seconds:.2g} s "
        "to compile"
    )
